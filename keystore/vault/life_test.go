package vault_test

import (
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/vault"
)

// shortLived returns a way to log in as a role whose tokens live for four seconds
// and have exactly the policy of deploy/vault, and what the role says.
func shortLived(t *testing.T, r root, role map[string]any) vault.Auth {
	t.Helper()
	role["token_policies"], role["token_ttl"] = r.name, "4s"
	r.WriteRole(r.name, role)
	return vault.Auth{AppRole: &vault.AppRoleAuth{
		RoleID: r.RoleID(r.name), SecretID: vault.Secret{File: writeFile(t, r.SecretID(r.name))},
	}}
}

// onlyToken returns the accessor of the one token that there is.
func onlyToken(t *testing.T, r root) string {
	t.Helper()
	all := r.TokensOf(r.name)
	if len(all) != 1 {
		t.Fatalf("%d tokens, want 1", len(all))
	}
	return all[0]
}

// renewed reports whether a token has been renewed past two of its lives.
func renewed(t *testing.T, r root, token string) bool {
	t.Helper()
	info, ok := r.LookUp(token)
	if !ok {
		t.Fatal("the token has ended")
	}
	return info.LastRenewal >= info.Created+8
}

// replaced reports whether there is another token.
func replaced(t *testing.T, r root, token string) bool {
	t.Helper()
	return slices.ContainsFunc(r.TokensOf(r.name), func(other string) bool { return other != token })
}

// Tokens are renewed for as long as that is possible, and then there is a new
// login before they end. All the while nobody notices. The rows wait together.
func TestLifeOfTokens(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	rows := []struct {
		name string
		auth func(r root) vault.Auth
		want func(t *testing.T, r root, first string) bool
	}{
		{"renewed", func(r root) vault.Auth { return shortLived(t, r, map[string]any{}) }, renewed},
		{"provided and renewed", func(r root) vault.Auth {
			token := r.Token(r.name, 4*time.Second)
			return vault.Auth{Token: &vault.TokenAuth{Secret: vault.Secret{File: writeFile(t, token)}}}
		}, renewed},
		{"replaced for want of the policy default", func(r root) vault.Auth {
			return shortLived(t, r, map[string]any{"token_no_default_policy": true})
		}, replaced},
		{"replaced at its longest life", func(r root) vault.Auth {
			return shortLived(t, r, map[string]any{"token_max_ttl": "6s"})
		}, replaced},
	}
	roots, backends, first := make([]root, len(rows)), make([]*vault.Backend, len(rows)), make([]string, len(rows))
	for i, row := range rows {
		roots[i] = newRoot(v)
		cfg := roots[i].config()
		cfg.Auth = row.auth(roots[i])
		backends[i] = open(t, cfg)
		wantWork(t, row.name, backends[i])
		first[i] = onlyToken(t, roots[i])
	}
	for i, row := range rows {
		eventually(t, "a token that is "+row.name, func() bool {
			for k, b := range backends {
				if err := b.Check(t.Context()); err != nil {
					t.Fatalf("%s: %v", rows[k].name, err)
				}
			}
			return row.want(t, roots[i], first[i])
		})
	}
	for i := range 2 {
		if onlyToken(t, roots[i]) != first[i] {
			t.Errorf("%s: it has logged in again", rows[i].name)
		}
	}
}

// A token that has ended during an outage is replaced when it is over.
func TestOutageLongerThanToken(t *testing.T) {
	t.Parallel()
	r := newRoot(newVault(t))
	cfg := r.config()
	cfg.Auth = shortLived(t, r, map[string]any{})
	b := open(t, cfg)
	wantWork(t, "at first", b)
	r.Stop()
	wantErr(t, "Check", b.Check(t.Context()), keystore.ErrUnavailable)
	r.Restart()
	r.RevokeTokensOf(r.name)
	wantWork(t, "after the outage", b)
}

// Many who need a login at once get one.
func TestOneLogin(t *testing.T) {
	r := newRoot(newVault(t))
	b := open(t, r.appRole(t))
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() { wantWork(t, "at once", b) })
	}
	wg.Wait()
	onlyToken(t, r)
	r.RevokeTokensOf(r.name)
	for range 32 {
		wg.Go(func() { wantWork(t, "at once, with a revoked token", b) })
	}
	wg.Wait()
	onlyToken(t, r)
}

// One who may log in and then nothing doesn't make a token for every call.
func TestDeniedCallsMakeFewTokens(t *testing.T) {
	r := newRoot(newVault(t))
	b := open(t, r.appRole(t))
	wantWork(t, "at first", b)
	r.DeletePolicy(r.name)
	began := time.Now()
	for range 20 {
		wantErr(t, "Check", b.Check(t.Context()), keystore.ErrDenied)
	}
	if n, most := len(r.TokensOf(r.name)), 2+int(time.Since(began)/time.Second); n > most {
		t.Errorf("%d tokens, want at most %d", n, most)
	}
	r.allow()
	wantWork(t, "with the policy again", b)
}

// running returns the goroutines that are ours or a transport's.
func running() []string {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	var found []string
	for _, g := range strings.Split(string(stacks), "\n\n") {
		for _, trace := range []string{"keystore/vault.(*", "net/http.(*persistConn)", "api.(*LifetimeWatcher)", "net/http.(*Transport)"} {
			if strings.Contains(g, trace) {
				found = append(found, g)
				break
			}
		}
	}
	return found
}

func TestCloseEndsEverything(t *testing.T) {
	r := newRoot(newVault(t))
	cfg := r.appRole(t)
	cfg.Timeout = time.Minute
	before := len(running())
	b := open(t, cfg)
	wantWork(t, "at first", b)
	if len(running()) <= before {
		t.Fatal("nothing runs that could leak, or it isn't seen")
	}
	// A call that hangs, and a login that does.
	r.RevokeTokensOf(r.name)
	r.Hang()
	defer r.Resume()
	ended := make(chan error, 2)
	go func() { ended <- b.Check(t.Context()) }()
	fresh := open(t, cfg)
	go func() { ended <- fresh.Check(t.Context()) }()
	eventually(t, "two calls that hang", func() bool {
		return strings.Count(strings.Join(running(), "\n"), "vault.(*Backend).Check") == 2
	})
	for _, b := range []*vault.Backend{b, fresh} {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		select {
		case err := <-ended:
			wantErr(t, "Check while it is closed", err, keystore.ErrUnavailable)
		case <-time.After(20 * time.Second):
			t.Fatal("a call goes on after Close")
		}
	}
	eventually(t, "the end of all goroutines", func() bool { return len(running()) <= before })
	wantErr(t, "Check after that", b.Check(t.Context()), keystore.ErrUnavailable)
	if err := b.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
}
