package vault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/coatcheck/coatcheck/keystore"
)

// session is one login.
type session struct {
	client *api.Client // has the token
	secret *api.Secret // what the login returned
	print  fingerprint // of what was logged in with

	replaced chan struct{} // closed when there is a newer one

	// refused is when a request of this session was refused right after its
	// login, in Unix nanoseconds, or zero: another login did not help then.
	refused atomic.Int64
}

// reloginPause is how long no new login with the same credentials is tried for a
// request that is refused although its login has succeeded. It bounds the tokens
// that Vault has to keep for one who may log in and nothing else.
const reloginPause = time.Second

// keeper holds the session and replaces it: when it is refused, when it can't be
// renewed any more, and when others put new credentials in place. It is safe for
// concurrent use, and there is one login at a time, which all wait for who
// need one.
type keeper struct {
	cfg        Config
	method     method
	transports *addresses
	newClient  func() (*api.Client, error)
	life       context.Context
	running    sync.WaitGroup

	pace pace // used by the one login that is under way

	mu      sync.Mutex // guards what follows
	closed  bool
	current *session // nil before the first login
	login   *login   // the one that is under way, or nil
}

// login is a login that is under way.
type login struct {
	done    chan struct{} // closed when the rest is set
	session *session
	err     error
}

// session returns the current session, and logs in if there is none.
//
// Errors: as after.
func (k *keeper) session(ctx context.Context) (*session, error) { return k.after(ctx, nil) }

// after returns a session that isn't old. It logs in unless somebody has since
// old was the current one. The login goes on when ctx ends, since others may
// wait for it.
//
// Errors: keystore.ErrDenied if Vault refuses the login; keystore.ErrUnavailable,
// with a credentialsError where those can't be read; or how ctx has ended.
func (k *keeper) after(ctx context.Context, old *session) (*session, error) {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", keystore.ErrUnavailable, errClosed)
	}
	if k.current != old {
		defer k.mu.Unlock()
		return k.current, nil
	}
	l := k.login
	if l == nil {
		l = &login{done: make(chan struct{})}
		k.login = l
		k.running.Go(func() { k.run(l) })
	}
	k.mu.Unlock()
	select {
	case <-l.done:
		return l.session, l.err
	case <-ctx.Done():
		return nil, ended(ctx)
	}
}

// run does a login and tells everyone.
func (k *keeper) run(l *login) {
	s, err := k.logIn()
	k.mu.Lock()
	if err == nil && k.closed {
		s, err = nil, fmt.Errorf("%w: %w", keystore.ErrUnavailable, errClosed)
	}
	if err == nil {
		if k.current != nil {
			close(k.current.replaced)
		}
		k.current = s
		if s.secret.Auth.LeaseDuration > 0 { // a token without an end needs no care
			k.running.Go(func() { k.watch(s) })
		}
	}
	l.session, l.err = s, err
	k.login = nil
	k.mu.Unlock()
	close(l.done)
}

// logIn reads the credentials and logs in with them.
func (k *keeper) logIn() (*session, error) {
	with, err := k.method()
	if err != nil {
		return nil, fmt.Errorf("%w: log in: %w", keystore.ErrUnavailable, err)
	}
	if err := k.pace.wait(with.print, time.Now()); err != nil {
		return nil, err
	}
	client, err := k.newClient()
	if err != nil {
		return nil, fmt.Errorf("%w: log in: %w", keystore.ErrUnavailable, err)
	}
	if k.cfg.Auth.Certificate != nil {
		k.transports.CloseIdleConnections() // those show the certificate of their time
	}
	ctx, cancel := context.WithTimeoutCause(k.life, k.cfg.budget(), errBudget)
	defer cancel()
	secret, err := with.login(ctx, client)
	if err == nil && (secret == nil || secret.Auth == nil || client.Token() == "") {
		err = errors.New("the answer has no token")
	}
	if err == nil {
		k.pace = pace{}
		return &session{client: client, secret: secret, print: with.print, replaced: make(chan struct{})}, nil
	}
	if k.life.Err() != nil {
		return nil, fmt.Errorf("%w: %w", keystore.ErrUnavailable, errClosed)
	}
	if err := ended(ctx); err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	reason, sentinel := failure(err, keystore.ErrDenied)
	err = fmt.Errorf("%w: log in: %s", sentinel, reason)
	if errors.Is(sentinel, keystore.ErrDenied) {
		limit := time.Minute
		if k.cfg.Auth.AppRole != nil {
			limit = lockout
		}
		k.pace.refused(with.print, time.Now(), limit, err)
	}
	return nil, err
}

