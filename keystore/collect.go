package keystore

import (
	"runtime"
	"runtime/debug"
)

// collect has keys that nobody points to found, and so wiped, now rather than
// whenever memory runs short.
func (s *Keystore) collect() {
	runtime.GC() // queues the cleanups, which wipe
	overwriteFreed()
	debug.FreeOSMemory() // gives what is free as a whole back to the system
}

// overwriteFreed has the allocator hand out, and so clear, memory that was freed:
// buffers of connections to the backend, which have answers of it in them, are
// not ours to wipe. It is no guarantee, since the allocator goes its own ways.
func overwriteFreed() {
	const each = 1 << 20 // bytes of every size
	var held [][]byte
	for size := 64; size <= 32<<10; size += size / 8 {
		for range each / size {
			held = append(held, make([]byte, size))
		}
	}
	runtime.KeepAlive(held)
}
