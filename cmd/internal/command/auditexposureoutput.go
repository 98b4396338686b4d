package command

import (
	"encoding/base64"
	"encoding/csv"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/coatcheck/coatcheck/server/exposure"
)

// printExposure prints a summary of a report.
func printExposure(w io.Writer, r *exposure.Report, key []byte) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name string, value any) { fmt.Fprintf(t, "%s\t%s\n", name, printable(fmt.Sprint(value))) }
	line("Time", askedOf(r))
	line("People", strconv.FormatUint(r.Subjects, 10)+orNothing(r.Erased, ", %d of them erased since"))
	line("Records", strconv.FormatUint(r.Records, 10)+orNothing(r.AboutNobody, ", %d about nobody")+orNothing(r.Unattributed, ", %d of which it isn't known about whom"))
	line("Accesses", r.Accesses)
	if r.First != nil && r.Last != nil {
		line("First, last", r.First.Format(time.RFC3339)+", "+r.Last.Format(time.RFC3339))
	}
	for _, p := range r.Profiles {
		line("Data", fmt.Sprintf("%s (%s): people %d, records %d, %s", p.Profile, orUnknown(p.Type), p.Subjects, p.Records, revealsOf(p)))
	}
	for _, c := range r.Callers {
		line("By", fmt.Sprintf("%s, certificate %s, accesses %d", c.Caller, c.Certificate, c.Accesses))
	}
	line("For", purposesOf(r))
	if r.NotifyBy != nil {
		line("Notify by", r.NotifyBy.Format(time.RFC3339)+" ("+clock(r, time.Now())+")")
	}
	line("Evidence", evidenceOf(r))
	if r.Damaged > 0 {
		line("Damaged", fmt.Sprintf("%d records can't be read: it isn't known what they would tell", r.Damaged))
	}
	line("Signed by", base64.StdEncoding.EncodeToString(key))
	return t.Flush()
}

// exposureCSV returns what prints people, and what ends that.
func exposureCSV(w io.Writer) (end func(*exposure.Report, []byte) error, person func(*exposure.Person) error) {
	c := csv.NewWriter(w)
	_ = c.Write([]string{"subject", "reference", "erased", "records", "accesses", "first_access", "last_access", "data", "purposes", "events"}) // its error comes with Flush
	person = func(p *exposure.Person) error {
		var data, events []string
		for _, profile := range p.Profiles {
			data = append(data, profile.Profile+": "+strings.Join(profile.Reveals, " "))
		}
		for _, e := range p.Events {
			events = append(events, strconv.FormatUint(e, 10))
		}
		if p.MoreEvents {
			events = append(events, "...")
		}
		return c.Write([]string{
			noFormula(p.Subject), p.Reference, strconv.FormatBool(p.Erased), strconv.FormatUint(p.Records, 10), strconv.FormatUint(p.Accesses, 10),
			p.First.Format(time.RFC3339Nano), p.Last.Format(time.RFC3339Nano), strings.Join(data, "; "), strings.Join(p.Purposes, " "), strings.Join(events, " "),
		})
	}
	return func(*exposure.Report, []byte) error {
		c.Flush()
		return c.Error()
	}, person
}

// noFormula keeps a spreadsheet from taking a customer id for a formula: it gets an
// apostrophe before it.
func noFormula(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}

// asked says what a report is about.
func askedOf(r *exposure.Report) string {
	s := r.Since.Format(time.RFC3339) + " to " + r.Until.Format(time.RFC3339)
	for _, f := range []struct{ name, value string }{{"caller", r.Caller}, {"certificate", r.Certificate}, {"profile", r.Profile}, {"subject", r.Subject}} {
		if f.value != "" {
			s += ", " + f.name + " " + f.value
		}
	}
	if r.OneSubject && r.Subject == "" {
		s += ", one subject"
	}
	return s
}

func orNothing(n uint64, format string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(format, n)
}

func orUnknown(s string) string {
	if s == "" {
		return "not declared any more"
	}
	return s
}

func revealsOf(p exposure.ProfileTotal) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(p.Reveals)) {
		list = append(list, fmt.Sprintf("%s (%d)", name, p.Reveals[name]))
	}
	return strings.Join(list, ", ")
}

func purposesOf(r *exposure.Report) string {
	var list []string
	for _, p := range r.Purposes {
		name := p.Purpose
		if name == "" {
			name = "no purpose"
		}
		list = append(list, fmt.Sprintf("%s (%d)", name, p.Accesses))
	}
	return strings.Join(list, ", ")
}

func evidenceOf(r *exposure.Report) string {
	e := r.Evidence
	if e.Events == 0 {
		return fmt.Sprintf("none of the events %d to %d of the log %s, the last of which has the hash %s", e.ReadFrom, e.ReadTo, e.Log, e.Hash)
	}
	return fmt.Sprintf("%d events of the log %s, from %d to %d; the events %d to %d were read, the last of which has the hash %s",
		e.Events, e.Log, e.FirstEvent, e.LastEvent, e.ReadFrom, e.ReadTo, e.Hash)
}

