package journal

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// sector is what a disk writes as a whole.
const sector = 512

// memDisk is a directory in memory that tells what is durable from what is not, and
// fails when it is told to. Files that were renamed, made or removed are so for good
// once the directory is synced.
type memDisk struct {
	mu      sync.Mutex
	names   map[string]*memFile
	durable map[string]*memFile // as the disk has them
	left    int                 // operations until all fail; negative: never
	err     error               // with which they do
	full    bool                // there is no room for another file
	ops     int                 // that were done
}

func newMemDisk() *memDisk {
	return &memDisk{names: make(map[string]*memFile), durable: make(map[string]*memFile), left: -1}
}

// step counts an operation. The lock is held.
func (d *memDisk) step() error {
	d.ops++
	if d.left == 0 {
		return d.err
	}
	if d.left > 0 {
		d.left--
	}
	return nil
}

// crash returns what is on the disk after the machine has stopped: of what was not
// synced any part.
func (d *memDisk) crash(random *rand.Rand) *memDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	after := newMemDisk()
	names := d.durable
	if random.IntN(2) == 0 {
		names = d.names
	}
	for name, f := range names {
		g := &memFile{disk: after, durable: slices.Clone(f.durable)}
		for _, w := range f.pending {
			for at := 0; at < len(w.data); at += sector {
				if random.IntN(2) == 0 {
					g.durable = put(g.durable, w.data[at:min(at+sector, len(w.data))], w.offset+int64(at))
				}
			}
		}
		g.content = slices.Clone(g.durable)
		after.names[name], after.durable[name] = g, g
	}
	return after
}

// memFile is a file of a memDisk.
type memFile struct {
	disk             *memDisk
	content, durable []byte
	pending          []memWrite
}

type memWrite struct {
	data   []byte
	offset int64
}

func put(content, p []byte, offset int64) []byte {
	if end := offset + int64(len(p)); end > int64(len(content)) {
		content = append(content, make([]byte, end-int64(len(content)))...)
	}
	copy(content[offset:], p)
	return content
}

func (f *memFile) ReadAt(p []byte, offset int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if offset > int64(len(f.content)) {
		return 0, io.EOF
	}
	n := copy(p, f.content[offset:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, offset int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	err := f.disk.step()
	// What fails may have been done, in part or whole.
	f.content = put(f.content, p, offset)
	f.pending = append(f.pending, memWrite{slices.Clone(p), offset})
	return len(p), err
}

func (f *memFile) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.step(); err != nil {
		return err
	}
	for _, w := range f.pending {
		f.durable = put(f.durable, w.data, w.offset)
	}
	f.pending = nil
	return nil
}

func (f *memFile) Close() error { return nil }

func (d *memDisk) list(prefix string) (names []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name := range d.names {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (d *memDisk) open(name string) (file, int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.names[name]
	if !ok {
		return nil, 0, fs.ErrNotExist
	}
	return f, int64(len(f.content)), nil
}

func (d *memDisk) create(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return nil, &fs.PathError{Op: "write", Path: name, Err: syscall.ENOSPC}
	}
	f := &memFile{disk: d}
	if err := d.step(); err != nil {
		return nil, err
	}
	d.names[name] = f
	return f, nil
}

func (d *memDisk) rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	d.names[to] = d.names[from]
	delete(d.names, from)
	return nil
}

func (d *memDisk) remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	delete(d.names, name)
	return nil
}

func (d *memDisk) sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	clear(d.durable)
	for name, f := range d.names {
		d.durable[name] = f
	}
	return nil
}

var errDisk = errors.New("the disk fails")
