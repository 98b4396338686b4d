package server

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/crl"
	"github.com/coatcheck/coatcheck/server/exposure"
	"github.com/coatcheck/coatcheck/server/limit"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// errorDomain is the domain of every ErrorInfo.
const errorDomain = "coatcheck"

// Errors that are the server's own.
var (
	errAuditUnavailable = errors.New("server: the audit event can't be made durable")
	errRequest          = errors.New("server: the message can't be decoded")
	errUnknownMethod    = errors.New("server: unknown method")
	errPurposeRequired  = errors.New("server: no purpose")
	errInvalidPurpose   = errors.New("server: malformed purpose")
	errInvalidReveal    = errors.New("server: unknown reveal level")
	errOverloaded       = errors.New("server: too many calls in flight")
	errDraining         = errors.New("server: shutting down")
	errPanic            = errors.New("server: panic")
	errKeyClass         = errors.New("server: unknown key class")
	errKeyNotFound      = errors.New("server: no such key")
	errKeyActive        = errors.New("server: key is active")
	errKeyHasRecords    = errors.New("server: key has records")
	errKeyHasIndex      = errors.New("server: key has entries of the index")
	errKeyHasTokens     = errors.New("server: key has tokens")
	errKeyNamedForEver  = errors.New("server: audit key")
	errKeyUncounted     = errors.New("server: fpe key")
	errRate             = errors.New("server: rate out of range")
	errInvalidCaller    = errors.New("server: malformed caller")
	errUnknownPurpose   = errors.New("server: unknown purpose")
	errUnknownAction    = errors.New("server: unknown action")
	errInvalidAddress   = errors.New("server: malformed address")
	errInvalidTime      = errors.New("server: malformed time")
	errInvalidFilter    = errors.New("server: malformed filter of events")
	errPeriod           = errors.New("server: malformed period")
	errCertificate      = errors.New("server: malformed hash of a certificate")
	errInvalidConsent   = errors.New("server: unknown consent")

	errBatchSize     = errors.New("server: too many items, or none")
	errTooLarge      = errors.New("server: the response would be too large")
	errMessageSize   = errors.New("server: message too large")
	errInvalidReason = errors.New("server: malformed reason")
	errCorrelation   = errors.New("server: correlation id too long")
	errPageSize      = errors.New("server: page size out of range")
	errUpdateMask    = errors.New("server: update mask names what can't be changed, or nothing")
	errBefore        = errors.New("server: no time before which")
	errRecipient     = errors.New("server: not an age recipient")

	errApprovalRequired   = errors.New("server: nobody has approved")
	errApprovalUsed       = errors.New("server: what was approved is used up")
	errApprovalNotNeeded  = errors.New("server: no approval is needed")
	errApprovalNotFound   = errors.New("server: no such approval")
	errOwnApproval        = errors.New("server: a caller decides on its own request")
	errNotApprover        = errors.New("server: not an approver")
	errApprovalNotPending = errors.New("server: the request is not pending")
	errApprovalNotInForce = errors.New("server: the approval is not in force")
	errTooManyApprovals   = errors.New("server: too many requests are pending")
	errApprovalItems      = errors.New("server: more items than the rule allows")
	errApprovalState      = errors.New("server: unknown state of approvals")
	errUnknownRule        = errors.New("server: no such rule")
	errRuleRequired       = errors.New("server: several rules may decide")

	errRevealAmbiguous   = errors.New("server: several parts are granted")
	errSuspended         = errors.New("server: the caller is suspended")
	errSegmentDamaged    = errors.New("server: a segment of the audit log is damaged")
	errOwnSuspension     = errors.New("server: a caller suspends itself")
	errNotSuspended      = errors.New("server: the caller is not suspended")
	errDeniedByRule      = errors.New("server: a rule denies it")
	errConditionNotMet   = errors.New("server: a condition is not met")
	errConditionFailed   = errors.New("server: a condition can't be evaluated")
	errReasonRequired    = errors.New("server: a reason has to be stated")
	errConsentWithdrawn  = errors.New("server: consent was withdrawn")
	errTooManyRules      = errors.New("server: rules of patterns come to too much")
	errConsentMissing    = errors.New("server: consent was not given")
	errNoRule            = errors.New("server: no rule")
	errPurposeNotAllowed = errors.New("server: purpose not allowed")
	errRevealNotAllowed  = errors.New("server: reveal not allowed")
)

