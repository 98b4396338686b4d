package keystore

import (
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/coatcheck/coatcheck/keystore/internal/wipe"
)

// ringKeys are the keys of a keyring, each in the only form in which its class
// may be used.
//
// A key is wiped once nothing points to it any more, by a cleanup of the
// garbage collector, and no sooner: a call that is under way must not go on
// with zeros for a key. So each method of a key keeps it alive to its end.
type ringKeys struct {
	data  versions[*dataKey]
	token versions[*blockKey]
	fpe   versions[*fpeKey]
	macs  [len(classes) + 1]versions[*macKey] // by class; empty for those above
}

// inMemory counts the keys that are in memory and have not been wiped.
type inMemory struct{ atomic.Int64 }

// watch has a key wiped once it can't be reached any more. wipe must hold no
// reference to the key.
func watch[T any](count *inMemory, key *T, wipe func()) *T {
	count.Add(1)
	runtime.AddCleanup(key, func(wipe func()) {
		wipe()
		count.Add(-1)
	}, wipe)
	return key
}

// add makes the key usable. It keeps no reference to key, which the caller
// wipes. uses counts what a data key seals.
func (r *ringKeys) add(class Class, number uint32, key []byte, uses *atomic.Uint64, count *inMemory) error {
	if len(key) != KeySize {
		return fmt.Errorf("%w: it is %d bytes long", ErrUnwrap, len(key))
	}
	switch class {
	case Data:
		k, err := newDataKey(key, uses, count)
		if err != nil {
			return err
		}
		r.data.add(number, k)
	case Token:
		k, err := newBlockKey(key, count)
		if err != nil {
			return err
		}
		r.token.add(number, k)
	case FPE:
		k, err := newFPEKey(key, count)
		if err != nil {
			return err
		}
		r.fpe.add(number, k)
	case Index, Subject, Audit:
		r.macs[class].add(number, newMACKey(key, count))
	default:
		return fmt.Errorf("%w: %v", ErrClass, class)
	}
	return nil
}

// share takes a key over from another keyring, if that has it.
func (r *ringKeys) share(from *ringKeys, class Class, number uint32) (ok bool) {
	switch {
	case class == Data:
		return r.data.share(from.data, number)
	case class == Token:
		return r.token.share(from.token, number)
	case class == FPE:
		return r.fpe.share(from.fpe, number)
	case int(class) < len(r.macs):
		return r.macs[class].share(from.macs[class], number)
	}
	return false
}

// mac returns the keys of a class that is for MACs.
func (r *ringKeys) mac(class Class) (versions[*macKey], error) {
	if int(class) >= len(r.macs) || len(r.macs[class]) == 0 {
		return nil, fmt.Errorf("%w: MAC under a %v key", ErrClass, class)
	}
	return r.macs[class], nil
}

// numbers returns the versions of a class, the newest first.
func (r *ringKeys) numbers(class Class) []uint32 {
	switch {
	case class == Data:
		return r.data.numbers()
	case class == Token:
		return r.token.numbers()
	case class == FPE:
		return r.fpe.numbers()
	case int(class) < len(r.macs):
		return r.macs[class].numbers()
	}
	return nil
}

// has says whether there is a version of a class. It doesn't allocate.
func (r *ringKeys) has(class Class, number uint32) (ok bool) {
	switch {
	case class == Data:
		_, ok = r.data.find(number)
	case class == Token:
		_, ok = r.token.find(number)
	case class == FPE:
		_, ok = r.fpe.find(number)
	case int(class) < len(r.macs):
		_, ok = r.macs[class].find(number)
	}
	return ok
}

// active returns the newest version of a class, 0 if it has none.
func (r *ringKeys) active(class Class) uint32 {
	switch {
	case class == Data:
		return r.data.newest()
	case class == Token:
		return r.token.newest()
	case class == FPE:
		return r.fpe.newest()
	case int(class) < len(r.macs):
		return r.macs[class].newest()
	}
	return 0
}

// versions are the keys of one class, the newest first. There are few, and
// nearly all work is done under the first.
type versions[T any] []version[T]

type version[T any] struct {
	number uint32
	key    T
}

// active returns the newest version. There is always one.
func (v versions[T]) active() *version[T] { return &v[0] }

// newest returns the number of the newest version, 0 if there is none.
func (v versions[T]) newest() uint32 {
	if len(v) == 0 {
		return 0
	}
	return v[0].number
}

// find returns the key of the version.
func (v versions[T]) find(number uint32) (key T, ok bool) {
	for i := range v {
		if v[i].number == number {
			return v[i].key, true
		}
	}
	return key, false
}

// numbers returns the numbers of the versions, the newest first.
func (v versions[T]) numbers() []uint32 {
	var numbers []uint32
	for i := range v {
		numbers = append(numbers, v[i].number)
	}
	return numbers
}

// add puts a key, of a version that is not there yet, in its place.
func (v *versions[T]) add(number uint32, key T) {
	i, _ := slices.BinarySearchFunc(*v, number, func(have version[T], number uint32) int {
		return cmp.Compare(number, have.number)
	})
	*v = slices.Insert(*v, i, version[T]{number: number, key: key})
}

// share adds the key of a version that another has.
func (v *versions[T]) share(from versions[T], number uint32) bool {
	key, ok := from.find(number)
	if ok {
		v.add(number, key)
	}
	return ok
}

// dataKey is a data key. Keyring.Seal and Open use it directly: they are deep in
// the stack of every call, where a frame less can mean that it needn't grow.
type dataKey struct {
	aead     gcm
	subjects []byte         // the salt from which keys of subjects are derived
	uses     *atomic.Uint64 // shared by all that this process makes of the version
}

func newDataKey(key []byte, uses *atomic.Uint64, count *inMemory) (*dataKey, error) {
	aead, wipeKey, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	subjects := expand(key, subjectsInfo)
	return watch(count, &dataKey{aead: aead, subjects: subjects, uses: uses}, func() {
		wipeKey()
		clear(subjects)
	}), nil
}

// blockKey is a token key.
type blockKey struct {
	block cipher.Block

	// buffers holds [16]byte arrays. A block that went to the cipher directly
	// would escape to the heap at every call, since cipher.Block is an
	// interface.
	buffers sync.Pool
}

func newBlockKey(key []byte, count *inMemory) (*blockKey, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	k := &blockKey{block: block, buffers: sync.Pool{New: func() any { return new([16]byte) }}}
	return watch(count, k, func() { wipe.Value(block) }), nil
}

func (k *blockKey) encrypt(block *[16]byte) {
	buf := k.buffers.Get().(*[16]byte)
	*buf = *block
	k.block.Encrypt(buf[:], buf[:])
	*block = *buf
	k.buffers.Put(buf)
	runtime.KeepAlive(k)
}

func (k *blockKey) decrypt(block *[16]byte) {
	buf := k.buffers.Get().(*[16]byte)
	*buf = *block
	k.block.Decrypt(buf[:], buf[:])
	*block = *buf
	k.buffers.Put(buf)
	runtime.KeepAlive(k)
}
