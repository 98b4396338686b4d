package tokenizer

// Bounds of the states that a Store keeps, in bytes.
const (
	MaxStateKey = 512
	MaxState    = 64 << 10
)

// StateChange changes a state: a small row that the server keeps for itself, such as
// who is suspended. It is stored as it is, neither encrypted nor with a checksum: no
// customer's data goes in there, nor what could be used to guess at any.
type StateChange struct {
	// Key names the state, "kind/name", 1 to MaxStateKey bytes. No two changes of a
	// unit have the same.
	Key string

	// Old is what the state has to be, nil for none.
	Old []byte

	// New is the state from then on, 1 to MaxState bytes; nil removes it. If it is
	// the same as Old, nothing changes: the unit rests on it.
	New []byte
}

// StateRow is a state that is kept.
type StateRow struct {
	Key   string
	Value []byte
}
