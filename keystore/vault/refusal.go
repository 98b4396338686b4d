package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/coatcheck/coatcheck/keystore"
)

// refusal is a response of Vault other than what was asked for. Of its text
// only what we look for is kept: the rest could hold anything.
type refusal struct {
	status  int
	missing bool // there is no such key
	invalid bool // the secret id is wrong, for which some versions have status 500
}

// Error implements error.
func (r refusal) Error() string {
	text := fmt.Sprintf("Vault answers with status %d", r.status)
	if name := http.StatusText(r.status); name != "" {
		text += " " + name
	}
	if r.missing {
		text += ": no such key"
	}
	if r.invalid {
		text += ": invalid secret id"
	}
	return text
}

// asRefusal returns the refusal that an error of Vault's client stands for.
// What has not the form of Vault's errors was not said by Vault, but by
// something before it, and decides nothing: it is no refusal.
func asRefusal(err error) (r refusal, ok bool) {
	var response *api.ResponseError
	if !errors.As(err, &response) || response.RawError || response.Errors == nil {
		return refusal{}, false
	}
	r.status = response.StatusCode
	for _, text := range response.Errors {
		r.missing = r.missing || strings.Contains(text, "encryption key not found")
		r.invalid = r.invalid || strings.Contains(text, "invalid secret id")
	}
	return r, true
}

// class returns the sentinel for a refusal. bad is that for status 400, which
// says that what we sent is wrong.
func (r refusal) class(bad error) error {
	switch {
	case r.missing, r.invalid:
		return keystore.ErrDenied
	case r.status == http.StatusBadRequest:
		return bad
	case r.status == http.StatusUnauthorized, r.status == http.StatusForbidden,
		r.status == http.StatusNotFound, r.status == http.StatusMethodNotAllowed:
		return keystore.ErrDenied
	default: // 412, 429, 472, 473, 5xx, and what nobody has thought of
		return keystore.ErrUnavailable
	}
}

// failure returns the reason and the sentinel for an error of Vault's client; bad is
// that for status 400. The reason names the status and quotes nothing.
func failure(err, bad error) (reason string, sentinel error) {
	if refused, ok := asRefusal(err); ok {
		return refused.Error(), refused.class(bad)
	}
	var response *api.ResponseError
	if errors.As(err, &response) {
		return fmt.Sprintf("status %d, which is not Vault's own", response.StatusCode), keystore.ErrUnavailable
	}
	var at *url.Error
	if errors.As(err, &at) { // its URL is a stand-in
		err = at.Err
	}
	return err.Error(), keystore.ErrUnavailable
}

// errBudget is the cause of a context that ends because Vault has been waited for
// as long as Config allows.
var errBudget = errors.New("no answer in time")

// ended returns how the context of a call has ended: with the caller's error, or
// with errBudget as an outage. It is nil while it has not.
func ended(ctx context.Context) error {
	switch {
	case ctx.Err() == nil:
		return nil
	case errors.Is(context.Cause(ctx), errBudget):
		return fmt.Errorf("%w: %w", keystore.ErrUnavailable, errBudget)
	default:
		return ctx.Err()
	}
}
