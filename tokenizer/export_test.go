package tokenizer

import "time"

// SetClock has a Tokenizer take the time from elsewhere. Not for concurrent use.
func (t *Tokenizer) SetClock(now func() time.Time) { t.now = now }

// DueKey is dueKey.
func DueKey(namespace string, at time.Time, kind byte, what []byte) []byte {
	return dueKey(namespace, at, kind, what)
}
