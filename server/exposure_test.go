package server_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/exposure"
	"github.com/coatcheck/coatcheck/server/servertest"
)

// incident is a made incident: many callers reveal data of many people, and for a while
// somebody else does with the certificate of one of them.
type incident struct {
	in       *servertest.Instance
	random   *rand.Rand
	subjects int
	callers  int
	tokens   []incidentToken
	stolen   tls.Certificate
	conns    []*grpc.ClientConn // of the callers; the first's with a certificate of its own

	took map[string]*taken // by the stolen certificate during the theft, by subject
}

// incidentToken is a token that the generator knows.
type incidentToken struct{ token, profile, subject string }

// taken is what the generator knows of one whose data was taken.
type taken struct {
	accesses uint64
	tokens   map[string]bool
	reveals  map[string]map[string]bool // by profile
	purposes map[string]bool
}

func soak() bool { return os.Getenv("COATCHECK_SOAK") != "" }

func newIncident(t *testing.T, subjects, callers int) *incident {
	rules := servertest.Policy
	for i := range callers {
		rules += fmt.Sprintf(`  - name: caller-%d
    callers: ["spiffe://coatcheck.example/caller-%[1]d"]
    actions: [detokenize]
    profiles: [card, ssn, note]
    purposes: [support]
    reveal: FULL
  - name: charging-%[1]d
    callers: ["spiffe://coatcheck.example/caller-%[1]d"]
    actions: [detokenize]
    profiles: [card]
    purposes: [charge]
    reveal: FULL
`, i)
	}
	m := &incident{
		in: servertest.Start(t, servertest.Options{Policy: rules, Checkpoints: true}), random: rand.New(rand.NewPCG(1, 7)),
		subjects: subjects, callers: callers, took: make(map[string]*taken),
	}
	m.stolen = m.in.Authority.Caller(t, "caller-0")
	for i := range callers {
		m.conns = append(m.conns, m.in.As(t, fmt.Sprintf("caller-%d", i)))
	}
	m.fill(t)
	return m
}

// fill makes tokens: each person has a card, every third an SSN too; some notes are about
// nobody.
func (m *incident) fill(t *testing.T) {
	var items []*coatcheckv1.TokenizeRequest
	for i := range m.subjects {
		name := fmt.Sprintf("customer-%06d", i)
		items = append(items, &coatcheckv1.TokenizeRequest{Profile: "card", Value: "4111111111111111", Subject: name})
		if i%3 == 0 {
			items = append(items, &coatcheckv1.TokenizeRequest{Profile: "ssn", Value: "536-22-1234", Subject: name})
		}
		if i%10 == 0 {
			items = append(items, &coatcheckv1.TokenizeRequest{Profile: "note", Value: "a note"})
		}
	}
	client := coatcheckv1.NewTokenizationServiceClient(m.in.As(t, "checkout"))
	for batch := range slices.Chunk(items, 2000) {
		resp, err := client.BatchTokenize(t.Context(), &coatcheckv1.BatchTokenizeRequest{Items: batch})
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range resp.GetResults() {
			if r.GetResponse() == nil {
				t.Fatal(r.GetError())
			}
			m.tokens = append(m.tokens, incidentToken{r.GetResponse().GetToken(), batch[i].GetProfile(), batch[i].GetSubject()})
		}
	}
}

