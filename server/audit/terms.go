package audit

// term is the hash of a field and what stands in it, by which the index knows it.
type term uint64

// termField says which field a term is of. The numbers are part of the index, so they
// are never given to another.
type termField byte

const (
	noField          termField = 0
	fieldCaller      termField = 1
	fieldCertificate termField = 2
	fieldRequestID   termField = 3
	fieldAction      termField = 4
	fieldProfile     termField = 5
	fieldPurpose     termField = 6
	fieldDecision    termField = 7
	fieldRule        termField = 8
	fieldCode        termField = 9
	fieldReason      termField = 10
	fieldToken       termField = 11
	fieldSubject     termField = 12
	fieldApproval    termField = 13
	fieldAlerts      termField = 14
	fieldCount                 = 15
)

// termFieldOf returns the field with a name, noField for one that nobody asks for.
func termFieldOf(name []byte) termField {
	switch string(name) {
	case "caller":
		return fieldCaller
	case "certificate":
		return fieldCertificate
	case "request_id":
		return fieldRequestID
	case "action":
		return fieldAction
	case "profile":
		return fieldProfile
	case "purpose":
		return fieldPurpose
	case "decision":
		return fieldDecision
	case "rule":
		return fieldRule
	case "code":
		return fieldCode
	case "reason":
		return fieldReason
	case "token":
		return fieldToken
	case "subject":
		return fieldSubject
	case "approval":
		return fieldApproval
	case "alerts":
		return fieldAlerts
	}
	return noField
}

// newTerm returns the term of a field with a value as it is written, that is escaped.
// It is FNV-1a, whose bits mix64 then mixes. Who finds two values with the same makes
// queries slower, and changes no answer.
func newTerm(field termField, value []byte) term {
	const prime = 1099511628211
	h := uint64(14695981039346656037)
	h = (h ^ uint64(field)) * prime
	for _, c := range value {
		h = (h ^ uint64(c)) * prime
	}
	return term(mix64(h))
}

// mix64 is the finalizer of MurmurHash3: each bit of the result depends on all of h.
func mix64(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// eachText goes through the texts in an event, and in its items, each with the name of
// the field that it stands in and as it is written. body must be as Event.Body writes it.
func eachText(body []byte, do func(name, text []byte)) {
	var name []byte
	for i := 0; i < len(body); i++ {
		if body[i] != '"' {
			continue
		}
		begin := i + 1
		for i = begin; i < len(body) && body[i] != '"'; i++ {
			if body[i] == '\\' {
				i++
			}
		}
		if i >= len(body) {
			return
		}
		if i+1 < len(body) && body[i+1] == ':' {
			name = body[begin:i]
		} else {
			do(name, body[begin:i])
		}
	}
}
