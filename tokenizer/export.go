package tokenizer

import (
	"context"
	"errors"
)

// Exported is a token with its value.
type Exported struct {
	TokenInfo
	Value  Value
	Binary bool // the value is bytes, and no text
}

// ExportedPage is a page of tokens with their values.
type ExportedPage struct {
	Tokens  []Exported
	Next    string // "" if this is the last page
	Damaged int    // records that don't parse or open, and are left out
}

// Empty says whether there is nothing on the page.
func (p ExportedPage) Empty() bool { return len(p.Tokens) == 0 && p.Damaged == 0 }

// ErrNotExportable says that values of the profile must not be kept elsewhere
// either, or that there are none.
var ErrNotExportable = errors.New("tokenizer: profile can't be exported")

// ErrNotImportable says that nothing is stored of the profile, or that its values
// must not have been kept anywhere.
var ErrNotImportable = errors.New("tokenizer: profile can't be imported into")

// errEnough ends a page before all that was found for it.
var errEnough = errors.New("tokenizer: enough")

// maxExport is after how many bytes of values a page ends.
const maxExport = 1 << 20

// Export returns tokens of a profile with their values, in the order in which
// they were made. Those that have expired, are spent or about somebody who has
// been erased are left out. page is the Next of the page before, "" at first.
//
// admit, if it isn't nil, is asked of each token that is to be returned, with the id of
// the record of the person whom it is about, 0 if it is about nobody. The page ends
// before one that it refuses; if it would be empty then, the error is that of admit.
//
// Errors: ErrUnknownProfile, ErrNotExportable, ErrInvalidPage, ErrUnavailable, that
// of admit, that of keystore.Keystore.Keyring, or that of ctx.
func (t *Tokenizer) Export(ctx context.Context, namespace, profile, page string, limit int, admit func(subject uint64) error) (ExportedPage, error) {
	p, ok := t.profiles[profile]
	if !ok {
		return ExportedPage{}, ErrUnknownProfile
	}
	if !p.stored() || p.dataType.Ephemeral() {
		return ExportedPage{}, ErrNotExportable
	}
	r, err := t.reader(ctx, namespace)
	if err != nil {
		return ExportedPage{}, err
	}
	query := queryOf("export", profile)
	after, err := openPage(r.ring, page, query)
	if err != nil {
		return ExportedPage{}, err
	}
	ids, next, err := r.page(ctx, ListRequest{Profile: profile, Limit: limit}, after)
	if err != nil {
		return ExportedPage{}, err
	}
	var result ExportedPage
	size := 0
	err = r.each(ctx, ids, func(i int, f *Found) error {
		if size >= maxExport {
			return errEnough
		}
		if errors.Is(f.Err, ErrNotFound) {
			return nil
		}
		var value Value
		info, ok, err := r.infoIf(f, func(o *opened) bool {
			value = NewValue(string(o.value))
			state := o.stateAt(t.now())
			return o.Profile == profile && (state == Active || state == Revoked)
		})
		if errors.Is(err, ErrDamaged) {
			result.Damaged++
			return nil
		}
		if ok && admit != nil {
			if refused := admit(f.Record.Subject); errors.Is(refused, ErrUnavailable) || refused != nil && result.Empty() {
				return refused
			} else if refused != nil {
				next = ids[i-1] // the page isn't empty, so this is not the first
				return errEnough
			}
		}
		if ok {
			result.Tokens = append(result.Tokens, Exported{info, value, p.dataType.Binary()})
			if size += len(value.Reveal()); size >= maxExport && i+1 < len(ids) {
				next = ids[i] // there are large values: the page ends here
			}
		}
		return err
	})
	if err != nil && !errors.Is(err, errEnough) {
		return ExportedPage{}, err
	}
	if next != 0 {
		result.Next = sealPage(r.ring, next, query)
	}
	return result, nil
}
