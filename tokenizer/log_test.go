package tokenizer

import "testing"

// The chain of every log rests on these two hashes; they were computed
// elsewhere from the definition in log.go.
func TestChainVector(t *testing.T) {
	log := LogID{0: 1, 15: 2}
	genesis := Genesis(log)
	if got, want := genesis.String(), "f9006f1e1d6ebd9a633d6f7fdb0f6df5fc1de32fa568071dcd3252faf0bc3e58"; got != want {
		t.Errorf("Genesis is %s, want %s", got, want)
	}
	entry := Entry{Sequence: 1, Prev: genesis, Body: []byte(`{"v":1}`)}
	if got, want := entry.Hash().String(), "b42e1350ce23e78c3bb514c72f4e980b3591037ec6b45cf62a77ca65aad8dd69"; got != want {
		t.Errorf("Hash is %s, want %s", got, want)
	}
}
