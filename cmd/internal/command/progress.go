package command

import (
	"fmt"
	"strings"
	"time"
)

// redraw is how often a bar is drawn at most.
const redraw = 200 * time.Millisecond

// rowsBar shows how far a file is. Its total is in bytes, 0 if nobody knows.
type rowsBar struct {
	bar
	what  string // is counted
	first int64  // rows that were there at the beginning
	start int64  // and bytes
	drawn time.Time
}

// newRowsBar returns a bar for a file, of which a part is done already. It draws
// nothing if quiet.
func newRowsBar(env Env, what string, size, rows, done int64, quiet bool) *rowsBar {
	b := &rowsBar{bar: *newBar(env, uint64(max(size, 0))), what: what, first: rows, start: done}
	if quiet {
		b.w = nil
	}
	return b
}

// at draws the bar anew, unless that was a moment ago.
func (b *rowsBar) at(rows, done int64, now time.Time, last bool) {
	if b.w == nil || !last && now.Sub(b.drawn) < redraw {
		return
	}
	b.drawn = now
	line := fmt.Sprintf("%s %s", grouped(uint64(rows)), b.what)
	if b.total > 0 {
		part := min(float64(done)/float64(b.total), 1)
		full := int(part * barWidth)
		line = fmt.Sprintf("[%s%s] %3d%%  %s", strings.Repeat("#", full), strings.Repeat("-", barWidth-full), int(part*100), line)
	}
	if elapsed := now.Sub(b.began); elapsed > time.Second && rows > b.first {
		line += fmt.Sprintf("  %s/s", grouped(uint64(float64(rows-b.first)/elapsed.Seconds())))
		if left := int64(b.total) - done; b.total > 0 && left > 0 && done > b.start {
			line += fmt.Sprintf("  %s left", time.Duration(float64(elapsed)*float64(left)/float64(done-b.start)).Round(time.Second))
		}
	}
	fmt.Fprintf(b.w, "\r\x1b[K%s", line)
	b.printed = true
}

// above makes room for a line of text.
func (b *rowsBar) above() {
	if b.printed {
		fmt.Fprint(b.w, "\r\x1b[K")
		b.drawn = time.Time{}
	}
}
