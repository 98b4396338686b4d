package vault

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/coatcheck/coatcheck/keystore"
)

// secretSize is the size in bytes of the secret that transit encrypts.
const secretSize = 32

// maxBody is the largest size in bytes of a request and of a response. Both are
// small; what is larger isn't Vault's.
const maxBody = 32 << 10

// encrypt has transit encrypt a secret.
func (b *Backend) encrypt(ctx context.Context, secret []byte) (stored, error) {
	body := append(make([]byte, 0, 128), `{"plaintext":"`...)
	body = append(base64.StdEncoding.AppendEncode(body, secret), `"}`...)
	defer clear(body)
	return b.ciphertextFrom(ctx, "encrypt", body, keystore.ErrDenied)
}

// rewrap has transit encrypt what it had encrypted before under the newest
// version of the key. The secret stays in Vault.
func (b *Backend) rewrap(ctx context.Context, s stored) (stored, error) {
	return b.ciphertextFrom(ctx, "rewrap", ciphertextBody(s), keystore.ErrUnwrap)
}

// decrypt returns the secret that transit encrypted. The caller wipes it.
func (b *Backend) decrypt(ctx context.Context, s stored) (secret []byte, err error) {
	var answer struct {
		Data struct {
			Plaintext []byte `json:"plaintext"` // in base64; no string is made of it
		} `json:"data"`
	}
	if err := b.transit(ctx, "decrypt", ciphertextBody(s), &answer, keystore.ErrUnwrap); err != nil {
		return nil, err
	}
	if answer.Data.Plaintext == nil {
		return nil, b.errorf(keystore.ErrUnavailable, "decrypt", "the answer has no plaintext")
	}
	return answer.Data.Plaintext, nil
}

func ciphertextBody(s stored) []byte {
	body := append([]byte(`{"ciphertext":"`), s.ciphertext()...)
	return append(body, `"}`...)
}

// ciphertextFrom makes a call whose answer is a transit ciphertext.
func (b *Backend) ciphertextFrom(ctx context.Context, op string, body []byte, bad error) (stored, error) {
	var answer struct {
		Data struct {
			Ciphertext string `json:"ciphertext"`
		} `json:"data"`
	}
	if err := b.transit(ctx, op, body, &answer, bad); err != nil {
		return stored{}, err
	}
	s, ok := parseCiphertext([]byte(answer.Data.Ciphertext))
	if !ok {
		return stored{}, b.errorf(keystore.ErrUnavailable, op, "the answer is no ciphertext that we know")
	}
	return s, nil
}

// transit makes a call of the transit engine and decodes the answer. If Vault
// refuses the token it logs in again, and makes the call a second time.
//
// Errors: bad for status 400, which says that the body is wrong;
// keystore.ErrDenied, also where a refused token can't be replaced, whatever the
// cause; keystore.ErrUnavailable, or how ctx has ended.
func (b *Backend) transit(ctx context.Context, op string, body []byte, answer any, bad error) error {
	if err := b.keeper.renewed(ctx); err != nil {
		return b.wrapError(op, err)
	}
	s, err := b.keeper.session(ctx)
	if err != nil {
		return b.wrapError(op, err)
	}
	err = b.write(ctx, s, op, body, answer)
	if !forbidden(err) || b.keeper.useless(s) {
		return b.classify(ctx, op, err, bad)
	}
	s, err = b.keeper.after(ctx, s)
	if err != nil {
		// Vault has refused us. Whatever keeps us from showing something else, a
		// login that gets no answer too, doesn't make that an outage: whoever took
		// our token away must not have to wait for one to end.
		return fmt.Errorf("%w: %w", keystore.ErrDenied, b.wrapError(op, err))
	}
	err = b.write(ctx, s, op, body, answer)
	if forbidden(err) {
		s.refused.Store(time.Now().UnixNano())
	}
	return b.classify(ctx, op, err, bad)
}

// forbidden reports whether Vault refused the token, or what it was used for.
func forbidden(err error) bool {
	refused, ok := asRefusal(err)
	return ok && refused.status == http.StatusForbidden
}

// classify gives an error of write its sentinel.
func (b *Backend) classify(ctx context.Context, op string, err, bad error) error {
	if err == nil {
		return nil
	}
	if end := ended(ctx); end != nil {
		return b.wrapError(op, end)
	}
	reason, sentinel := failure(err, bad)
	return b.errorf(sentinel, op, reason+hint(err, sentinel))
}

// hint says what to look at when Vault refuses a call of the transit engine: its
// own answers name neither a mount that is not there nor a right that is missing.
func hint(err, sentinel error) string {
	refused, ok := asRefusal(err)
	switch {
	case !ok || refused.missing:
		return ""
	case errors.Is(sentinel, keystore.ErrUnwrap):
		return ": it was wrapped under another key, or under a version that is below the key's min_decryption_version"
	case refused.status == http.StatusForbidden:
		return ": the token has no right to this, or is good no more, or there is no such mount"
	}
	return ""
}

// write makes one call with the session's token. It keeps what comes back in a
// buffer of its own, which it wipes.
func (b *Backend) write(ctx context.Context, s *session, op string, body []byte, answer any) error {
	resp, err := s.client.Logical().WriteRawWithContext(ctx, b.cfg.Mount+"/"+op+"/"+b.cfg.Key, body)
	if resp != nil {
		defer func() { _ = resp.Body.Close() }()
	}
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	buffer := make([]byte, maxBody)
	defer clear(buffer)
	n, err := io.ReadFull(resp.Body, buffer)
	if err == nil {
		return fmt.Errorf("an answer of more than %d bytes", maxBody)
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	// The decoder's error could quote what it was given.
	if json.Unmarshal(buffer[:n], answer) != nil {
		return errors.New("an answer that isn't understood")
	}
	return nil
}

// newClient returns a client of Vault that has no token. Every client shares
// the connections.
func (b *Backend) newClient() (*api.Client, error) {
	client, err := api.NewClient(&api.Config{
		Address:    anyAddress,
		HttpClient: b.http,
		MaxRetries: b.cfg.tries() - 1,
		CheckRetry: b.retry,
		Backoff:    b.backoff,
		// See addresses.send.
		DisableRedirects: true,
	})
	if err != nil {
		// Vault's client has read its environment variables, though we use none.
		return nil, errors.New("a VAULT_ variable of the environment has a bad value")
	}
	header := http.Header{"X-Vault-Request": {"true"}}
	if b.cfg.Namespace != "" {
		header.Set("X-Vault-Namespace", b.cfg.Namespace)
	}
	client.SetHeaders(header)
	client.ClearToken()
	return client, nil
}
