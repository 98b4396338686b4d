package keystore

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"runtime"
	"sync"

	"github.com/coatcheck/coatcheck/keystore/internal/wipe"
)

// macKey is an index, a subject or an audit key.
type macKey struct{ states *macStates }

// macStates keeps states that have the key in them already: keying one costs
// more than most sums. Unlike a sync.Pool it forgets none, since each has to be
// wiped in the end.
type macStates struct {
	mu   sync.Mutex
	key  []byte
	idle []*macState
	all  [][]byte // what each state had for a key when it was made
}

type macState struct {
	hash hash.Hash
	buf  []byte // what is hashed next, then the sum
}

// macPiece is how much data is hashed at once.
const macPiece = 256

// newMACKey copies the key, which each state needs.
func newMACKey(key []byte, count *inMemory) *macKey {
	states := &macStates{key: bytes.Clone(key)}
	return watch(count, &macKey{states}, states.wipe)
}

// take returns a state that nobody else uses.
func (s *macStates) take() *macState {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.idle); n > 0 {
		state := s.idle[n-1]
		s.idle = s.idle[:n-1]
		return state
	}
	state := &macState{hash: hmac.New(sha256.New, s.key)}
	// Reset replaces the pads by states that were computed from them, and
	// leaves the pads, which are the key but for a constant, to the collector.
	// It does so the first time only, and then leaves what was hashed before in
	// the buffer, too: so here, before there is anything.
	s.all = append(s.all, wipe.Regions(state.hash)...)
	state.hash.Reset()
	return state
}

func (s *macStates) give(state *macState) {
	s.mu.Lock()
	s.idle = append(s.idle, state)
	s.mu.Unlock()
}

// wipe is called when no call is under way, so that all states are idle.
func (s *macStates) wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	wipe.All(s.all)
	for _, state := range s.idle {
		wipe.Value(state.hash)
	}
	clear(s.key)
}

// sum returns the HMAC of a label and data. It takes data by way of a buffer of its
// own, so that callers can have theirs on the stack.
func (k *macKey) sum(label string, data []byte) (sum [32]byte) {
	s := k.states.take()
	s.buf = binary.BigEndian.AppendUint32(s.buf[:0], uint32(len(label)))
	s.buf = append(s.buf, label...)
	for more := true; more; more = len(data) > 0 {
		n := min(len(data), macPiece)
		s.buf = append(s.buf, data[:n]...)
		s.hash.Write(s.buf)
		clear(s.buf)
		s.buf, data = s.buf[:0], data[n:]
	}
	s.buf = s.hash.Sum(s.buf)
	copy(sum[:], s.buf)
	// Before it lies idle, not after: what has seen a value must not outlive
	// the call.
	clear(s.buf)
	s.hash.Reset()
	k.states.give(s)
	runtime.KeepAlive(k)
	return sum
}

// sumSecret returns HMAC-SHA-256 of a secret and of nothing else. It allocates
// nothing and neither does its caller for the secret, which stays where it is
// but for a copy that is cleared.
// The caller keeps the key alive.
func (s *macStates) sumSecret(secret *[32]byte) (sum [32]byte) {
	state := s.take()
	state.buf = append(state.buf[:0], secret[:]...)
	state.hash.Write(state.buf)
	state.buf = state.hash.Sum(state.buf[:0])
	copy(sum[:], state.buf)
	clear(state.buf)
	state.hash.Reset()
	s.give(state)
	return sum
}
