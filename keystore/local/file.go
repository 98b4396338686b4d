package local

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/coatcheck/coatcheck/keystore"
)

// Sentinels of Create and Open. None of them, and no error that wraps one,
// holds anything of a key or a passphrase.
var (
	// ErrPassphraseRequired says that a file is encrypted and no passphrase
	// was given, or that a passphrase was given and is empty.
	ErrPassphraseRequired = errors.New("a passphrase is required")

	// ErrPassphrase says that the passphrase is wrong or the encrypted file
	// has been altered. Which of the two nobody can know.
	ErrPassphrase = errors.New("wrong passphrase, or the file has been altered")

	// ErrNotEncrypted says that a passphrase was given for a file that is not
	// encrypted. Who gives one believes the file to be protected.
	ErrNotEncrypted = errors.New("a passphrase was given, but the file is not encrypted")

	// ErrPermissions says that others than the owner have access to the file.
	ErrPermissions = errors.New("others than the owner have access")

	// ErrFormat says that the file is no root key file, or is damaged, or asks
	// for more memory or time than we grant.
	ErrFormat = errors.New("not a root key file")
)

// Create makes a new random root key and writes it to a new file at path with
// mode 0600, whatever the umask, encrypted under the passphrase unless that is
// nil. It never replaces a file.
//
// The file is there whole, and durable, or not at all: it is written under
// another name beside path, synced, and then linked to path, so the file
// system has to know hard links. A crash may leave the other file, which
// nothing refers to: .rootkey-* in the same directory.
//
// Errors: ErrPassphraseRequired for an empty passphrase that is not nil,
// fs.ErrExist if there is anything at path, fs.ErrNotExist if its directory is
// missing, or another error of the file system.
func Create(path string, passphrase []byte) error {
	if passphrase != nil && len(passphrase) == 0 {
		return fmt.Errorf("local: create root key file %s: %w: the one given is empty", path, ErrPassphraseRequired)
	}
	root := make([]byte, keystore.KeySize)
	defer clear(root)
	var salt [16]byte
	if _, err := rand.Read(root); err != nil {
		return fmt.Errorf("local: read random bytes: %w", err)
	}
	if _, err := rand.Read(salt[:]); err != nil {
		return fmt.Errorf("local: read random bytes: %w", err)
	}
	file, err := encodeRootKey(root, passphrase, defaultParams(salt))
	if err != nil {
		return fmt.Errorf("local: create root key file %s: %w", path, err)
	}
	defer clear(file)
	if err := writeNew(path, file); err != nil {
		return fmt.Errorf("local: create root key file %s: %w", path, err)
	}
	return nil
}

// writeNew writes a file as Create promises.
func writeNew(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".rootkey-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if err := writeSynced(f, data); err != nil {
		return err
	}
	// Unlike a rename, a link doesn't replace what is there.
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		// Nobody has the key yet. A file that a power cut may take away must
		// not be used.
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// writeSynced fills and closes a file; it is durable afterwards but for its
// name.
func writeSynced(f *os.File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(0o600) // on the open file: the umask has no say
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Open reads the root key file at path and returns the backend for it. The
// passphrase is needed for an encrypted file and refused for a plain one,
// where it has to be nil.
//
// Symbolic links are followed, since that is how Kubernetes mounts secrets. It
// is the file that has been opened, and not the path, that must be a regular
// file to which neither group nor others have access.
//
// Errors: ErrPassphraseRequired, ErrPassphrase, ErrNotEncrypted,
// ErrPermissions, ErrFormat, or one of the file system, such as
// fs.ErrNotExist.
func Open(path string, passphrase []byte) (*Backend, error) {
	backend, err := open(path, passphrase)
	if err != nil {
		return nil, fmt.Errorf("local: root key file %s: %w", path, err)
	}
	return backend, nil
}

func open(path string, passphrase []byte) (*Backend, error) {
	file, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	defer clear(file)
	root, err := decodeRootKey(file, passphrase)
	if err != nil {
		return nil, err
	}
	defer clear(root)
	return newBackend(root)
}

// readPrivate reads a small regular file that only its owner may access.
func readPrivate(path string) (data []byte, err error) {
	// Without O_NONBLOCK the open of a named pipe would wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: it is not a regular file", ErrFormat)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%w: its mode is %04o; it must be 0600 or 0400", ErrPermissions, mode)
	}
	data, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		clear(data)
		return nil, fmt.Errorf("%w: it is larger than %d bytes", ErrFormat, maxFile)
	}
	return data, nil
}
