package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"filippo.io/age"
	"google.golang.org/grpc"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// exportPage is how many tokens a page of an export has at most.
const exportPage = 500

// exportStretches is how many stretches of the store without a token of the
// profile are gone through for a page, before an empty one is sent so that the
// client sees that something is done.
const exportStretches = 256

// ExportTokens sends pages, each recorded before it leaves.
func (t *tokens) ExportTokens(req *coatcheckv1.ExportTokensRequest, stream grpc.ServerStreamingServer[coatcheckv1.ExportTokensResponse]) error {
	ctx := stream.Context()
	c, p, err := t.within(ctx, req.GetProfile())
	if err != nil {
		return err
	}
	recipient, err := age.ParseX25519Recipient(req.GetRecipient())
	if err != nil {
		return errRecipient
	}
	sum := sha256.Sum256([]byte(recipient.String()))
	c.event.Recipient = hex.EncodeToString(sum[:])
	for from := req.GetPageToken(); ; {
		select {
		case <-t.server.draining:
			return errDraining
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		part := c.group(t.server.policy.Current())
		var page *coatcheckv1.ExportTokensResponse
		err := t.server.commitGroup(ctx, part, func() (err error) {
			if err := part.stillNamed(ctx); err != nil {
				return err
			}
			part.event.Profile = p.Name
			decision, err := part.ask(part.request(p.Name))
			if err != nil {
				return err
			}
			page, err = t.exportApproved(ctx, part, decision.Duties(), p.Name, from, recipient)
			return err
		})
		c.meter = part.meter
		if err != nil {
			return err
		}
		c.event.Records += uint64(page.GetTokenCount())
		if err := stream.Send(page); err != nil {
			return first(ctx.Err(), receiveError(err))
		}
		if from = page.GetNextPageToken(); from == "" {
			return nil
		}
	}
}

// exportApproved prepares a page, of as many tokens as there is an approval for, if one
// is needed.
func (t *tokens) exportApproved(ctx context.Context, c *call, duties *policy.Duties, profile, from string, recipient age.Recipient) (*coatcheckv1.ExportTokensResponse, error) {
	var h *held
	limit := exportPage
	if needs := duties.Approval(); needs != nil {
		c.grants = t.server.approvals.grants(c)
		var err error
		if h, err = c.grants.first(ctx, needs, profile, ""); err != nil {
			if unapproved(err) {
				c.event.Decision = audit.Deny
			}
			return nil, err
		}
		limit = int(min(h.left, exportPage))
	}
	page, err := t.export(ctx, c, duties, profile, from, recipient, limit)
	if err != nil {
		return nil, err
	}
	if n := page.GetTokenCount(); h != nil && n > 0 {
		c.event.Approval = h.ID
		c.grants.take(h, uint64(n))
	}
	return page, c.settle(ctx)
}

// export prepares a page, of as many tokens as fit a message, and up to limit.
func (t *tokens) export(ctx context.Context, c *call, duties *policy.Duties, profile, from string, recipient age.Recipient, limit int) (*coatcheckv1.ExportTokensResponse, error) {
	signer, err := t.tokenizer.Signer(ctx, DefaultNamespace, &c.unit)
	if err != nil {
		return nil, err
	}
	for ; ; limit /= 2 {
		page, err := t.exportUpTo(ctx, c, duties, profile, from, recipient, limit)
		if err != nil {
			return nil, err
		}
		page.PublicKey = signer.Public()
		page.Signature = signer.Sign(ExportMessage(profile, from, page))
		if err := t.fits(page); err == nil || limit == 1 {
			return page, err
		}
	}
}

// exportUpTo prepares a page without its signature.
func (t *tokens) exportUpTo(ctx context.Context, c *call, duties *policy.Duties, profile, from string, recipient age.Recipient, limit int) (*coatcheckv1.ExportTokensResponse, error) {
	c.redraw()
	var admit func(uint64) error
	if duties.Any() {
		admit = func(subject uint64) error { return c.draw(ctx, duties, subject) }
	}
	var found tokenizer.ExportedPage
	for stretch := 0; stretch == 0 || stretch < exportStretches && found.Empty() && found.Next != ""; stretch++ {
		var err error
		if found, err = t.tokenizer.Export(ctx, DefaultNamespace, profile, from, limit, admit); err != nil {
			return nil, err
		}
		from = found.Next
	}
	infos := make([]tokenizer.TokenInfo, len(found.Tokens))
	for i := range found.Tokens {
		infos[i] = found.Tokens[i].TokenInfo
	}
	if _, err := t.tellOf(ctx, c, infos); err != nil {
		return nil, err
	}
	sealed, err := sealExport(found.Tokens, recipient)
	if err != nil {
		return nil, err
	}
	if found.Damaged > 0 {
		c.defect = fmt.Errorf("%w: %d records are left out of an export", tokenizer.ErrDamaged, found.Damaged)
	}
	return &coatcheckv1.ExportTokensResponse{
		Sealed: sealed, TokenCount: uint32(len(found.Tokens)), NextPageToken: found.Next, DamagedCount: uint32(found.Damaged),
	}, nil
}

// ExportMessage is what the signature of a page is over. from is the page token
// that was asked for, so that a page which is left out is missed.
//
//	"coatcheck export v1\n" SHA-256(sealed)(32) tokens(4) damaged(4)
//	profile(length(4), bytes) from(length(4), bytes) next page token(length(4), bytes)
//
// Integers are big endian.
func ExportMessage(profile, from string, page *coatcheckv1.ExportTokensResponse) []byte {
	m := []byte("coatcheck export v1\n")
	sum := sha256.Sum256(page.GetSealed())
	m = append(m, sum[:]...)
	m = binary.BigEndian.AppendUint32(m, page.GetTokenCount())
	m = binary.BigEndian.AppendUint32(m, page.GetDamagedCount())
	for _, s := range []string{profile, from, page.GetNextPageToken()} {
		m = binary.BigEndian.AppendUint32(m, uint32(len(s)))
		m = append(m, s...)
	}
	return m
}

// ExportedToken is a line of an export. Times are in RFC 3339.
type ExportedToken struct {
	Profile  string            `json:"profile"`
	Token    string            `json:"token"`
	Value    string            `json:"value,omitempty"`
	Data     []byte            `json:"data,omitempty"` // of the type bytes, instead of Value
	Subject  string            `json:"subject,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	State    string            `json:"state"`
	Created  string            `json:"create_time"`
	Expires  string            `json:"expire_time,omitempty"`
	MaxUses  uint32            `json:"max_uses,omitempty"`
	Uses     uint32            `json:"uses,omitempty"`
	Imported bool              `json:"imported,omitempty"`
}

// sealExport encrypts tokens with their values to a recipient.
func sealExport(found []tokenizer.Exported, recipient age.Recipient) ([]byte, error) {
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, recipient)
	if err != nil {
		return nil, fmt.Errorf("server: encrypt an export: %w", err)
	}
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	for _, e := range found {
		line := ExportedToken{
			Profile: e.Profile, Token: string(e.Token), Subject: e.Subject, Metadata: e.Metadata, State: e.State.String(),
			Created: e.Created.Format(time.RFC3339), MaxUses: e.MaxUses, Uses: e.Uses, Imported: e.Imported,
		}
		if !e.Expires.IsZero() {
			line.Expires = e.Expires.Format(time.RFC3339)
		}
		if e.Binary {
			line.Data = []byte(e.Value.Reveal())
		} else {
			line.Value = e.Value.Reveal()
		}
		if err := lines.Encode(line); err != nil {
			return nil, fmt.Errorf("server: encode an export: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("server: encrypt an export: %w", err)
	}
	return sealed.Bytes(), nil
}