// refusal is how an error is told to the client: a code, a reason for machines
// and a fixed text for people. Nothing of the error itself gets out.
type refusal struct {
	err     error
	code    codes.Code
	reason  string
	field   string // the field of the request that is wrong, if one is
	message string
	retry   time.Duration // when to try again, if that helps
}

// refusals has a row for every error that a call can end with. A test finds
// the exported sentinels of the packages below and demands a row for each, or
// a place in its list of those that can't get here.
var refusals = []refusal{
	{err: errRequest, code: codes.InvalidArgument, reason: "INVALID_REQUEST", message: "the message can't be decoded"},
	{err: tokenizer.ErrUnknownProfile, code: codes.InvalidArgument, reason: "UNKNOWN_PROFILE", field: "profile", message: "no such profile"},
	{err: tokenizer.ErrInvalidValue, code: codes.InvalidArgument, reason: "INVALID_VALUE", field: "value", message: "the value is not of the profile's type"},
	{err: tokenizer.ErrInvalidNote, code: codes.InvalidArgument, reason: "INVALID_NOTE", field: "note", message: "the note is malformed"},
	{err: tokenizer.ErrInvalidMetadata, code: codes.InvalidArgument, reason: "INVALID_METADATA", field: "metadata", message: "the metadata is malformed"},
	{err: tokenizer.ErrInvalidToken, code: codes.InvalidArgument, reason: "INVALID_TOKEN", field: "token", message: "not a token: mistyped, cut short or altered"},
	{err: tokenizer.ErrProfileRequired, code: codes.InvalidArgument, reason: "PROFILE_REQUIRED", field: "profile", message: "the token doesn't name its profile, so it has to be given"},
	{err: tokenizer.ErrInvalidSubject, code: codes.InvalidArgument, reason: "INVALID_SUBJECT", field: "subject", message: "the subject is malformed"},
	{err: tokenizer.ErrInvalidTTL, code: codes.InvalidArgument, reason: "INVALID_TTL", field: "ttl", message: "the ttl is out of range"},
	{err: tokenizer.ErrInvalidMaxUses, code: codes.InvalidArgument, reason: "INVALID_MAX_USES", field: "max_uses", message: "the number of uses is out of range"},
	{err: tokenizer.ErrInvalidIdempotencyKey, code: codes.InvalidArgument, reason: "INVALID_IDEMPOTENCY_KEY", field: "idempotency_key", message: "the idempotency key is malformed"},
	{err: tokenizer.ErrInvalidRedemption, code: codes.InvalidArgument, reason: "INVALID_REDEMPTION_ID", field: "redemption_id", message: "the redemption id is malformed"},
	{err: tokenizer.ErrInvalidPage, code: codes.InvalidArgument, reason: "INVALID_PAGE_TOKEN", field: "page_token", message: "not a page token of this query"},
	{err: tokenizer.ErrNoPart, code: codes.InvalidArgument, reason: "REVEAL_NOT_APPLICABLE", field: "reveal", message: "the value has no such part"},
	{err: errBatchSize, code: codes.InvalidArgument, reason: "BATCH_TOO_LARGE", field: "items", message: "1 to 10000 items"},
	{err: audit.ErrTooLarge, code: codes.InvalidArgument, reason: "BATCH_TOO_LARGE", field: "items", message: "what there is to record of the items is too large; send fewer at once"},
	{err: errInvalidReason, code: codes.InvalidArgument, reason: "INVALID_REASON", field: "reason", message: "is longer than 256 bytes, or holds control characters"},
	{err: errCorrelation, code: codes.InvalidArgument, reason: "INVALID_CORRELATION_ID", field: "correlation_id", message: "is longer than 128 bytes"},
	{err: errPageSize, code: codes.InvalidArgument, reason: "INVALID_PAGE_SIZE", field: "page_size", message: "must not be negative"},
	{err: errUpdateMask, code: codes.InvalidArgument, reason: "INVALID_UPDATE_MASK", field: "update_mask", message: "names metadata, ttl or both"},
	{err: errRecipient, code: codes.InvalidArgument, reason: "INVALID_RECIPIENT", field: "recipient", message: "not an age recipient: age1 and 58 more characters"},
	{err: errBefore, code: codes.InvalidArgument, reason: "INVALID_TIME", field: "before", message: "a time is required"},
	{err: errPurposeRequired, code: codes.InvalidArgument, reason: "PURPOSE_REQUIRED", field: "purpose", message: "a purpose is required"},
	{err: errInvalidPurpose, code: codes.InvalidArgument, reason: "INVALID_PURPOSE", field: "purpose", message: "a purpose is of the form [a-z][a-z0-9-]{0,30}"},
	{err: errInvalidReveal, code: codes.InvalidArgument, reason: "INVALID_REVEAL", field: "reveal", message: "unknown reveal level"},

	{err: errKeyClass, code: codes.InvalidArgument, reason: "INVALID_KEY_CLASS", field: "key_class", message: "unknown key class"},
	{err: audit.ErrNoProof, code: codes.InvalidArgument, reason: "INVALID_PROOF", field: "sequence", message: "nothing to prove: sequence and old_events are 0, or the log has no such event or tree yet"},
	{err: audit.ErrNoCheckpoint, code: codes.FailedPrecondition, reason: "NO_CHECKPOINT", message: "no checkpoint of the audit log has been signed yet"},
	{err: errRate, code: codes.InvalidArgument, reason: "INVALID_RATE", field: "records_per_second", message: "at most 1000000"},

	{err: errInvalidCaller, code: codes.InvalidArgument, reason: "INVALID_CALLER", field: "caller", message: "a caller is spiffe://TRUST-DOMAIN/PATH, dns:NAME or cn:NAME"},
	{err: errUnknownPurpose, code: codes.InvalidArgument, reason: "UNKNOWN_PURPOSE", field: "purpose", message: "no profile allows such a purpose"},
	{err: errUnknownAction, code: codes.InvalidArgument, reason: "UNKNOWN_ACTION", field: "action", message: "no such action"},
	{err: errApprovalItems, code: codes.InvalidArgument, reason: "INVALID_ITEMS", field: "items", message: "more than are asked for, or than the rule allows"},
	{err: errApprovalState, code: codes.InvalidArgument, reason: "INVALID_STATE", field: "state", message: "unknown state"},
	{err: errUnknownRule, code: codes.InvalidArgument, reason: "UNKNOWN_RULE", field: "rule", message: "no rule of the name allows that with an approval"},
	{err: errRuleRequired, code: codes.InvalidArgument, reason: "RULE_REQUIRED", field: "rule", message: "which rule will decide isn't known yet; name it"},
	{err: errInvalidAddress, code: codes.InvalidArgument, reason: "INVALID_ADDRESS", field: "address", message: "not an IP address without a port"},
	{err: errInvalidTime, code: codes.InvalidArgument, reason: "INVALID_TIME", field: "time", message: "not a time of the years 1 to 9999"},
	{err: errInvalidFilter, code: codes.InvalidArgument, reason: "INVALID_FILTER", field: "filter", message: "the filter is malformed"},
	{err: errPeriod, code: codes.InvalidArgument, reason: "INVALID_PERIOD", field: "since", message: "since is required and before until; times are of the years 1970 to 2200"},
	{err: errCertificate, code: codes.InvalidArgument, reason: "INVALID_CERTIFICATE", field: "certificate", message: "is not 64 hexadecimal digits"},
	{err: errInvalidConsent, code: codes.InvalidArgument, reason: "INVALID_CONSENT", field: "token.consent", message: "unknown consent"},

	{err: errUnknownMethod, code: codes.Unimplemented, reason: "UNKNOWN_METHOD", message: "the server has no such method"},

	{err: tokenizer.ErrTokenNotFound, code: codes.NotFound, reason: "TOKEN_NOT_FOUND", message: "no such token"},

	{err: tokenizer.ErrIdempotency, code: codes.AlreadyExists, reason: "IDEMPOTENCY_CONFLICT", message: "the idempotency key was used with other content"},
	{err: tokenizer.ErrTokenTaken, code: codes.AlreadyExists, reason: "TOKEN_TAKEN", message: "the token stands for another value"},

	{err: tokenizer.ErrExpired, code: codes.FailedPrecondition, reason: "TOKEN_EXPIRED", message: "the token has expired"},
	{err: tokenizer.ErrRevoked, code: codes.FailedPrecondition, reason: "TOKEN_REVOKED", message: "the token has been revoked"},
	{err: tokenizer.ErrSpent, code: codes.FailedPrecondition, reason: "TOKEN_SPENT", message: "the token has been used as often as it may be"},
	{err: tokenizer.ErrSubjectErased, code: codes.FailedPrecondition, reason: "SUBJECT_ERASED", message: "the person whom it was about has been erased"},
	{err: tokenizer.ErrHasToken, code: codes.FailedPrecondition, reason: "VALUE_HAS_TOKEN", message: "the value has another token"},
	{err: tokenizer.ErrNotExportable, code: codes.FailedPrecondition, reason: "NOT_EXPORTABLE", message: "values of the profile are not kept, or must not be kept elsewhere"},
	{err: tokenizer.ErrNotImportable, code: codes.FailedPrecondition, reason: "NOT_IMPORTABLE", message: "values of the profile are not kept, or must not have been kept elsewhere"},
	{err: tokenizer.ErrNoHoneytokens, code: codes.FailedPrecondition, reason: "NO_HONEYTOKENS", message: "of tokens of the profile nothing is stored, so none can be told from the others"},
	{err: tokenizer.ErrNoLookup, code: codes.FailedPrecondition, reason: "LOOKUP_NOT_DECLARED", message: "the profile doesn't declare lookup"},
	{err: errApprovalNotNeeded, code: codes.FailedPrecondition, reason: "APPROVAL_NOT_NEEDED", message: "the policy allows this without an approval; if it is about a form or a rule, name it"},
	{err: errApprovalNotFound, code: codes.NotFound, reason: "APPROVAL_NOT_FOUND", message: "no such approval, or no more"},
	{err: errApprovalNotPending, code: codes.FailedPrecondition, reason: "APPROVAL_NOT_PENDING", message: "the request has been decided on, was withdrawn, or has expired"},
	{err: errApprovalNotInForce, code: codes.FailedPrecondition, reason: "APPROVAL_NOT_IN_FORCE", message: "it is not granted, or over"},

	{err: audit.ErrRetention, code: codes.FailedPrecondition, reason: "WITHIN_RETENTION", message: "events of that time have to be kept: audit.retention of the configuration says how long"},

	{err: errKeyNotFound, code: codes.NotFound, reason: "KEY_NOT_FOUND", message: "no such key version, or no more"},

	{err: errKeyActive, code: codes.FailedPrecondition, reason: "KEY_IN_USE", message: "the key is the active one of its class; rotate first"},
	{err: errKeyHasRecords, code: codes.FailedPrecondition, reason: "KEY_IN_USE", message: "records are still under the key; keys rewrap moves them"},
	{err: errKeyHasIndex, code: codes.FailedPrecondition, reason: "KEY_IN_USE", message: "entries of the index are still under the key; they move by themselves, those of idempotency keys go when their time is over"},
	{err: errKeyHasTokens, code: codes.FailedPrecondition, reason: "KEY_IN_USE", message: "clients have tokens of this key; it is needed for as long as their records are there"},
	{err: errKeyNamedForEver, code: codes.FailedPrecondition, reason: "KEY_IN_USE", message: "audit keys are never retired, since the log names them"},
	{err: errKeyUncounted, code: codes.FailedPrecondition, reason: "KEY_IN_USE", message: "fpe keys are never retired, since nobody can count their tokens"},
	{err: keystore.ErrKeyInUse, code: codes.FailedPrecondition, reason: "KEY_IN_USE", message: "the key is active, or something is still under it"},
	{err: keystore.ErrKeyExists, code: codes.Aborted, reason: "KEY_CHANGED", message: "the keys were changed by somebody else at the same time"},
	{err: keystore.ErrKeyChanged, code: codes.Aborted, reason: "KEY_CHANGED", message: "the keys were changed by somebody else at the same time"},
	{err: tokenizer.ErrConflict, code: codes.Aborted, reason: "CONFLICT", message: "it was changed by somebody else at the same time, again and again"},
	{err: keystore.ErrKeyVersion, code: codes.Aborted, reason: "KEY_CHANGED", message: "the keys were changed by somebody else at the same time"},

	{err: errNoIdentity, code: codes.Unauthenticated, reason: "NO_IDENTITY", message: "the client certificate names no caller"},
	{err: errSuspended, code: codes.PermissionDenied, reason: "CALLER_SUSPENDED", message: "the caller is suspended"},
	{err: errOwnSuspension, code: codes.FailedPrecondition, reason: "OWN_SUSPENSION", message: "nobody suspends themselves"},
	{err: errNotSuspended, code: codes.NotFound, reason: "NOT_SUSPENDED", message: "the caller is not suspended"},
	{err: crl.ErrRevoked, code: codes.Unauthenticated, reason: "CERTIFICATE_REVOKED", message: "the client certificate has been revoked"},
	{err: crl.ErrOutdated, code: codes.Unauthenticated, reason: "REVOCATION_UNKNOWN", message: "the revocation list of the client certificate's issuer is out of date"},
	{err: errUntrusted, code: codes.Unauthenticated, reason: "CERTIFICATE_UNTRUSTED", message: "the client certificate, or one above it, has expired, or is of an authority that is trusted no more"},
	{err: errNoRule, code: codes.PermissionDenied, reason: "NO_RULE", message: "no rule of the policy allows this"},
	{err: errPurposeNotAllowed, code: codes.PermissionDenied, reason: "PURPOSE_NOT_ALLOWED", message: "the policy doesn't allow this for this purpose"},
	{err: errDeniedByRule, code: codes.PermissionDenied, reason: "DENIED_BY_RULE", message: "a rule of the policy denies this"},
	{err: errConditionNotMet, code: codes.PermissionDenied, reason: "CONDITION_NOT_MET", message: "the policy allows this under other conditions only"},
	{err: errConditionFailed, code: codes.PermissionDenied, reason: "CONDITION_FAILED", message: "whether the policy allows this can't be found out, so it doesn't"},
	{err: errReasonRequired, code: codes.PermissionDenied, reason: "REASON_REQUIRED", message: "the policy demands a reason, of a form that it lays down"},
	{err: errConsentWithdrawn, code: codes.PermissionDenied, reason: "CONSENT_WITHDRAWN", message: "the person whom it is about doesn't consent to this purpose any more"},
	{err: errTooManyRules, code: codes.PermissionDenied, reason: "TOO_MANY_RULES", message: "the rules that match the caller by patterns come to more than a policy may"},
	{err: errConsentMissing, code: codes.PermissionDenied, reason: "CONSENT_MISSING", message: "the person whom it is about has not consented to this purpose"},
	{err: errApprovalRequired, code: codes.PermissionDenied, reason: "APPROVAL_REQUIRED", message: "the policy allows this only once somebody else has approved"},
	{err: errApprovalUsed, code: codes.PermissionDenied, reason: "APPROVAL_REQUIRED", message: "what was approved is used up"},
	{err: errOwnApproval, code: codes.PermissionDenied, reason: "OWN_APPROVAL", message: "nobody decides on their own request"},
	{err: errNotApprover, code: codes.PermissionDenied, reason: "NOT_AN_APPROVER", message: "the rule, if there still is one, doesn't name the caller among its approvers"},
	{err: errRevealAmbiguous, code: codes.PermissionDenied, reason: "REVEAL_AMBIGUOUS", message: "the policy grants several parts and nothing more; name one"},
	{err: errRevealNotAllowed, code: codes.PermissionDenied, reason: "REVEAL_NOT_ALLOWED", message: "the policy doesn't allow this much to be revealed"},

	{err: errTooManyApprovals, code: codes.ResourceExhausted, reason: "TOO_MANY_APPROVALS", message: "20 requests of the caller are pending; have them decided on, or withdraw some"},
	{err: keystore.ErrTooManyKeys, code: codes.ResourceExhausted, reason: "TOO_MANY_KEYS", message: "the class has as many versions as it can; retire some first"},
	{err: tokenizer.ErrFull, code: codes.ResourceExhausted, reason: "FORMAT_FULL", message: "the profile's format has no token left for this value"},
	{err: errMessageSize, code: codes.ResourceExhausted, reason: "MESSAGE_TOO_LARGE", message: "a message is larger than one may be"},
	{err: tokenizer.ErrNoRoom, code: codes.ResourceExhausted, reason: "RESPONSE_TOO_LARGE", message: "the response would be larger than a message may be; ask for fewer"},
	{err: errTooLarge, code: codes.ResourceExhausted, reason: "RESPONSE_TOO_LARGE", message: "the response would be larger than a message may be; ask for fewer"},
	{err: keystore.ErrKeySpent, code: codes.ResourceExhausted, reason: "KEY_SPENT", message: "the data key has been used as often as a key may; it has to be rotated"},
	{err: limit.ErrRate, code: codes.ResourceExhausted, reason: "RATE_LIMITED", message: "a rule of the policy allows so many items at a time, and there were more"},
	{err: tokenizer.ErrBudgetSpent, code: codes.ResourceExhausted, reason: "BUDGET_SPENT", message: "a rule of the policy lets so much be revealed in an hour or a day, and it has been"},
	{err: errOverloaded, code: codes.ResourceExhausted, reason: "OVERLOADED", message: "too many calls in flight", retry: 100 * time.Millisecond},

	{err: errDraining, code: codes.Unavailable, reason: "SHUTTING_DOWN", message: "the server is shutting down"},
	{err: errAuditUnavailable, code: codes.Unavailable, reason: "AUDIT_UNAVAILABLE", message: "the call can't be recorded now"},
	{err: audit.ErrSegments, code: codes.Unavailable, reason: "SEGMENTS_UNAVAILABLE", message: "the segments of the audit log can't be read or changed now"},
	{err: keystore.ErrSealed, code: codes.Unavailable, reason: "KEYSTORE_UNAVAILABLE", message: "the keys are sealed until they can be reached again"},
	{err: keystore.ErrDenied, code: codes.Unavailable, reason: "KEYSTORE_UNAVAILABLE", message: "the keys can't be reached now"},
	{err: keystore.ErrUnavailable, code: codes.Unavailable, reason: "KEYSTORE_UNAVAILABLE", message: "the keys can't be reached now"},
	{err: exposure.ErrScratch, code: codes.Unavailable, reason: "SCRATCH_UNAVAILABLE", message: "temporary files can't be written now"},
	{err: tokenizer.ErrUnavailable, code: codes.Unavailable, reason: "STORE_UNAVAILABLE", message: "the store can't be reached now"},

	{err: errSegmentDamaged, code: codes.DataLoss, reason: "AUDIT_DAMAGED", message: "a segment of the audit log is not what was written"},
	{err: tokenizer.ErrDamaged, code: codes.DataLoss, reason: "RECORD_DAMAGED", message: "what is stored is not what was written"},
	{err: keystore.ErrDamaged, code: codes.DataLoss, reason: "KEYS_DAMAGED", message: "the stored keys are not what was written"},
	{err: keystore.ErrUnwrap, code: codes.DataLoss, reason: "KEYS_DAMAGED", message: "the stored keys don't open under the root key"},

	{err: context.DeadlineExceeded, code: codes.DeadlineExceeded, reason: "DEADLINE_EXCEEDED", message: "the call took longer than it may"},
	{err: context.Canceled, code: codes.Canceled, reason: "CANCELED", message: "the client gave up"},

	{err: tokenizer.ErrBadUnit, code: codes.Internal, reason: "INTERNAL", message: "internal error"},
	{err: tokenizer.ErrIDTaken, code: codes.Internal, reason: "INTERNAL", message: "internal error"},
	{err: errPanic, code: codes.Internal, reason: "INTERNAL", message: "internal error"},
}

