// Package config reads Coatcheck's configuration file. It is the only package
// that knows the file's form; what it returns says what to open, and package
// service opens it.
//
// Decoding is strict: a key that is not known, twice there or of the wrong
// type is an error with file, line and column, and so is every setting that
// can't be. All errors of a file are reported, not only the first.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v4"

	"github.com/coatcheck/coatcheck/server"
)

// maxFile is the largest configuration file in bytes.
const maxFile = 1 << 20

// Config is a configuration file, checked. Paths are absolute or relative to
// the working directory; in the file they are relative to the file.
type Config struct {
	Version  int                `yaml:"version"`
	Server   Server             `yaml:"server"`
	Store    Store              `yaml:"store"`
	Keystore Keystore           `yaml:"keystore"`
	Audit    Audit              `yaml:"audit"`
	Metrics  Metrics            `yaml:"metrics"`
	Alerts   Alerts             `yaml:"alerts"`
	Policy   string             `yaml:"policy"` // path of the policy file
	Profiles map[string]Profile `yaml:"profiles"`

	// ShadowPolicy is the path of a policy file that is asked beside Policy, to no
	// effect; none if empty.
	ShadowPolicy string `yaml:"shadow_policy"`

	Honeytokens Honeytokens `yaml:"honeytokens"`
}

// Honeytokens says what happens when a honeytoken is used, beside the alert.
type Honeytokens struct {
	SuspendCaller bool `yaml:"suspend_caller"` // until somebody lets it in again
}

// Server says where and how to serve.
type Server struct {
	Listen          string `yaml:"listen"` // host:port
	TLS             TLS    `yaml:"tls"`
	AllowCommonName bool   `yaml:"allow_common_name"`
	Limits          Limits `yaml:"limits"`
}

// TLS names files, of PEM where it doesn't say otherwise.
type TLS struct {
	Certificate string `yaml:"certificate"` // the server's, with its chain
	Key         string `yaml:"key"`
	ClientCA    string `yaml:"client_ca"` // the authorities whose callers are let in
	CRL         Paths  `yaml:"crl"`       // their revocation lists, PEM or DER; none if empty
}

// Paths are one path, or a list of them.
type Paths []string

// UnmarshalYAML reads either.
func (p *Paths) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode && node.ShortTag() == "!!str" {
		*p = Paths{node.Value}
		return nil
	}
	if node.Kind != yaml.SequenceNode {
		return errors.New("must be a path, or a list of paths")
	}
	return node.Load((*[]string)(p))
}

// Limits are those of server.Limits; a field that is left out gets the
// default.
type Limits struct {
	MessageSize int           `yaml:"message_size"`
	HeaderSize  int           `yaml:"header_size"`
	InFlight    int           `yaml:"in_flight"`
	Streams     int           `yaml:"streams_per_connection"`
	Deadline    time.Duration `yaml:"deadline"`
	Commit      time.Duration `yaml:"commit"`
	Handshake   time.Duration `yaml:"handshake"`
	Idle        time.Duration `yaml:"idle"`
	Age         time.Duration `yaml:"connection_age"`
	Keepalive   time.Duration `yaml:"keepalive"`
	MinPing     time.Duration `yaml:"min_ping"`
	Notice      time.Duration `yaml:"drain_notice"`
	Drain       time.Duration `yaml:"drain"`
}

// Store says where records are kept. Exactly one kind is named.
type Store struct {
	Bolt *Bolt `yaml:"bolt"`
}

// Bolt is a store in a bbolt file.
type Bolt struct {
	Directory string `yaml:"directory"` // made if it doesn't exist
}

// Metrics says where metrics are served, over plain HTTP.
type Metrics struct {
	Listen string `yaml:"listen"` // host:port; none if empty
}

// Load reads and checks the file. The error joins an error for each fault,
// each of the form file:line:column: message.
func Load(path string) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	var c Config
	doc, err := decode(path, data, &c)
	if err != nil {
		return nil, err
	}
	if err := c.check(doc); err != nil {
		return nil, err
	}
	c.resolve(filepath.Dir(path))
	return &c, nil
}

// readFile reads a file that may not be larger than maxFile.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, clean("configuration", path, err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("configuration %s: not a regular file of at most %d bytes", path, maxFile)
	}
	data, err := os.ReadFile(path)
	return data, clean("configuration", path, err)
}