// reveal reveals tokens in calls of a few, or one by one; some are refused for the purpose.
// taken says that the generator is to remember it.
func (m *incident) reveal(t *testing.T, conn *grpc.ClientConn, n int, theft bool) {
	client := coatcheckv1.NewTokenizationServiceClient(conn)
	for n > 0 {
		size := []int{1, 1, 20}[m.random.IntN(3)]
		var reqs []*coatcheckv1.DetokenizeRequest
		var about []incidentToken
		for range min(size, n) {
			token := m.tokens[m.random.IntN(len(m.tokens))]
			req := &coatcheckv1.DetokenizeRequest{Token: token.token, Purpose: "support"}
			switch {
			case token.profile == "card" && m.random.IntN(2) == 0:
				req.Purpose, req.Reveal = "charge", coatcheckv1.Reveal_REVEAL_MASKED
			case token.profile == "card" && m.random.IntN(8) == 0:
				req.Purpose = "refund" // which no rule allows
			}
			reqs, about = append(reqs, req), append(about, token)
		}
		n -= size
		results := make([]*coatcheckv1.DetokenizeResponse, len(reqs))
		if size == 1 {
			resp, err := client.Detokenize(t.Context(), reqs[0])
			if err != nil && status.Code(err) != codes.PermissionDenied {
				t.Error(err)
				return
			}
			results[0] = resp
		} else {
			resp, err := client.BatchDetokenize(t.Context(), &coatcheckv1.BatchDetokenizeRequest{Items: reqs})
			if err != nil {
				t.Error(err)
				return
			}
			for i, r := range resp.GetResults() {
				results[i] = r.GetResponse()
			}
		}
		for i, r := range results {
			if theft && r != nil {
				m.remember(about[i], reqs[i].GetPurpose(), strings.TrimPrefix(r.GetReveal().String(), "REVEAL_"))
			}
		}
	}
}

func (m *incident) remember(about incidentToken, purpose, reveal string) {
	who := m.took[about.subject]
	if who == nil {
		who = &taken{tokens: make(map[string]bool), reveals: make(map[string]map[string]bool), purposes: make(map[string]bool)}
		m.took[about.subject] = who
	}
	if who.reveals[about.profile] == nil {
		who.reveals[about.profile] = make(map[string]bool)
	}
	who.accesses++
	who.tokens[about.token], who.reveals[about.profile][reveal], who.purposes[purpose] = true, true, true
}

// run has everybody reveal data before, during and after the theft, and returns when it was.
func (m *incident) run(t *testing.T, reveals int) (since, until time.Time) {
	// Before and after it, the caller itself has the certificate that is stolen, and
	// during it another.
	own := m.in.Dial(t, &m.stolen)
	everybody := func() {
		for i, conn := range m.conns {
			m.reveal(t, conn, reveals/m.callers/3, false)
			if i%10 == 0 {
				m.reveal(t, m.conns[0], 20, false)
			}
		}
	}
	m.reveal(t, own, reveals/20, false)
	everybody()
	time.Sleep(2 * time.Millisecond)
	since = time.Now()
	time.Sleep(2 * time.Millisecond)
	thief := m.in.Dial(t, &m.stolen)
	m.reveal(t, thief, reveals/20, true)
	everybody()
	m.reveal(t, thief, reveals/20, true)
	time.Sleep(2 * time.Millisecond)
	until = time.Now()
	time.Sleep(2 * time.Millisecond)
	m.reveal(t, own, reveals/20, false)
	everybody()
	return since, until
}

