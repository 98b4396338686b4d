// Package audit is the record of who did what with which data: events, the
// hash chain that they are in, and the files in which they can be read.
//
// # Where the record is
//
// The durable record is the store. Each event is committed there in one unit
// with the state that it tells of, so there is neither without the other; see
// tokenizer.Store. The store numbers the events of its log from 1 and chains
// each to the one before by a hash.
//
// The segments, files of JSON lines in a directory, are a copy for people and
// tools. They follow the store: whatever is committed is written to them
// shortly after, and synced about once a second. After a crash they may lag
// behind or end in half a line; opening them mends that from the store. Nothing
// is lost with them: the directory may be moved away or deleted while the
// server is stopped, and is rebuilt whole when it starts.
//
// # What an event says
//
// An event is one JSON object on one line of ASCII, in which whatever is not
// printable ASCII is escaped. Its schema is that of Event, version 1: fields
// always come in the order of the struct, and those that are empty are left
// out, except v and time. New fields may be added to the version; a field
// never changes its meaning.
//
// An event never holds a value, a token or a customer id. What it must point
// to, it names by a digest under a key of the keyring.
//
// # How a line is chained
//
// A line is an object of five fields without any space between them, in this
// order, followed by a line feed:
//
//	{"log":"…","seq":1,"prev":"…","hash":"…","event":{…}}
//
// log is the id of the log (32 hexadecimal digits), seq the number of the
// event, prev the hash of the event before, hash that of this one (64
// hexadecimal digits each, in lower case), and event the exact bytes that were
// hashed. With ‖ for concatenation and seq as 8 bytes, big endian:
//
//	hash      = SHA-256("coatcheck audit entry v1\n" ‖ seq ‖ prev ‖ event)
//	first prev = SHA-256("coatcheck audit log v1\n" ‖ log)
//
// log, prev and hash go into it as bytes, not as digits.
package audit

import "time"

// Decision is what policy said to a call.
type Decision string

// Decisions. A call that failed before policy was asked has Deny, or, if no
// decision was needed, none.
const (
	Allow Decision = "allow"
	Deny  Decision = "deny"
)

// Actions of events that tell of the system itself and not of a call.
const (
	ActionStart      = "start"       // the server is ready to serve
	ActionStop       = "stop"        // the server has stopped serving
	ActionCreateKeys = "create-keys" // keys were added to a keyring that lacked them
	ActionRotateKey  = "rotate-key"  // a key was due, and a new version was made
	ActionReseal     = "reseal"      // records were moved to the active data key
	ActionReindex    = "reindex"     // the index was moved to the active index or subject key
	ActionSweep      = "sweep"       // what had expired was shredded and removed

	// ActionPrune says that events are about to be pruned from the segments.
	ActionPrune = "prune-audit"

	// ActionCreateLogKey says that the key was made which signs checkpoints of the log.
	ActionCreateLogKey = "create-log-key"

	// ActionReloadPolicy says that the policy file has changed, and whether it was put
	// to work or refused.
	ActionReloadPolicy = "reload-policy"

	// ActionReloadTLS says so of the server's certificate, key and client authorities,
	// and ActionReloadCRL of the revocation lists.
	ActionReloadTLS = "reload-tls"
	ActionReloadCRL = "reload-crl"
)

// Reasons of an ActionReloadPolicy, ActionReloadTLS or ActionReloadCRL that was refused.
const (
	ReasonPolicyInvalid    = "POLICY_INVALID"
	ReasonPolicyUnreadable = "POLICY_UNREADABLE"
	ReasonTLSInvalid       = "TLS_INVALID"
	ReasonTLSUnreadable    = "TLS_UNREADABLE"
	ReasonCRLInvalid       = "CRL_INVALID"
	ReasonCRLUnreadable    = "CRL_UNREADABLE"
)

// Alerts that an event can carry.
const (
	AlertHoneytoken = "HONEYTOKEN" // a token was used that nobody has a reason to use
	AlertBurst      = "BURST"      // far more is revealed to the caller than usual
	AlertNotify     = "NOTIFY"     // a rule of the policy asks for it
)

