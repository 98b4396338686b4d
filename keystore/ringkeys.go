package keystore

import (
	"bytes"
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"
	"sync"
)

// ringKeys are the keys of a keyring, each in the only form in which its class
// may be used.
type ringKeys struct {
	data    versions[cipher.AEAD]
	token   versions[*blockKey]
	index   versions[*macKey]
	subject versions[*macKey]
}

// add makes the key usable. It keeps no reference to key, which the caller
// wipes.
func (r *ringKeys) add(class Class, number uint32, key []byte) error {
	if len(key) != KeySize {
		return fmt.Errorf("%w: it is %d bytes long", ErrUnwrap, len(key))
	}
	switch class {
	case Data:
		block, err := aes.NewCipher(key)
		if err != nil {
			return err
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return err
		}
		r.data.add(number, aead)
	case Token:
		block, err := aes.NewCipher(key)
		if err != nil {
			return err
		}
		r.token.add(number, newBlockKey(block))
	case Index:
		r.index.add(number, newMACKey(key))
	case Subject:
		r.subject.add(number, newMACKey(key))
	default:
		return fmt.Errorf("%w: %v", ErrClass, class)
	}
	return nil
}

// macs returns the keys of a class that is for MACs.
func (r *ringKeys) macs(class Class) (versions[*macKey], error) {
	switch class {
	case Index:
		return r.index, nil
	case Subject:
		return r.subject, nil
	}
	return nil, fmt.Errorf("%w: MAC under a %v key", ErrClass, class)
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
	numbers := make([]uint32, len(v))
	for i := range v {
		numbers[i] = v[i].number
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

// blockKey is a token key.
type blockKey struct {
	block cipher.Block

	// buffers holds [16]byte arrays. A block that went to the cipher directly
	// would escape to the heap at every call, since cipher.Block is an
	// interface.
	buffers sync.Pool
}

func newBlockKey(block cipher.Block) *blockKey {
	return &blockKey{block: block, buffers: sync.Pool{New: func() any { return new([16]byte) }}}
}

func (k *blockKey) encrypt(block *[16]byte) {
	buf := k.buffers.Get().(*[16]byte)
	*buf = *block
	k.block.Encrypt(buf[:], buf[:])
	*block = *buf
	k.buffers.Put(buf)
}

func (k *blockKey) decrypt(block *[16]byte) {
	buf := k.buffers.Get().(*[16]byte)
	*buf = *block
	k.block.Decrypt(buf[:], buf[:])
	*block = *buf
	k.buffers.Put(buf)
}

// macKey is an index or a subject key. States that have the key in them
// already are pooled: keying one costs more than most sums.
type macKey struct {
	states sync.Pool
}

type macState struct {
	hash hash.Hash
	buf  []byte // the label with its length before it, then the sum
}

// newMACKey copies the key: a pool that has been emptied needs it again.
func newMACKey(key []byte) *macKey {
	key = bytes.Clone(key)
	return &macKey{states: sync.Pool{New: func() any {
		return &macState{hash: hmac.New(sha256.New, key)}
	}}}
}

func (k *macKey) sum(label string, data []byte) (sum [32]byte) {
	s := k.states.Get().(*macState)
	s.buf = binary.BigEndian.AppendUint32(s.buf[:0], uint32(len(label)))
	s.buf = append(s.buf, label...)
	s.hash.Write(s.buf)
	s.hash.Write(data)
	s.buf = s.hash.Sum(s.buf[:0])
	copy(sum[:], s.buf)
	// Before it lies in the pool, not after: what has seen a value must not
	// outlive the call.
	clear(s.buf)
	s.hash.Reset()
	k.states.Put(s)
	return sum
}
