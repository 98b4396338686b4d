package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/coatcheck/coatcheck/server/sink"
)

// AuditSyslog is a receiver of syslog messages.
type AuditSyslog struct {
	Address     string `yaml:"address"`
	CAFile      string `yaml:"ca_file"`
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
	Hostname    string `yaml:"hostname"`
	Facility    *int   `yaml:"facility"`
	Enterprise  int    `yaml:"enterprise"`
	MaxSize     int    `yaml:"max_size"`
	StrictClose bool   `yaml:"strict_close"`
	Begin       Begin  `yaml:"begin"`
}

// AuditOTLP is a collector of OpenTelemetry. Secrets come from files, never from the
// configuration itself.
type AuditOTLP struct {
	URL         string        `yaml:"url"`
	CAFile      string        `yaml:"ca_file"`
	Certificate string        `yaml:"certificate"`
	Key         string        `yaml:"key"`
	HeadersFile string        `yaml:"headers_file"`
	Hostname    string        `yaml:"hostname"`
	MaxSize     int           `yaml:"max_size"`
	Timeout     time.Duration `yaml:"timeout"`
	Begin       Begin         `yaml:"begin"`
}

// Begin is where a sink begins that has no position yet: "first", which is the default, or
// "next".
type Begin string

// AtNext says that it begins with the next event that is committed.
func (b Begin) AtNext() bool { return b == "next" }

// paths returns the settings that are paths.
func (a *Audit) paths() (paths []*string) {
	if s := a.Syslog; s != nil {
		paths = append(paths, &s.CAFile, &s.Certificate, &s.Key)
	}
	if o := a.OTLP; o != nil {
		paths = append(paths, &o.CAFile, &o.Certificate, &o.Key, &o.HeadersFile)
	}
	return paths
}

// checkSinks reports settings of the ways out that can't be.
func (a Audit) checkSinks(fault func(string, ...string), require func(string, ...string)) {
	both := func(name, certificate, key, hostname string, begin Begin) {
		switch {
		case certificate == "" && key != "":
			fault("audit."+name+".certificate is required with key", "audit", name, "key")
		case certificate != "" && key == "":
			fault("audit."+name+".key is required with certificate", "audit", name, "certificate")
		}
		if begin != "" && begin != "first" && begin != "next" {
			fault("begin must be first or next", "audit", name, "begin")
		}
		if len(hostname) > 255 || strings.ContainsFunc(hostname, func(r rune) bool { return r <= ' ' || r > '~' }) {
			fault("hostname must be printable ASCII without spaces, at most 255 bytes", "audit", name, "hostname")
		}
	}
	size := func(n int, name string) {
		if n != 0 && (n < sink.MinMessage || n > sink.MaxMessage) {
			fault(fmt.Sprintf("max_size must be from %d to %d", sink.MinMessage, sink.MaxMessage), "audit", name, "max_size")
		}
	}
	if s := a.Syslog; s != nil {
		require(s.Address, "audit", "syslog", "address")
		if err := sink.CheckAddress(s.Address); s.Address != "" && err != nil {
			fault("address "+err.Error(), "audit", "syslog", "address")
		}
		if (s.CAFile != "" || s.Certificate != "" || s.StrictClose) && !strings.HasPrefix(s.Address, "tls:") {
			fault("ca_file, certificate and strict_close are for tls:// addresses", "audit", "syslog", "address")
		}
		if f := s.Facility; f != nil && (*f < 0 || *f > 23) {
			fault("facility must be from 0 to 23", "audit", "syslog", "facility")
		}
		if s.Enterprise < 0 || s.Enterprise > 1<<32-1 {
			fault("enterprise must be from 1 to 4294967295", "audit", "syslog", "enterprise")
		}
		both("syslog", s.Certificate, s.Key, s.Hostname, s.Begin)
		size(s.MaxSize, "syslog")
	}
	if o := a.OTLP; o != nil {
		require(o.URL, "audit", "otlp", "url")
		if err := sink.CheckURL(o.URL); o.URL != "" && err != nil {
			fault("url "+err.Error(), "audit", "otlp", "url")
		}
		if o.Timeout != 0 && (o.Timeout < 10*time.Millisecond || o.Timeout > 5*time.Minute) {
			fault("timeout must be from 10ms to 5m", "audit", "otlp", "timeout")
		}
		both("otlp", o.Certificate, o.Key, o.Hostname, o.Begin)
		size(o.MaxSize, "otlp")
	}
}
