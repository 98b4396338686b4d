package server

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// maxFilterText bounds a text of a filter, in bytes.
const maxFilterText = 1 << 10

// invalidFilter says what is wrong with a filter.
func invalidFilter(reason string) error {
	return &tokenizer.InputError{Kind: errInvalidFilter, Reason: reason}
}

// question is what is asked of the audit log.
type question struct {
	query audit.Query

	// item has the digests of what is asked for, under the newest key.
	item audit.Item

	// sum tells one question from another.
	sum uint32
}

// ask reads a filter, and turns what it names in clear into digests.
func (s *auditService) ask(ctx context.Context, f *coatcheckv1.AuditFilter, newest bool) (a question, err error) {
	q := &a.query
	for _, t := range []struct {
		name string
		time *timestamppb.Timestamp
	}{{"since", f.GetSince()}, {"until", f.GetUntil()}} {
		if t.time != nil && t.time.CheckValid() != nil {
			return a, invalidFilter(t.name + " is not a time of the years 1 to 9999")
		}
	}
	if f.GetSince() != nil {
		q.Since = f.GetSince().AsTime()
	}
	if f.GetUntil() != nil {
		q.Until = f.GetUntil().AsTime()
	}
	for _, text := range []string{f.GetCaller(), f.GetCertificate(), f.GetRequestId(), f.GetAction(), f.GetProfile(), f.GetPurpose(), f.GetDecision(),
		f.GetRule(), f.GetCode(), f.GetReason(), f.GetApproval(), f.GetTokenDigest(), f.GetSubjectDigest()} {
		if len(text) > maxFilterText {
			return a, invalidFilter("a text is longer than 1024 bytes")
		}
	}
	q.Caller, q.Action, q.Profile, q.Purpose, q.Rule = f.GetCaller(), f.GetAction(), f.GetProfile(), f.GetPurpose(), f.GetRule()
	q.Code, q.Reason = f.GetCode(), f.GetReason()
	q.Certificate, q.RequestID, q.Approval = strings.ToLower(f.GetCertificate()), strings.ToLower(f.GetRequestId()), strings.ToLower(f.GetApproval())
	if q.Certificate != "" && !isHex(q.Certificate, 32) {
		return a, invalidFilter("certificate is not 64 hexadecimal digits")
	}
	if q.Decision = f.GetDecision(); q.Decision != "" && q.Decision != string(audit.Allow) && q.Decision != string(audit.Deny) {
		return a, invalidFilter("decision is allow or deny")
	}
	alerts := []string{"", audit.AlertHoneytoken, audit.AlertBurst, audit.AlertNotify, audit.AnyAlert}
	if q.Alert = f.GetAlert(); !slices.Contains(alerts, q.Alert) {
		return a, invalidFilter("alert is HONEYTOKEN, BURST, NOTIFY or ANY")
	}
	if err := s.name(ctx, f, &a); err != nil {
		return a, err
	}
	a.sum, err = sumOf(f, &a, newest)
	return a, err
}

// name finds out by which digests the log has a token and a subject.
func (s *auditService) name(ctx context.Context, f *coatcheckv1.AuditFilter, a *question) (err error) {
	q := &a.query
	switch {
	case f.GetToken() != "" && f.GetTokenDigest() != "":
		return invalidFilter("token and token_digest exclude each other")
	case f.GetSubject() != "" && f.GetSubjectDigest() != "":
		return invalidFilter("subject and subject_digest exclude each other")
	}
	if token := tokenizer.Token(f.GetToken()); token != "" {
		// Tokens of profiles that were declared once are asked for too.
		_, err := s.tokenizer.Inspect(token, f.GetProfile())
		if err != nil && !errors.Is(err, tokenizer.ErrTokenNotFound) && !errors.Is(err, tokenizer.ErrUnknownProfile) {
			return err
		}
		if q.Tokens, err = s.tokenizer.Digests(ctx, DefaultNamespace, f.GetProfile(), token); err != nil {
			return err
		}
		a.item.Token = q.Tokens[0]
	}
	if f.GetSubject() != "" {
		if q.Subjects, err = s.tokenizer.SubjectDigests(ctx, DefaultNamespace, f.GetSubject()); err != nil {
			return err
		}
		a.item.Subject = q.Subjects[0]
	}
	for _, d := range []struct {
		digest, name string
		wanted       *[]string
		told         *string
	}{{f.GetTokenDigest(), "token_digest", &q.Tokens, &a.item.Token}, {f.GetSubjectDigest(), "subject_digest", &q.Subjects, &a.item.Subject}} {
		switch {
		case d.digest == "":
		case !isDigest(d.digest):
			return invalidFilter(d.name + " is not a digest, such as a1:00112233445566778899aabbccddeeff")
		default:
			*d.wanted, *d.told = []string{d.digest}, d.digest
		}
	}
	return nil
}

// isDigest says whether a text has the form of a digest.
func isDigest(text string) bool {
	version, digits, ok := strings.Cut(strings.TrimPrefix(text, "a"), ":")
	_, err := strconv.ParseUint(version, 10, 32)
	return ok && err == nil && digits == strings.ToLower(digits) && isHex(digits, 16)
}

// isHex says whether a text is so many bytes in hexadecimal digits.
func isHex(text string, bytes int) bool {
	b, err := hex.DecodeString(text)
	return err == nil && len(b) == bytes
}

// sumOf returns the sum of a filter and an order. It is part of page tokens, so what the
// filter names in clear goes in as the digest under the oldest audit key: that stays the
// same when there is a newer one, and tells nobody who hasn't the key.
func sumOf(f *coatcheckv1.AuditFilter, a *question, newest bool) (uint32, error) {
	keyed := proto.CloneOf(f)
	if f.GetToken() != "" {
		keyed.Token = oldest(a.query.Tokens)
	}
	if f.GetSubject() != "" {
		keyed.Subject = oldest(a.query.Subjects)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(keyed)
	if err != nil {
		return 0, err
	}
	return crc32.ChecksumIEEE(fmt.Appendf(b, " %v", newest)), nil
}

// oldest returns the digest under the oldest audit key.
func oldest(digests []string) string {
	last := digests[0]
	for _, d := range digests {
		if strings.HasPrefix(d, "a") {
			last = d
		}
	}
	return last
}
