package keystore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// MaxNamespace is the largest size in bytes of the name of a namespace.
const MaxNamespace = 255

// maxCreated is the last second of the year 9999.
const maxCreated = 253402300799

// WrappedKey is one version of one key, wrapped, as it is stored beside the
// data. It is useless without the Backend that wrapped it.
type WrappedKey struct {
	Namespace string    // 1 to MaxNamespace bytes of UTF-8
	Class     Class     // one of Classes
	Version   uint32    // from 1; the largest of a class is the active one
	Created   time.Time // whole seconds, UTC, from 1970 to 9999
	Wrapped   []byte    // from Backend.Wrap for Label; 1 to MaxWrapped bytes
}

// labelPrefix makes the labels of wrapped keys differ from whatever else may
// be wrapped under the same root key.
const labelPrefix = "coatcheck key v1"

// Label returns the label that binds the wrapped bytes to all else in k, so
// that nobody can pass off a wrapped key as another one:
//
//	"coatcheck key v1" class(1) version(4) created(8) namespace(the rest)
//
// created is in Unix seconds; integers are big endian. Different keys have
// different labels.
func (k WrappedKey) Label() []byte {
	b := make([]byte, 0, len(labelPrefix)+1+4+8+len(k.Namespace))
	b = append(b, labelPrefix...)
	b = append(b, byte(k.Class))
	b = binary.BigEndian.AppendUint32(b, k.Version)
	b = binary.BigEndian.AppendUint64(b, uint64(k.Created.Unix()))
	return append(b, k.Namespace...)
}

// String names the key, as in: data key 2 of namespace "default". It doesn't
// include the wrapped bytes.
func (k WrappedKey) String() string { return k.ID().String() }

// ID returns the name of the key.
func (k WrappedKey) ID() KeyID { return KeyID{k.Namespace, k.Class, k.Version} }

// wrappedKeyFormat is the first byte of the stored form. A later form gets
// another number; this one stays readable.
const wrappedKeyFormat = 1

// wrappedKeyHeader is the size of what stands before the namespace.
const wrappedKeyHeader = 1 + 1 + 4 + 8 + 1

// AppendBinary appends the stored form of k to dst:
//
//	format(1) class(1) version(4) created(8) length(1) namespace wrapped(the rest)
//
// format is 1, created is in Unix seconds, length is that of the namespace;
// integers are big endian. It fails, and returns dst as it was, for a k that
// ParseWrappedKey would refuse.
func (k WrappedKey) AppendBinary(dst []byte) ([]byte, error) {
	if err := k.check(); err != nil {
		return dst, err
	}
	dst = append(dst, wrappedKeyFormat, byte(k.Class))
	dst = binary.BigEndian.AppendUint32(dst, k.Version)
	dst = binary.BigEndian.AppendUint64(dst, uint64(k.Created.Unix()))
	dst = append(dst, byte(len(k.Namespace)))
	dst = append(dst, k.Namespace...)
	return append(dst, k.Wrapped...), nil
}

// ParseWrappedKey reads the stored form of a wrapped key. The result shares no
// memory with b. What it accepts, AppendBinary gives back byte for byte; all
// else is ErrDamaged.
func ParseWrappedKey(b []byte) (WrappedKey, error) {
	if len(b) < wrappedKeyHeader || len(b) < wrappedKeyHeader+int(b[wrappedKeyHeader-1]) {
		return WrappedKey{}, fmt.Errorf("%w: wrapped key of %d bytes is cut short", ErrDamaged, len(b))
	}
	if b[0] != wrappedKeyFormat {
		return WrappedKey{}, fmt.Errorf("%w: wrapped key of unknown format %d", ErrDamaged, b[0])
	}
	created := int64(binary.BigEndian.Uint64(b[6:14])) // check refuses what overflows
	name, wrapped := b[wrappedKeyHeader:], b[wrappedKeyHeader+int(b[14]):]
	k := WrappedKey{
		Namespace: string(name[:b[14]]),
		Class:     Class(b[1]),
		Version:   binary.BigEndian.Uint32(b[2:6]),
		Created:   time.Unix(created, 0).UTC(),
		Wrapped:   append([]byte(nil), wrapped...),
	}
	if err := k.check(); err != nil {
		return WrappedKey{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return k, nil
}

// check refuses a k that has no stored form.
func (k WrappedKey) check() error {
	if err := checkNamespace(k.Namespace); err != nil {
		return err
	}
	if !k.Class.valid() {
		return fmt.Errorf("keystore: wrapped key of unknown %v", k.Class)
	}
	if k.Version == 0 {
		return errors.New("keystore: wrapped key of version 0")
	}
	if s := k.Created.Unix(); s < 0 || s > maxCreated || k.Created.Nanosecond() != 0 {
		return errors.New("keystore: wrapped key created at no whole second from 1970 to 9999")
	}
	if len(k.Wrapped) == 0 || len(k.Wrapped) > MaxWrapped {
		return fmt.Errorf("keystore: wrapped key of %d bytes", len(k.Wrapped))
	}
	return nil
}

func checkNamespace(name string) error {
	if name == "" || len(name) > MaxNamespace || !utf8.ValidString(name) {
		return fmt.Errorf("keystore: the name of a namespace is 1 to %d bytes of UTF-8", MaxNamespace)
	}
	return nil
}