// Version is the version of the schema, the field v of every event.
const Version = 1

// Event is one audit event. Every field may be empty.
type Event struct {
	// Time is when the call came in. It is written in UTC to the nanosecond,
	// in the form of RFC 3339 and always at the same length.
	Time time.Time `json:"time"`

	// RequestID is the id that the server gave to the call.
	RequestID string `json:"request_id"`

	// TraceID is the id of the trace that the client says the call belongs to, 32
	// hexadecimal digits, in the form of W3C Trace Context.
	TraceID string `json:"trace_id"`

	// Caller is the identity that the client's certificate gives: a SPIFFE ID,
	// "dns:NAME" or "cn:NAME". It is empty if the certificate gives none.
	Caller string `json:"caller"`

	// Certificate is the SHA-256 hash of the client's certificate (DER), in
	// hexadecimal.
	Certificate string `json:"certificate"`

	// Peer is the network address of the client, "ip:port".
	Peer string `json:"peer"`

	// Method is the full name of the RPC, as in
	// "/coatcheck.v1.TokenizationService/Tokenize". Events of the system
	// itself have none.
	Method string `json:"method"`

	// Action is what policy calls the RPC, or one of the Action constants.
	Action string `json:"action"`

	// Namespace is the tenant whose data it is about.
	Namespace string `json:"namespace"`

	// Profile is the name of the profile of the data.
	Profile string `json:"profile"`

	// Purpose is what for the data was to be revealed.
	Purpose string `json:"purpose"`

	// Reveal is how much was revealed: "MASKED", "FULL" or the name of a part, as
	// in "LAST4". It is empty if nothing was, whatever had been asked for.
	Reveal string `json:"reveal"`

	// Decision is what policy said.
	Decision Decision `json:"decision"`

	// Rule is the rule of the policy that allowed it, or the one that denied it.
	Rule string `json:"rule"`

	// Policy is the SHA-256 hash of the policy file, in hexadecimal.
	Policy string `json:"policy"`

	// Code is the canonical name of the gRPC status code of the answer, such
	// as "OK" or "PERMISSION_DENIED".
	Code string `json:"code"`

	// Reason says in a machine-readable form why the call failed, as in
	// "NO_RULE". It is empty when Code is "OK".
	Reason string `json:"reason"`

	// Keys are the keys that it was about, each as "<class>/<version>": those that
	// were made, wrapped anew or retired, or to which records were moved, or,
	// where Code is not "OK", were to be.
	Keys []string `json:"keys"`

	// ValidateOnly says that the caller wanted to know whether it would work, and
	// nothing was done.
	ValidateOnly bool `json:"validate_only"`

	// Records is how many records were moved, shredded or removed, and of a stream how
	// many messages were answered or tokens exported, and of an approval for how many
	// items it is asked for or granted.
	Records uint64 `json:"records"`

	// StatedReason is why the caller says that it did it, in its own words.
	StatedReason string `json:"stated_reason"`

	// Recipient is the SHA-256 hash of the key to which values were exported, in
	// hexadecimal.
	Recipient string `json:"recipient"`

	// PreviousPolicy is the hash of the policy that was at work until Policy took its
	// place, and RefusedPolicy that of a file that was not put to work.
	PreviousPolicy string `json:"previous_policy"`
	RefusedPolicy  string `json:"refused_policy"`

	// Files is the SHA-256 hash, in hexadecimal, of the files that are at work after an
	// ActionReloadTLS or ActionReloadCRL, one behind the other: certificate and client
	// authorities, or the revocation lists. PreviousFiles were at work until then, and
	// RefusedFiles were not put to work.
	Files         string `json:"files"`
	PreviousFiles string `json:"previous_files"`
	RefusedFiles  string `json:"refused_files"`

	// AboutCaller is the caller whom a call about another was about.
	AboutCaller string `json:"about_caller"`

	// AboutCertificate is the SHA-256 hash of a client certificate that a call was about,
	// in hexadecimal; and Since and Until are the time that it was about, from the one on
	// and before the other, in the form of Time.
	AboutCertificate string `json:"about_certificate"`
	Since            string `json:"since"`
	Until            string `json:"until"`

	// Approval is the id of the approval that a call about one was about, or by which
	// something was revealed. Of a call about one, ApprovalRule is the rule that demands
	// it, ApprovalAction what is to be done, and ApprovalEnds when it ends, in RFC
	// 3339, in calls that file or grant one.
	Approval       string `json:"approval"`
	ApprovalRule   string `json:"approval_rule"`
	ApprovalAction string `json:"approval_action"`
	ApprovalEnds   string `json:"approval_ends"`

	// Shadow is what the shadow policy would have decided otherwise, as in "deny NO_RULE"
	// or "allow RULE FULL". It is empty if there is none, or it decides the same.
	Shadow string `json:"shadow"`

	// PrunedFirst and PrunedLast are the first and the last of the events that an
	// ActionPrune removes from the segments, or would, and PrunedHash the hash of the
	// last, in hexadecimal. They are 0 and empty if it removes none.
	PrunedFirst uint64 `json:"pruned_first"`
	PrunedLast  uint64 `json:"pruned_last"`
	PrunedHash  string `json:"pruned_hash"`

	// Alerts are what somebody should hear of at once: each of the Alert constants
	// that is true of the call, once.
	Alerts []string `json:"alerts"`

	// Items are what the call was about. A field that an item has in common with
	// the event stands in the event, if it is the same for all items, and else in
	// each item that has it.
	Items []Item `json:"items"`
}