// clean makes one short line of an error of the file system.
func clean(what, path string, err error) error {
	var fault *fs.PathError
	if errors.As(err, &fault) {
		return fmt.Errorf("%s %s: %w", what, path, fault.Err)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, path, err)
	}
	return nil
}

// check reports every setting that can't be.
func (c *Config) check(doc document) error {
	var faults []error
	fault := func(message string, path ...string) {
		faults = append(faults, doc.fault(message, path...))
	}
	require := func(value string, path ...string) {
		if value == "" {
			fault(strings.Join(path, ".")+" is required", path...)
		}
	}
	if c.Version != 1 {
		fault("version must be 1", "version")
	}
	require(c.Server.Listen, "server", "listen")
	if err := CheckListen(c.Server.Listen); c.Server.Listen != "" && err != nil {
		fault("listen "+err.Error(), "server", "listen")
	}
	require(c.Server.TLS.Certificate, "server", "tls", "certificate")
	require(c.Server.TLS.Key, "server", "tls", "key")
	require(c.Server.TLS.ClientCA, "server", "tls", "client_ca")
	for i, path := range c.Server.TLS.CRL {
		if path == "" || slices.Contains(c.Server.TLS.CRL[:i], path) {
			fault("crl has an empty path, or one twice", "server", "tls", "crl")
		}
	}
	c.Audit.check(fault, require)
	require(c.Policy, "policy")
	if c.Store.Bolt == nil {
		fault("store.bolt is required: it is the one kind of store", "store", "bolt")
	} else {
		require(c.Store.Bolt.Directory, "store", "bolt", "directory")
	}
	c.Keystore.check(fault, require)
	if err := CheckListen(c.Metrics.Listen); c.Metrics.Listen != "" && err != nil {
		fault("listen "+err.Error(), "metrics", "listen")
	}
	c.Alerts.check(fault, require)
	if len(c.Profiles) == 0 {
		fault("at least one profile is required", "profiles")
	}
	c.checkProfiles(fault)
	c.Server.Limits.check(fault)
	return errors.Join(faults...)
}

// check reports limits that a server can't work with.
func (l Limits) check(fault func(string, ...string)) {
	for _, f := range []struct {
		key            string
		n, least, most int
	}{
		{"message_size", l.MessageSize, 128 << 10, 1 << 30}, // the largest text, and what surrounds it
		{"header_size", l.HeaderSize, 4 << 10, 1 << 20},
		{"in_flight", l.InFlight, 1, 1 << 30},
		{"streams_per_connection", l.Streams, 1, 1 << 30},
	} {
		if f.n != 0 && (f.n < f.least || f.n > f.most) {
			fault(fmt.Sprintf("%s must be from %d to %d", f.key, f.least, f.most), "server", "limits", f.key)
		}
	}
	for _, f := range []struct {
		key string
		d   time.Duration
	}{
		{"deadline", l.Deadline}, {"commit", l.Commit}, {"handshake", l.Handshake}, {"idle", l.Idle},
		{"connection_age", l.Age}, {"keepalive", l.Keepalive}, {"min_ping", l.MinPing},
		{"drain_notice", l.Notice}, {"drain", l.Drain},
	} {
		if f.d != 0 && (f.d < time.Millisecond || f.d > 24*time.Hour) {
			fault(f.key+" must be from 1ms to 24h", "server", "limits", f.key)
		}
	}
}

// CheckListen says whether an address to listen on is of the form host:port.
func CheckListen(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("must be host:port, not %q", address)
	}
	return nil
}

// resolve makes the file's paths relative to its directory.
func (c *Config) resolve(dir string) {
	paths := []*string{&c.Server.TLS.Certificate, &c.Server.TLS.Key, &c.Server.TLS.ClientCA,
		&c.Store.Bolt.Directory, &c.Audit.Directory, &c.Policy}
	for i := range c.Server.TLS.CRL {
		paths = append(paths, &c.Server.TLS.CRL[i])
	}
	for _, p := range slices.Concat(c.Keystore.paths(), []*string{&c.ShadowPolicy}, c.Alerts.paths(), c.Audit.paths()) {
		if *p != "" {
			paths = append(paths, p)
		}
	}
	for _, p := range paths {
		if !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

// ServerLimits returns the limits for package server.
func (c *Config) ServerLimits() server.Limits { return server.Limits(c.Server.Limits) }
