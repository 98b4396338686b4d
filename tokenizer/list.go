package tokenizer

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/coatcheck/coatcheck/keystore"
)

// ErrInvalidPage says that a page token is not one of ours, or of another query.
var ErrInvalidPage = errors.New("tokenizer: invalid page token")

// ListRequest says which tokens of a profile are wanted.
type ListRequest struct {
	Profile  string
	Subject  string            // if not "", only those about it
	Metadata map[string]string // only those with all of these labels
	Page     string            // Next of the page before, "" at first
	Limit    int               // how many at most
}

// Listed is a page of tokens.
type Listed struct {
	Tokens  []TokenInfo
	Next    string // "" if this is the last page
	Damaged int    // records that don't parse or open, and are left out
}

// List returns tokens in the order in which they were made. A page may have fewer
// than the limit without being the last.
//
// Errors: ErrUnknownProfile, ErrInvalidPage, ErrInvalidSubject,
// ErrInvalidMetadata, ErrUnavailable, that of
// keystore.Keystore.Keyring, or that of ctx.
func (t *Tokenizer) List(ctx context.Context, namespace string, req ListRequest) (Listed, error) {
	if _, ok := t.profiles[req.Profile]; !ok {
		return Listed{}, ErrUnknownProfile
	}
	if len(req.Subject) > MaxSubject {
		return Listed{}, &InputError{ErrInvalidSubject, "is longer than 256 bytes"}
	}
	labels, err := appendMetadata(nil, req.Metadata)
	if err != nil {
		return Listed{}, err
	}
	r, err := t.reader(ctx, namespace)
	if err != nil {
		return Listed{}, err
	}
	query := queryOf(req.Profile, req.Subject, labels)
	after, err := openPage(r.ring, req.Page, query)
	if err != nil {
		return Listed{}, err
	}
	var page Listed
	limit := req.Limit
	// Records that are left out are made up for: else a gap would tell of honeytokens.
	for range maxFills {
		req.Limit = limit - len(page.Tokens)
		next, err := r.fill(ctx, req, after, &page)
		if err != nil {
			return Listed{}, err
		}
		if after = next; after == 0 || len(page.Tokens) == limit {
			break
		}
	}
	if after != 0 {
		page.Next = sealPage(r.ring, after, query)
	}
	return page, nil
}

// maxFills is how often it is looked for more for a page that isn't full.
const maxFills = 64

// fill adds to a page what is wanted of the records behind after, up to the limit, and
// returns where to go on, 0 at the end.
func (r *reader) fill(ctx context.Context, req ListRequest, after uint64, page *Listed) (next uint64, err error) {
	ids, next, err := r.page(ctx, req, after)
	if err != nil {
		return 0, err
	}
	err = r.each(ctx, ids, func(_ int, f *Found) error {
		if errors.Is(f.Err, ErrNotFound) {
			return nil
		}
		info, ok, err := r.infoIf(f, func(o *opened) bool { return o.Profile == req.Profile })
		if errors.Is(err, ErrDamaged) {
			page.Damaged++
			return nil
		}
		if ok && hasLabels(info.Metadata, req.Metadata) {
			page.Tokens = append(page.Tokens, info)
		}
		return err
	})
	return next, err
}

// page returns the ids of the records of a page, and behind which the next begins,
// 0 if there is none.
func (r *reader) page(ctx context.Context, req ListRequest, after uint64) ([]uint64, uint64, error) {
	if req.Subject != "" {
		return r.pageOf(ctx, req, after)
	}
	scanned, err := r.t.store.Scan(ctx, r.ring.Namespace(), req.Profile, after, req.Limit)
	if err != nil {
		return nil, 0, err
	}
	return scanned.IDs, scanned.Next, nil
}

// pageOf is page for the records about a subject.
func (r *reader) pageOf(ctx context.Context, req ListRequest, after uint64) ([]uint64, uint64, error) {
	s, err := r.findSubject(ctx, req.Subject)
	if err != nil || s == nil {
		if isErased(err) {
			err = nil
		}
		return nil, 0, err
	}
	return r.pageUnder(ctx, ownedPrefix(r.ring.Namespace(), s.id), after, req.Limit)
}

// pageUnder is page for the records whose ids stand behind a prefix of the index.
func (r *reader) pageUnder(ctx context.Context, prefix []byte, after uint64, limit int) ([]uint64, uint64, error) {
	from := binary.BigEndian.AppendUint64(prefix[:len(prefix):len(prefix)], after)
	claims, err := r.t.store.Claims(ctx, prefix, from, limit)
	if err != nil {
		return nil, 0, err
	}
	var ids []uint64
	next := uint64(0)
	for _, c := range claims {
		if len(c.Key) != len(prefix)+8 {
			return nil, 0, fmt.Errorf("%w: a claim", ErrDamaged)
		}
		next = binary.BigEndian.Uint64(c.Key[len(prefix):])
		ids = append(ids, next)
	}
	if len(claims) < limit {
		next = 0
	}
	return ids, next, nil
}

// hasLabels says whether there are all labels that are wanted.
func hasLabels(labels, wanted map[string]string) bool {
	for key, value := range wanted {
		if have, ok := labels[key]; !ok || have != value {
			return false
		}
	}
	return true
}

// A page token is the id behind which the page begins, enciphered like a token,
// so that nobody can count records by it:
//
//	version "." hex(AES(id(8) ‖ query(4) ‖ tag(4)))
//
// query is a checksum of what is asked for, so that a page token of one query is
// not taken for one of another.
var pageTag = [4]byte{'p', 'g', 0, 1}

func queryOf(parts ...any) uint32 { return crc32.ChecksumIEEE(fmt.Appendf(nil, "%q", parts)) }

func sealPage(ring *keystore.Keyring, after uint64, query uint32) string {
	var block [16]byte
	binary.BigEndian.PutUint64(block[:8], after)
	binary.BigEndian.PutUint32(block[8:12], query)
	copy(block[12:], pageTag[:])
	version := ring.Permute(&block)
	return fmt.Sprintf("%d.%x", version, block)
}

func openPage(ring *keystore.Keyring, page string, query uint32) (after uint64, err error) {
	if page == "" {
		return 0, nil
	}
	number, digits, ok := strings.Cut(page, ".")
	version, err := strconv.ParseUint(number, 10, 32)
	b, hexErr := hex.DecodeString(digits)
	if !ok || err != nil || hexErr != nil || len(b) != 16 {
		return 0, ErrInvalidPage
	}
	block := [16]byte(b)
	if ring.Unpermute(uint32(version), &block) != nil ||
		[4]byte(block[12:]) != pageTag || binary.BigEndian.Uint32(block[8:12]) != query {
		return 0, ErrInvalidPage
	}
	return binary.BigEndian.Uint64(block[:8]), nil
}