// SystemEvent returns the event of something that the service does by itself,
// under the policy with the hash.
func SystemEvent(action, namespace, policyHash string) Event {
	return Event{Time: time.Now(), Action: action, Namespace: namespace, Policy: policyHash, Code: "OK"}
}

// Item is one token, or one value without a token, that a call was about.
type Item struct {
	// Token is a digest of the token under a key of the keyring, as
	// tokenizer.Tokenizer.Digest makes it. It is empty if there is none.
	Token string `json:"token"`

	// Subject is a digest of whom it is about, as
	// tokenizer.Tokenizer.DigestSubject makes it. It is empty if nobody was named, be it
	// by the call or when the token was made.
	Subject string `json:"subject"`

	// Profile, Purpose, Reveal, Decision, Rule, Code, Reason, StatedReason and Shadow are
	// what those fields of the event are, for this item. An item without Code has
	// that of the event.
	Profile      string   `json:"profile"`
	Purpose      string   `json:"purpose"`
	Reveal       string   `json:"reveal"`
	Decision     Decision `json:"decision"`
	Rule         string   `json:"rule"`
	Code         string   `json:"code"`
	Reason       string   `json:"reason"`
	StatedReason string   `json:"stated_reason"`
	Shadow       string   `json:"shadow"`

	// Alert is the alert of the event that is about this item. It is empty if none is,
	// and if the event is about one thing.
	Alert string `json:"alert"`

	// Approval is the id of the approval by which it was revealed.
	Approval string `json:"approval"`

	// Reused says that the token had been made before.
	Reused bool `json:"reused"`
}

// fields returns the item's fields of text in their order.
func (i *Item) fields() [13]field {
	return [...]field{
		{"token", i.Token}, {"subject", i.Subject}, {"profile", i.Profile}, {"purpose", i.Purpose}, {"reveal", i.Reveal},
		{"decision", string(i.Decision)}, {"rule", i.Rule}, {"code", i.Code}, {"reason", i.Reason}, {"stated_reason", i.StatedReason},
		{"shadow", i.Shadow}, {"alert", i.Alert}, {"approval", i.Approval},
	}
}

// append appends the item as a JSON object.
func (i *Item) append(b []byte) []byte {
	b = append(b, '{')
	begin := len(b)
	for _, f := range i.fields() {
		if f.value != "" {
			if len(b) > begin {
				b = append(b, ',')
			}
			b = append(append(append(b, '"'), f.name...), `":`...)
			b = appendString(b, f.value)
		}
	}
	if i.Reused {
		if len(b) > begin {
			b = append(b, ',')
		}
		b = append(b, `"reused":true`...)
	}
	return append(b, '}')
}

// field is a field of text.
type field struct{ name, value string }