// unitErrors are how a store refuses a unit for what is in it.
var unitErrors = []error{
	keystore.ErrKeyVersion, keystore.ErrKeyExists, keystore.ErrKeyChanged, keystore.ErrKeyInUse, tokenizer.ErrDamaged,
	tokenizer.ErrConflict, tokenizer.ErrBudgetSpent, tokenizer.ErrBadUnit, tokenizer.ErrIDTaken, audit.ErrTooLarge,
}

// denials maps what policy says to errors.
var denials = map[policy.Reason]error{
	policy.NoRule:            errNoRule,
	policy.PurposeNotAllowed: errPurposeNotAllowed,
	policy.RevealNotAllowed:  errRevealNotAllowed,
	policy.RevealAmbiguous:   errRevealAmbiguous,

	policy.DeniedByRule:       errDeniedByRule,
	policy.ConditionNotMet:    errConditionNotMet,
	policy.ConditionFailed:    errConditionFailed,
	policy.ReasonRequired:     errReasonRequired,
	policy.ConsentIsWithdrawn: errConsentWithdrawn,
	policy.ConsentMissing:     errConsentMissing,
	policy.TooManyRules:       errTooManyRules,
}

// denial returns the error of a decision that is not to allow.
func denial(d policy.Decision) error {
	if err, ok := denials[d.Reason]; ok {
		return err
	}
	return errNoRule
}

