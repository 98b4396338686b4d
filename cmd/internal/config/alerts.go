package config

import (
	"fmt"
	"time"

	"github.com/coatcheck/coatcheck/server/alert"
	"github.com/coatcheck/coatcheck/server/burst"
)

// Alerts says where alerts go, beside the server's log, and what a burst is.
type Alerts struct {
	Command *AlertCommand `yaml:"command"`
	Webhook *AlertWebhook `yaml:"webhook"`
	Burst   Burst         `yaml:"burst"`
}

// AlertCommand is a program that is run for each alert.
type AlertCommand struct {
	Argv    []string      `yaml:"argv"` // the first is a path
	Timeout time.Duration `yaml:"timeout"`
}

// AlertWebhook is a URL that each alert is sent to. Secrets come from files, never
// from the configuration itself.
type AlertWebhook struct {
	URL        string        `yaml:"url"`
	CAFile     string        `yaml:"ca_file"`
	TokenFile  string        `yaml:"token_file"`
	SecretFile string        `yaml:"secret_file"`
	Timeout    time.Duration `yaml:"timeout"`
}

// Burst says when far more is revealed to a caller than usual.
type Burst struct {
	Off    bool `yaml:"off"`
	Factor int  `yaml:"factor"`
	Least  int  `yaml:"least"`
}

// Rule returns what a burst is, and false if none is to be noticed.
func (b Burst) Rule() (burst.Rule, bool) {
	rule := burst.DefaultRule
	if b.Factor != 0 {
		rule.Factor = b.Factor
	}
	if b.Least != 0 {
		rule.Least = b.Least
	}
	return rule, !b.Off
}

// paths returns the settings that are paths.
func (a *Alerts) paths() (paths []*string) {
	if a.Command != nil {
		paths = append(paths, &a.Command.Argv[0])
	}
	if w := a.Webhook; w != nil {
		paths = append(paths, &w.CAFile, &w.TokenFile, &w.SecretFile)
	}
	return paths
}

// check reports settings that can't be.
func (a Alerts) check(fault func(string, ...string), require func(string, ...string)) {
	timeout := func(d time.Duration, sink string) {
		if d != 0 && (d < 10*time.Millisecond || d > time.Minute) {
			fault("timeout must be from 10ms to 1m", "alerts", sink, "timeout")
		}
	}
	if c := a.Command; c != nil {
		if len(c.Argv) == 0 || c.Argv[0] == "" {
			fault("alerts.command.argv is required", "alerts", "command", "argv")
		}
		timeout(c.Timeout, "command")
	}
	if w := a.Webhook; w != nil {
		require(w.URL, "alerts", "webhook", "url")
		if err := alert.CheckURL(w.URL); w.URL != "" && err != nil {
			fault("url "+err.Error(), "alerts", "webhook", "url")
		}
		require(w.SecretFile, "alerts", "webhook", "secret_file")
		timeout(w.Timeout, "webhook")
	}
	for _, f := range []struct {
		key            string
		n, least, most int
	}{
		{"factor", a.Burst.Factor, 2, 1000},
		{"least", a.Burst.Least, 1, 1_000_000_000},
	} {
		if f.n != 0 && (f.n < f.least || f.n > f.most) {
			fault(fmt.Sprintf("%s must be from %d to %d", f.key, f.least, f.most), "alerts", "burst", f.key)
		}
	}
}
