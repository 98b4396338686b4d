package exposure

import (
	"context"
	"slices"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// Version is the version of the form of a report. Fields may be added to it; one never
// changes its meaning.
const Version = 1

// NotifyWithin is how long there is from when a breach became known until the supervisory
// authority has to be told (GDPR, article 33(1)).
const NotifyWithin = 72 * time.Hour

// maxEvents is how many events are named of each person: the first.
const maxEvents = 100

// Report is a report without the people, who follow on it.
type Report struct {
	Version   int       `json:"coatcheck_exposure_report"`
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"` // the caller who has asked for it
	RequestID string    `json:"request_id"` // of the call, which is in the audit log too
	Namespace string    `json:"namespace"`

	// What was asked for. The subject isn't named unless customer ids are.
	Since       time.Time `json:"since"`
	Until       time.Time `json:"until"`
	Caller      string    `json:"caller,omitempty"`
	Certificate string    `json:"certificate,omitempty"`
	Profile     string    `json:"profile,omitempty"`
	Subject     string    `json:"subject,omitempty"`
	OneSubject  bool      `json:"one_subject,omitempty"`

	// When the incident became known, and when the authority is to be told.
	KnownSince *time.Time `json:"known_since,omitempty"`
	NotifyBy   *time.Time `json:"notify_by,omitempty"`

	Subjects uint64     `json:"subject_count"`        // people whose data was accessed
	Erased   uint64     `json:"erased_subject_count"` // of whom nothing else is known any more
	Records  uint64     `json:"record_count"`         // that were accessed
	Accesses uint64     `json:"access_count"`
	First    *time.Time `json:"first_access,omitempty"`
	Last     *time.Time `json:"last_access,omitempty"`

	// Of Records, those that are about nobody, since none was named when they were
	// made; and those of which nobody can tell any more whether they were.
	AboutNobody  uint64 `json:"records_about_nobody"`
	Unattributed uint64 `json:"records_unattributed"`

	Profiles      []ProfileTotal `json:"profiles"`
	Callers       []CallerTotal  `json:"callers"`
	Purposes      []PurposeTotal `json:"purposes"`
	Addresses     []string       `json:"addresses"` // of clients, up to 100
	MoreAddresses bool           `json:"more_addresses,omitempty"`

	Evidence Evidence `json:"evidence"`

	// Damaged is how many records of the store can't be read, so that it isn't known
	// what they would have told.
	Damaged int `json:"damaged_records,omitempty"`
}

// ProfileTotal is what was accessed of the data of a profile.
type ProfileTotal struct {
	Profile  string            `json:"profile"`
	Type     string            `json:"type,omitempty"` // of the data; empty if the profile isn't declared any more
	Classes  []string          `json:"classes,omitempty"`
	Subjects uint64            `json:"subject_count"`
	Records  uint64            `json:"record_count"`
	Reveals  map[string]uint64 `json:"accesses_by_reveal"` // how much was shown; DETAILS is no value
}

// CallerTotal is what one client has accessed.
type CallerTotal struct {
	Caller      string    `json:"caller"`
	Certificate string    `json:"certificate"`
	Accesses    uint64    `json:"access_count"`
	First       time.Time `json:"first_access"`
	Last        time.Time `json:"last_access"`
}

// PurposeTotal is what for it was accessed. Calls that state none have an empty one.
type PurposeTotal struct {
	Purpose  string `json:"purpose"`
	Accesses uint64 `json:"access_count"`
}

// Evidence says which part of the audit log the report is made of. The hash of the last
// event that was read is chained to all before it: a log that has it is the log that was
// read.
type Evidence struct {
	Log        string `json:"log"`
	ReadFrom   uint64 `json:"read_from_event"`
	ReadTo     uint64 `json:"read_to_event"`
	Hash       string `json:"read_to_hash"`
	Events     uint64 `json:"event_count"` // that tell of the accesses
	FirstEvent uint64 `json:"first_event"` // of these; 0 if there are none
	LastEvent  uint64 `json:"last_event"`

	// Checkpoint is the latest signed checkpoint of the log when the report was made, a
	// signed note; empty if there was none. Under it each event of the report can be
	// proven to be in the log, but for those of the last seconds.
	Checkpoint string `json:"checkpoint,omitempty"`
}

// Person is somebody whose data was accessed, a line of a report.
type Person struct {
	// Subject is the customer id, if it was asked for and is still known.
	Subject string `json:"subject,omitempty"`

	// Reference is the digest by which the audit log names the person.
	Reference string `json:"reference,omitempty"`

	// Erased says that there is nothing stored about the person any more.
	Erased bool `json:"erased,omitempty"`

	Records    uint64          `json:"record_count"`
	Accesses   uint64          `json:"access_count"`
	First      time.Time       `json:"first_access"`
	Last       time.Time       `json:"last_access"`
	Profiles   []PersonProfile `json:"profiles"`
	Purposes   []string        `json:"purposes"`
	Events     []uint64        `json:"events"` // the first, up to 100
	MoreEvents bool            `json:"more_events,omitempty"`
}

// PersonProfile is what was accessed of a person's data of a profile.
type PersonProfile struct {
	Profile string   `json:"profile"`
	Records uint64   `json:"record_count"`
	Reveals []string `json:"reveals"`
}

// totals goes through all accesses, and fills in what a report says of them together.
func (f *Found) totals(r *Report, declared func(string) (*tokenizer.Profile, error)) error {
	profiles := make(map[string]*ProfileTotal)
	callers := make(map[facet]*CallerTotal)
	purposes := make(map[string]uint64)
	err := f.owners(func(owner ref, t *tally) error {
		switch owner[0] {
		case kindNobody:
			r.AboutNobody = t.records
		case kindUnknown:
			r.Unattributed = t.records
		default:
			r.Subjects++
			if owner[0] == kindSubject {
				r.Erased++
			}
		}
		r.Records += t.records
		r.Accesses += t.accesses
		r.First, r.Last = earlier(r.First, t.first), later(r.Last, t.last)
		for id, use := range t.facets {
			a := f.facets[id]
			p := profiles[a.profile]
			if p == nil {
				p = &ProfileTotal{Profile: a.profile, Reveals: make(map[string]uint64)}
				profiles[a.profile] = p
			}
			p.Reveals[a.reveal] += use.accesses
			purposes[a.purpose] += use.accesses
			client := facet{caller: a.caller, certificate: a.certificate}
			c := callers[client]
			if c == nil {
				c = &CallerTotal{Caller: a.caller, Certificate: a.certificate, First: use.first, Last: use.last}
				callers[client] = c
			}
			c.Accesses += use.accesses
			c.First, c.Last = *earlier(&c.First, use.first), *later(&c.Last, use.last)
		}
		for name, records := range t.profiles {
			profiles[name].Records += records
			if owner[0] != kindNobody && owner[0] != kindUnknown {
				profiles[name].Subjects++
			}
		}
		return nil
	})
	r.Profiles, r.Callers, r.Purposes = []ProfileTotal{}, []CallerTotal{}, []PurposeTotal{} // not null
	for _, name := range sorted(profiles) {
		if p, err := declared(name); err == nil {
			profiles[name].Type, profiles[name].Classes = p.Type, p.Classes
		}
		r.Profiles = append(r.Profiles, *profiles[name])
	}
	for _, c := range callers {
		r.Callers = append(r.Callers, *c)
	}
	slices.SortFunc(r.Callers, compareCallers)
	for _, name := range sorted(purposes) {
		r.Purposes = append(r.Purposes, PurposeTotal{name, purposes[name]})
	}
	return err
}

// namesAtOnce is how many people are looked up at once.
const namesAtOnce = 64

// people goes through those whose data was accessed. names says whether by their customer
// ids.
func (f *Found) people(ctx context.Context, from *Finder, names bool, do func(*Person) error) error {
	var page []*Person
	var ids []uint64 // 0 for those who aren't known
	flush := func() error {
		known := slices.DeleteFunc(slices.Clone(ids), func(id uint64) bool { return id == 0 })
		found, err := from.Tokenizer.SubjectNames(ctx, from.Namespace, known...)
		if err != nil {
			return err
		}
		for i, p := range page {
			if ids[i] != 0 {
				p.Reference, p.Erased = found[0].Digest, found[0].Name == ""
				if names {
					p.Subject = found[0].Name
				}
				found = found[1:]
			}
			if err := do(p); err != nil {
				return err
			}
		}
		page, ids = page[:0], ids[:0]
		return ctx.Err()
	}
	err := f.owners(func(owner ref, t *tally) error {
		switch owner[0] {
		case kindPerson:
			page, ids = append(page, t.person(f.facets)), append(ids, owner.id())
		case kindSubject:
			page, ids = append(page, t.person(f.facets)), append(ids, 0)
			p := page[len(page)-1]
			p.Reference, p.Erased = owner.digest(), true
		}
		if len(page) == namesAtOnce {
			return flush()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}