// report asks for a report and checks its signature.
func (m *incident) report(t *testing.T, req *coatcheckv1.ReportExposureRequest) (*exposure.Report, []*exposure.Person, []byte) {
	t.Helper()
	stream, err := coatcheckv1.NewPrivacyServiceClient(m.in.As(t, "admin")).ReportExposure(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	var document bytes.Buffer
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		document.Write(part.GetReport())
	}
	var people []*exposure.Person
	report, _, err := exposure.Read(bytes.NewReader(document.Bytes()), func(p *exposure.Person) error {
		people = append(people, p)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return report, people, document.Bytes()
}

// The report on a theft is what the generator knows, to the subject.
func TestIncidentExposure(t *testing.T) {
	subjects, callers, reveals := 600, 10, 3000
	if soak() {
		subjects, callers, reveals = 100_000, 50, 300_000
	}
	m := newIncident(t, subjects, callers)
	since, until := m.run(t, reveals)
	fingerprint := sha256.Sum256(m.stolen.Certificate[0])
	req := &coatcheckv1.ReportExposureRequest{
		Since: timestamppb.New(since), Until: timestamppb.New(until), Certificate: hex.EncodeToString(fingerprint[:]), RevealSubjects: true,
	}
	waitForCheckpoint(t, coatcheckv1.NewAuditServiceClient(m.in.As(t, "admin")), 1)
	begin := time.Now()
	report, people, document := m.report(t, req)
	t.Logf("%d events, %d people, %d bytes in %v", report.Evidence.ReadTo, len(people), len(document), time.Since(begin))

	nobody := m.took[""]
	delete(m.took, "")
	records, accesses := uint64(0), uint64(0)
	for _, p := range people {
		who := m.took[p.Subject]
		if who == nil {
			t.Fatalf("%q is in the report, and the generator knows nothing of it", p.Subject)
		}
		got := &taken{accesses: p.Accesses, tokens: who.tokens, reveals: make(map[string]map[string]bool), purposes: make(map[string]bool)}
		for _, profile := range p.Profiles {
			got.reveals[profile.Profile] = set(profile.Reveals)
		}
		got.purposes = set(p.Purposes)
		if !reflect.DeepEqual(got, who) || p.Records != uint64(len(who.tokens)) || p.Erased || p.Reference == "" || len(p.Events) == 0 {
			t.Errorf("%s: the report says %+v, the generator %+v", p.Subject, p, who)
		}
		if p.First.Before(since) || p.Last.After(until) || p.Last.Before(p.First) {
			t.Errorf("%s: from %v to %v", p.Subject, p.First, p.Last)
		}
		records, accesses = records+p.Records, accesses+p.Accesses
	}
	if len(people) != len(m.took) || report.Subjects != uint64(len(m.took)) {
		t.Errorf("%d people are in the report, which says %d; the generator knows of %d", len(people), report.Subjects, len(m.took))
	}
	if report.AboutNobody != uint64(len(nobody.tokens)) || report.Unattributed != 0 ||
		report.Records != records+report.AboutNobody || report.Accesses != accesses+nobody.accesses {
		t.Errorf("totals: %+v; the generator knows of %d records about nobody", report, len(nobody.tokens))
	}
	if len(report.Callers) != 1 || report.Callers[0].Caller != "spiffe://coatcheck.example/caller-0" || report.Callers[0].Certificate != req.GetCertificate() {
		t.Errorf("callers: %+v", report.Callers)
	}

	if report.Evidence.Log != m.in.Store.LogID().String() || len(report.Evidence.Hash) != 64 || report.Evidence.LastEvent > report.Evidence.ReadTo ||
		report.Evidence.FirstEvent <= report.Evidence.ReadFrom || !strings.Contains(report.Evidence.Checkpoint, "\n\n— ") {
		t.Errorf("evidence: %+v", report.Evidence)
	}

	t.Run("by the caller there is more", func(t *testing.T) {
		all, _, _ := m.report(t, &coatcheckv1.ReportExposureRequest{Since: req.Since, Until: req.Until, Caller: "spiffe://coatcheck.example/caller-0"})
		if len(all.Callers) != 2 || all.Accesses <= report.Accesses {
			t.Errorf("callers: %+v", all.Callers)
		}
	})
	t.Run("without customer ids", func(t *testing.T) {
		hidden := &coatcheckv1.ReportExposureRequest{Since: req.Since, Until: req.Until, Certificate: req.Certificate}
		other, people, document := m.report(t, hidden)
		if bytes.Contains(document, []byte("customer-")) || other.Subjects != report.Subjects || len(people) != int(report.Subjects) {
			t.Errorf("%d people, %.300s", other.Subjects, document)
		}
	})
	t.Run("of one person", func(t *testing.T) {
		one := people[len(people)/2]
		only, found, _ := m.report(t, &coatcheckv1.ReportExposureRequest{
			Since: req.Since, Until: req.Until, Certificate: req.Certificate, Subject: one.Subject, RevealSubjects: true,
		})
		if len(found) != 1 || !reflect.DeepEqual(found[0], one) || only.Subjects != 1 {
			t.Errorf("%+v, want %+v", found, one)
		}
	})
	t.Run("of deleted tokens", func(t *testing.T) {
		tokens := coatcheckv1.NewTokenServiceClient(m.in.As(t, "admin"))
		for _, token := range m.tokens[:60] {
			if _, err := tokens.DeleteToken(t.Context(), &coatcheckv1.DeleteTokenRequest{Token: token.token}); err != nil {
				t.Fatal(err)
			}
		}
		again, found, _ := m.report(t, req)
		if again.Subjects != report.Subjects || again.Records != report.Records || !reflect.DeepEqual(found, people) {
			t.Errorf("%+v, want %+v", again, report)
		}
	})
}

func set(list []string) map[string]bool {
	m := make(map[string]bool)
	for _, s := range list {
		m[s] = true
	}
	return m
}

// A report is recorded with what was asked for before it is made, and when it has ended;
// so is one that is refused. What else tells about people is in reports too.
func TestExposureIsRecorded(t *testing.T) {
	m := newIncident(t, 3, 1)
	admin := coatcheckv1.NewTokenServiceClient(m.in.As(t, "admin"))
	if _, err := admin.GetToken(t.Context(), &coatcheckv1.GetTokenRequest{Token: m.tokens[0].token}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.ListTokens(t.Context(), &coatcheckv1.ListTokensRequest{Profile: "card"}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.RevokeToken(t.Context(), &coatcheckv1.RevokeTokenRequest{Token: m.tokens[0].token}); err != nil {
		t.Fatal(err)
	}
	since := timestamppb.New(time.Now().Add(-time.Hour))
	req := &coatcheckv1.ReportExposureRequest{
		Since: since, Caller: "spiffe://coatcheck.example/admin", Profile: "card", Subject: "customer-000000", RevealSubjects: true, Reason: "INC-1",
	}
	_, people, _ := m.report(t, req)
	if len(people) != 1 || people[0].Subject != req.Subject || people[0].Accesses != 3 || people[0].Records != 1 || people[0].Profiles[0].Reveals[0] != "DETAILS" {
		t.Errorf("%+v", people)
	}
	stranger, err := coatcheckv1.NewPrivacyServiceClient(m.in.As(t, "stranger")).ReportExposure(t.Context(), req)
	if err == nil {
		_, err = stranger.Recv()
	}
	if reason(err) != "NO_RULE" {
		t.Errorf("the stranger: %v", err)
	}

	var subject string // as the tokens of the person are recorded
	var told []map[string]any
	for _, e := range events(t, m.in) {
		items, _ := e["items"].([]any)
		if e["action"] == "tokenize" && len(items) > 0 {
			subject, _ = items[0].(map[string]any)["subject"].(string)
		}
		if e["method"] == coatcheckv1.PrivacyService_ReportExposure_FullMethodName {
			told = append(told, e)
		}
	}
	if len(told) != 3 {
		t.Fatalf("%d events: %v", len(told), told)
	}
	before, after, denied := told[0], told[1], told[2]
	for name, want := range map[string]any{
		"action": "report-exposure-subjects", "about_caller": req.Caller, "profile": "card", "stated_reason": "INC-1", "decision": "allow", "code": "OK",
		"since": since.AsTime().Format("2006-01-02T15:04:05.000000000Z"),
	} {
		if before[name] != want || after[name] != want {
			t.Errorf("%s: %v, then %v; want %v", name, before[name], after[name], want)
		}
	}
	if items, ok := before["items"].([]any); !ok || len(items) != 1 || subject == "" || items[0].(map[string]any)["subject"] != subject {
		t.Errorf("%v, want the subject %s", before, subject)
	}
	if before["request_id"] != after["request_id"] || after["records"] != 1.0 || before["records"] != nil {
		t.Errorf("%v, then %v", before, after)
	}
	if denied["decision"] != "deny" || denied["reason"] != "NO_RULE" {
		t.Errorf("%v", denied)
	}
}
