package tokenizer

import "time"

// SetClock has a Tokenizer take the time from elsewhere. Not for concurrent use.
func (t *Tokenizer) SetClock(now func() time.Time) { t.now = now }