// refuse returns the row for an error. One without a row is a defect, and told
// as INTERNAL.
func refuse(err error) refusal {
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			return r
		}
	}
	return refusals[len(refusals)-1]
}

// ours says whether the server is to blame and not the caller, so that the
// cause belongs in the log.
func (r refusal) ours() bool {
	return r.code == codes.Internal || r.code == codes.DataLoss || r.code == codes.Unavailable
}

// status returns the gRPC status of a refusal, with what err adds about the
// client's own input.
func (r refusal) status(err error) *status.Status {
	st := status.New(r.code, r.message)
	info, retry := &errdetails.ErrorInfo{Reason: r.reason, Domain: errorDomain}, r.retry
	var beyond *limit.Error
	if errors.As(err, &beyond) {
		info.Metadata, retry = map[string]string{"rule": beyond.Rule, "limit": beyond.Limit}, beyond.Retry
	}
	details := []protoadapt.MessageV1{info}
	if field, description := r.violation(err); r.code == codes.InvalidArgument {
		st = status.New(r.code, description)
		if field != "" {
			st = status.New(r.code, field+": "+description)
		}
		details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: field, Description: description, Reason: r.reason},
		}})
	}
	if retry > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(retry)})
	}
	detailed, err := st.WithDetails(details...)
	if err != nil {
		return st
	}
	return detailed
}

// violation returns the field that is wrong and what it should be.
func (r refusal) violation(err error) (field, description string) {
	field, description = r.field, r.message
	var input *tokenizer.InputError
	if errors.As(err, &input) {
		description = input.Reason
	}
	var decode *decodeError
	if errors.As(err, &decode) && decode.field != "" {
		field, description = decode.field, "is not valid UTF-8"
	}
	return field, description
}