// clock says how much is left of the time in which the authority has to be told.
func clock(r *exposure.Report, now time.Time) string {
	if left := r.NotifyBy.Sub(now).Truncate(time.Minute); left >= 0 {
		return fmt.Sprintf("%d hours and %d minutes are left", int(left.Hours()), int(left.Minutes())%60)
	}
	return "that is over: say why it is late"
}

// writeNotice writes the page for the supervisory authority.
func writeNotice(w io.Writer, r *exposure.Report, key []byte, contact string, now time.Time) error {
	data := map[string]any{
		"R": r, "Asked": askedOf(r), "Purposes": purposesOf(r), "Evidence": evidenceOf(r), "Contact": contact,
		"Key": base64.StdEncoding.EncodeToString(key), "Now": now,
	}
	if r.NotifyBy != nil {
		data["Clock"] = clock(r, now)
	}
	return noticePage.Execute(w, data)
}

var noticePage = template.Must(template.New("notice").Funcs(template.FuncMap{
	"reveals": revealsOf, "known": orUnknown,
	"time": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
}).Parse(`<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>Notice of a personal data breach</title>
<style>
@page { size: A4; margin: 15mm }
body { font: 10pt/1.35 sans-serif; max-width: 180mm; margin: 0 auto }
h1 { font-size: 15pt; margin: 0 0 2mm } h2 { font-size: 11pt; margin: 4mm 0 1mm }
table { border-collapse: collapse; width: 100% } th, td { border: 1px solid #999; padding: 1mm 2mm; text-align: left; vertical-align: top }
p { margin: 1mm 0 } .open { border: 1px dashed #999; padding: 1mm 2mm; min-height: 9mm; color: #555 } .small { font-size: 8pt; overflow-wrap: anywhere }
</style>
<h1>Notice of a personal data breach (GDPR, article 33)</h1>
{{with .R.KnownSince}}<p><b>Became known</b> {{time .}}. <b>To be notified by</b> {{time $.R.NotifyBy}}: {{$.Clock}} at {{time $.Now}}.</p>
{{else}}<p class="open">When the breach became known, from which there are 72 hours (article 33(1)): to be filled in.</p>
{{end}}<h2>Nature of the breach (article 33(3)(a))</h2>
<p>Access to personal data, {{.Asked}}.</p>
<table>
<tr><th>Persons concerned, about<td>{{.R.Subjects}}{{with .R.Erased}}, {{.}} of them erased since{{end}}
<tr><th>Records concerned, about<td>{{.R.Records}}{{with .R.AboutNobody}}, {{.}} of them about nobody who was named{{end}}{{with .R.Unattributed}}, {{.}} of which it isn't known about whom{{end}}
<tr><th>Accesses<td>{{.R.Accesses}}{{with .R.First}}, from {{time .}} to {{time $.R.Last}}{{end}}
<tr><th>Stated purposes<td>{{.Purposes}}
{{range .R.Callers}}<tr><th>By<td>{{.Caller}}, accesses {{.Accesses}}<div class="small">certificate {{.Certificate}}</div>
{{end}}<tr><th>From<td>{{range $i, $a := .R.Addresses}}{{if $i}}, {{end}}{{$a}}{{end}}{{if .R.MoreAddresses}}, and others{{end}}
</table>
<table>
<tr><th>Category of data<th>Type<th>Classes<th>Persons<th>Records<th>Shown
{{range .R.Profiles}}<tr><td>{{.Profile}}<td>{{known .Type}}<td>{{range $i, $c := .Classes}}{{if $i}}, {{end}}{{$c}}{{end}}<td>{{.Subjects}}<td>{{.Records}}<td>{{reveals .}}
{{end}}</table>
{{with .R.Damaged}}<p>{{.}} stored records can't be read: it isn't known what they would tell.</p>
{{end}}<p class="open">Categories of persons, such as customers or employees; what has happened: to be filled in.</p>
<h2>Contact (article 33(3)(b))</h2>
{{with .Contact}}<p>{{.}}</p>{{else}}<p class="open">Data protection officer, or whoever else can be asked: to be filled in.</p>{{end}}
<h2>Likely consequences (article 33(3)(c))</h2>
<p class="open">To be filled in.</p>
<h2>Measures taken or proposed (article 33(3)(d))</h2>
<p class="open">To be filled in.</p>
<h2>Evidence (article 33(5))</h2>
<p class="small">{{.Evidence}}. Report {{.R.RequestID}} of {{time .R.Created}}, made for {{.R.CreatedBy}}; the signature is good under the key {{.Key}}. DETAILS stands for data about
a record, such as its labels and the customer id, without its value.</p>
</html>
`))