// watch renews a session for as long as that extends it, and then logs in anew,
// before the token ends.
func (k *keeper) watch(s *session) {
	began := time.Now()
	watcher, err := s.client.NewLifetimeWatcher(&api.LifetimeWatcherInput{Secret: s.secret})
	if err != nil {
		return // there is a secret, so this can't be
	}
	k.running.Go(watcher.Start)
	defer watcher.Stop()
	select {
	case <-watcher.DoneCh():
	case <-s.replaced:
		return
	case <-k.life.Done():
		return
	}
	var pause time.Duration
	if k.cfg.Auth.Token != nil {
		// Nothing is won by looking at the same token again and again. When it
		// is exchanged, the next call sees it sooner than we do.
		pause = 30 * time.Second
	} else if time.Since(began) < time.Second {
		pause = time.Second // a token of so short a life that we would never stop
	}
	for {
		timer := time.NewTimer(pause/2 + rand.N(pause/2+1))
		select {
		case <-timer.C:
		case <-s.replaced:
			timer.Stop()
			return
		case <-k.life.Done():
			timer.Stop()
			return
		}
		if _, err := k.after(k.life, s); err == nil {
			return
		}
		pause = min(max(2*pause, time.Second), time.Minute)
	}
}

// useless reports whether another login would end as the last one did, for all
// that is known: in a session that nothing is allowed to.
func (k *keeper) useless(s *session) bool {
	if time.Since(time.Unix(0, s.refused.Load())) >= reloginPause {
		return false
	}
	now, err := k.method()
	return err == nil && now.print == s.print
}

// renewed replaces the session if others have put a new token in place.
//
// Errors: as after, but no error if the token can't be read: the one that we
// have may still be good.
func (k *keeper) renewed(ctx context.Context) error {
	if k.cfg.Auth.Token == nil {
		return nil
	}
	k.mu.Lock()
	s := k.current
	k.mu.Unlock()
	if s == nil {
		return nil
	}
	if now, err := k.method(); err != nil || now.print == s.print {
		return nil
	}
	_, err := k.after(ctx, s)
	return err
}

// close ends everything that runs, waits for it and drops the token.
func (k *keeper) close(end context.CancelFunc) {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	end()
	k.running.Wait()
	k.mu.Lock()
	k.current = nil
	k.mu.Unlock()
}

// pace keeps us from trying refused credentials over and over. It is used by one
// login at a time.
type pace struct {
	print    fingerprint
	refusals int // in a row
	until    time.Time
	err      error // the last refusal
}

// What pace allows: two refusals in a row cost nothing, then the pause doubles
// from one second to a limit. Other credentials are tried at once.
const (
	freeRefusals = 2
	firstPause   = time.Second

	// lockout is the limit for an AppRole. Vault 1.13 and later lock a role out
	// for 15 minutes after five tries with a wrong secret id, and with it all
	// who log in as that role; it forgets failed tries after 15 minutes without.
	lockout = 16 * time.Minute
)

// wait returns the last refusal if it is too early to try these credentials.
func (p *pace) wait(print fingerprint, now time.Time) error {
	if p.refusals > 0 && p.print == print && now.Before(p.until) {
		return p.err
	}
	return nil
}

// refused takes note of a refusal.
func (p *pace) refused(print fingerprint, now time.Time, limit time.Duration, err error) {
	if p.print != print {
		*p = pace{print: print}
	}
	p.refusals++
	p.err = err
	if over := p.refusals - freeRefusals; over > 0 {
		p.until = now.Add(min(firstPause<<min(over-1, 20), limit))
	}
}
