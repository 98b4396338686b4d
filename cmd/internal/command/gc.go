package command

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// Bounds of how much garbage a server may have beside what is in use. In general that
// is some MiB, whatever the store holds, so that with the usual 100 percent it would be
// collected dozens of times a second; where more is in use, garbage is not to be
// several times as much.
const (
	leastPercent = 100
	mostPercent  = 400
	mostGarbage  = 96 << 20 // bytes, as long as that is more than leastPercent
)

// tuneGC sets how often garbage is collected, for the whole process, now and after each
// collection. The variable GOGC takes its place.
func tuneGC(getenv func(string) string) {
	if getenv("GOGC") == "" {
		afterGC()
	}
}

// afterGC sets the bound by what is in use, and sees to it that this is done again.
func afterGC() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	debug.SetGCPercent(gcPercent(live[0].Value.Uint64()))
	sentinel := new([16]byte) // not so small that it would share its memory with others
	runtime.AddCleanup(sentinel, func(int) { afterGC() }, 0)
}

// gcPercent returns how much garbage there may be beside so much that is in use.
func gcPercent(live uint64) int {
	return int(min(max(mostGarbage*100/max(live, 1), leastPercent), mostPercent))
}
