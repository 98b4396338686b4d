package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/server/audit"
)

const good = `version: 1
server:
  listen: 127.0.0.1:7443
  tls: {certificate: server.crt, key: /etc/keys/server.key, client_ca: ca.crt}
  limits: {deadline: 5s, in_flight: 100}
store:
  bolt: {directory: data}
keystore:
  local: {root_key: root.key}
audit: {directory: audit}
policy: policy.yaml
profiles:
  card: {type: card-number, purposes: [charge]}
  note: {type: text}
`

func load(t *testing.T, text string) (*Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path)
	if err != nil {
		t.Logf("%v", err)
	}
	return c, err
}

func TestLoad(t *testing.T) {
	c, err := load(t, good)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(c.Policy) != "policy.yaml" || !filepath.IsAbs(c.Policy) || c.Server.TLS.Key != "/etc/keys/server.key" {
		t.Errorf("paths: %q, %q", c.Policy, c.Server.TLS.Key)
	}
	limits := c.ServerLimits()
	if limits.Deadline != 5*time.Second || limits.InFlight != 100 || limits.Drain != 0 {
		t.Errorf("limits: %+v", limits)
	}
	if p := c.TokenizerProfiles(); len(p) != 2 || p[0].Name != "card" || p[0].Purposes[0] != "charge" || p[1].Name != "note" {
		t.Errorf("profiles: %+v", p)
	}
}

func TestLoadRevocationLists(t *testing.T) {
	for text, want := range map[string][]string{"a.crl": {"a.crl"}, "[a.crl, /etc/b.crl]": {"a.crl", "/etc/b.crl"}, "[]": nil} {
		c, err := load(t, strings.Replace(good, "client_ca: ca.crt", "client_ca: ca.crt, crl: "+text, 1))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, path := range c.Server.TLS.CRL {
			if !filepath.IsAbs(path) {
				t.Errorf("%s: %q is relative", text, path)
			}
			if path != "/etc/b.crl" {
				path = filepath.Base(path)
			}
			got = append(got, path)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestLoadVault(t *testing.T) {
	c, err := load(t, strings.Replace(good, "local: {root_key: root.key}", `vault:
    address: [https://a:8200, https://b:8200]
    ca_file: ca.pem
    retries: 0
    auth:
      app_role: {role_id: r, secret_id: {file: secret}}
  max_offline: 0s
  lease: 5s
  reseal_rate: 0
  rotation:
    data: {age: 2160h}
    token: {age: 8760h}`, 1))
	if err != nil {
		t.Fatal(err)
	}
	v := c.Keystore.Vault.Config(nil)
	if len(v.Address) != 2 || !filepath.IsAbs(v.CAFile) || !filepath.IsAbs(v.Auth.AppRole.SecretID.File) || v.Retries != -1 {
		t.Errorf("Vault: %+v", v)
	}
	if o := c.Keystore.Options(); o.MaxOffline != 0 || o.Lease != 5*time.Second {
		t.Errorf("options: %+v", o)
	}
	keep := c.Keystore.Upkeep()
	data, token := keep.Rotation[keystore.Data], keep.Rotation[keystore.Token]
	if keep.Rate != 0 || data.Age != 90*24*time.Hour || data.Uses != keystore.MaxUses/2 || token.Age != 365*24*time.Hour || len(keep.Rotation) != 2 {
		t.Errorf("upkeep: %+v", keep)
	}
}

func TestLoadAlerts(t *testing.T) {
	c, err := load(t, good+`alerts:
  command: {argv: [bin/page, --now], timeout: 3s}
  webhook: {url: "https://pager.example/hook", ca_file: ca.pem, token_file: token, secret_file: /etc/secret}
  burst: {factor: 5}
`)
	if err != nil {
		t.Fatal(err)
	}
	a := c.Alerts
	if !filepath.IsAbs(a.Command.Argv[0]) || a.Command.Argv[1] != "--now" || a.Command.Timeout != 3*time.Second {
		t.Errorf("command: %+v", a.Command)
	}
	if !filepath.IsAbs(a.Webhook.CAFile) || !filepath.IsAbs(a.Webhook.TokenFile) || a.Webhook.SecretFile != "/etc/secret" {
		t.Errorf("webhook: %+v", a.Webhook)
	}
	if rule, on := a.Burst.Rule(); rule.Factor != 5 || rule.Least != 100 || !on {
		t.Errorf("burst: %+v, %v", rule, on)
	}
	if c, err = load(t, good+"alerts: {burst: {off: true}, webhook: {url: 'http://[::1]:1/', secret_file: s}}"); err != nil {
		t.Fatal(err)
	}
	if _, on := c.Alerts.Burst.Rule(); on || c.Alerts.Webhook.CAFile != "" {
		t.Errorf("alerts: %+v", c.Alerts)
	}
}

func TestLoadSinks(t *testing.T) {
	c, err := load(t, strings.Replace(good, "audit: {directory: audit}", `audit:
  directory: audit
  syslog: {address: "tls://siem.example:6514", ca_file: ca.pem, certificate: c.pem, key: /etc/key, facility: 0, strict_close: true, begin: next}
  otlp: {url: "https://collector.example:4318/v1/logs", headers_file: headers, max_size: 1048576, timeout: 5s}`, 1))
	if err != nil {
		t.Fatal(err)
	}
	s, o := c.Audit.Syslog, c.Audit.OTLP
	if !filepath.IsAbs(s.CAFile) || !filepath.IsAbs(s.Certificate) || s.Key != "/etc/key" || *s.Facility != 0 || !s.StrictClose || !s.Begin.AtNext() {
		t.Errorf("syslog: %+v", s)
	}
	if !filepath.IsAbs(o.HeadersFile) || o.CAFile != "" || o.MaxSize != 1<<20 || o.Timeout != 5*time.Second || o.Begin.AtNext() {
		t.Errorf("otlp: %+v", o)
	}
}

func TestKeystoreDefaults(t *testing.T) {
	c, err := load(t, good)
	if err != nil {
		t.Fatal(err)
	}
	if o := c.Keystore.Options(); o.MaxOffline != 15*time.Minute {
		t.Errorf("options: %+v", o)
	}
	if keep := c.Keystore.Upkeep(); keep.Rate != 1000 || keep.Rotation[keystore.Data].Uses != keystore.MaxUses/2 || len(keep.Rotation) != 1 {
		t.Errorf("upkeep: %+v", keep)
	}
	if c.Keystore.Wait() != 10*time.Second {
		t.Errorf("wait: %v", c.Keystore.Wait())
	}
}

// Only who takes bytes in needs messages in which the largest of them fit.
func TestMessagesForBytes(t *testing.T) {
	small := strings.Replace(good, "in_flight: 100", "message_size: 1000000", 1)
	if _, err := load(t, small); err != nil {
		t.Errorf("without bytes: %v", err)
	}
	_, err := load(t, strings.Replace(small, "type: text", "type: bytes", 1))
	if err == nil || !strings.Contains(err.Error(), `:5:26: message_size must be at least 2097152, since profile "note" is of the type bytes`) {
		t.Errorf("with bytes: %v", err)
	}
}

func TestFaults(t *testing.T) {
	for _, row := range []struct {
		name, old, with string
		want            []string // each with its line and column
	}{
		{"unknown key", "listen:", "lisen:", []string{`:3:3: unknown key "lisen"`}},
		{"unknown key in a profile", "type: text", "typ: text", []string{`:14:10: unknown key "typ"`}},
		{"key twice", "audit: {", "audit: {directory: a, ", []string{`:10:23: mapping key "directory" already defined at line 10`}},
		{"wrong type", "in_flight: 100", "in_flight: many", []string{`:5:37: "many" is not a whole number`}},
		{"a number for a duration", "deadline: 5s", "deadline: 5", []string{`:5:22: "5" is not a duration, such as 15m or 720h`}},
		{"not YAML", "version: 1", "version: [", []string{":3:9: "}},
		{"version", "version: 1", "version: 2", []string{":1:1: version must be 1"}},
		{"missing", "listen: 127.0.0.1:7443", "allow_common_name: true", []string{":2:1: server.listen is required"}},
		{"address without a port", "listen: 127.0.0.1:7443", "listen: localhost", []string{`:3:3: listen must be host:port, not "localhost"`}},
		{"revocation lists that are none", "server.crt", "server.crt, crl: {a: b}", []string{":4:39: must be a path, or a list of paths"}},
		{"a revocation list twice", "server.crt", "server.crt, crl: [a, b, a]", []string{":4:34: crl has an empty path, or one twice"}},
		{"no revocation list", "server.crt", `server.crt, crl: ""`, []string{":4:34: crl has an empty path, or one twice"}},
		{"no store", "bolt: {directory: data}", "bolt:", []string{":7:3: store.bolt is required"}},
		{"no keystore", "local: {root_key: root.key}", "local:", []string{":8:1: keystore.vault or keystore.local is required"}},
		{"two keystores", "local: {root_key: root.key}", "vault: {address: [https://v:8200], auth: {token: {env: T}}}\n  local: {root_key: root.key}", []string{":9:3: vault and local are both given"}},
		{"lease too short", "local: {root_key: root.key}", "local: {root_key: root.key}\n  lease: 1ms", []string{":10:3: lease must be from 100ms to 1h"}},
		{"offline below zero", "local: {root_key: root.key}", "local: {root_key: root.key}\n  max_offline: -1s", []string{":10:3: max_offline must be from 0"}},
		{"reseal rate", "local: {root_key: root.key}", "local: {root_key: root.key}\n  reseal_rate: -1", []string{":10:3: reseal_rate must be from 0"}},
		{"segments too small", "{directory: audit}", "{directory: audit, segment_size: 1000}", []string{":10:27: segment_size must be from 1048576 to"}},
		{"segments too short", "{directory: audit}", "{directory: audit, segment_age: 1s}", []string{":10:27: segment_age must be from 1m to"}},
		{"audit kept too short", "{directory: audit}", "{directory: audit, retention: 8759h}", []string{":10:27: retention is less than a year"}},
		{"audit kept for nothing", "{directory: audit}", "{directory: audit, retention: 1m, retention_below_a_year: true}", []string{":10:27: retention must be from 1h"}},
		{"rotation of no class", "local: {root_key: root.key}", "local: {root_key: root.key}\n  rotation: {dat: {age: 1h}}", []string{`:10:14: "dat" is none of [data token index subject audit fpe]`}},
		{"rotation by uses of a token key", "local: {root_key: root.key}", "local: {root_key: root.key}\n  rotation: {token: {uses: 5}}", []string{":10:22: uses are counted for data keys only"}},
		{"too many uses", "local: {root_key: root.key}", "local: {root_key: root.key}\n  rotation: {data: {uses: 4294967296}}", []string{":10:21: uses must be from 1048576 to 4278190080"}},
		{"too few uses", "local: {root_key: root.key}", "local: {root_key: root.key}\n  rotation: {data: {uses: 1}}", []string{":10:21: uses must be from"}},
		{"rotation every second", "local: {root_key: root.key}", "local: {root_key: root.key}\n  rotation: {data: {age: 1s}}", []string{":10:21: age must be from 1h"}},
		{"metrics", "policy: policy.yaml", "policy: policy.yaml\nmetrics: {listen: 9090}", []string{`:12:11: listen must be host:port, not "9090"`}},
		{"a command without argv", "policy: policy.yaml", "policy: policy.yaml\nalerts: {command: {timeout: 1s}}", []string{":12:10: alerts.command.argv is required"}},
		{"a command line", "policy: policy.yaml", "policy: policy.yaml\nalerts: {command: {argv: page --now}}", []string{`:12:26: "page --now" is not a list, as in [one, two]`}},
		{"a command that takes too long", "policy: policy.yaml", "policy: policy.yaml\nalerts: {command: {argv: [page], timeout: 2m}}", []string{":12:34: timeout must be from 10ms to 1m"}},
		{"an empty webhook", "policy: policy.yaml", "policy: policy.yaml\nalerts: {webhook: {}}", []string{":12:10: alerts.webhook.url is required", "alerts.webhook.secret_file is required"}},
		{"a webhook in the clear", "policy: policy.yaml", "policy: policy.yaml\nalerts: {webhook: {url: 'http://pager.example/', secret_file: s}}", []string{":12:20: url is plain HTTP to another host"}},
		{"a secret in the webhook", "policy: policy.yaml", "policy: policy.yaml\nalerts: {webhook: {secret: x}}", []string{`:12:20: unknown key "secret"`}},
		{"an empty syslog", "audit: {", "audit: {syslog: {}, ", []string{"audit.syslog.address is required"}},
		{"syslog in the clear", "audit: {", "audit: {syslog: {address: 'tcp://siem.example:514'}, ", []string{"address is not encrypted and of another host"}},
		{"syslog over UDP", "audit: {", "audit: {syslog: {address: 'udp://127.0.0.1:514'}, ", []string{"address is not of the form tls://HOST:PORT"}},
		{"certificates without TLS", "audit: {", "audit: {syslog: {address: 'tcp://127.0.0.1:514', ca_file: ca.pem}, ", []string{"ca_file, certificate and strict_close are for tls:// addresses"}},
		{"a certificate without key", "audit: {", "audit: {syslog: {address: 'tls://h:1', certificate: c.pem}, ", []string{"audit.syslog.key is required with certificate"}},
		{"what syslog hasn't", "audit: {", "audit: {syslog: {address: 'tls://h:1', facility: 24, enterprise: -1, max_size: 100, hostname: a b, begin: now}, ", []string{"facility must be from 0 to 23", "enterprise must be from 1", "max_size must be from 2048 to 1048576", "hostname must be printable ASCII", "begin must be first or next"}},
		{"an empty otlp", "audit: {", "audit: {otlp: {}, ", []string{"audit.otlp.url is required"}},
		{"otlp in the clear", "audit: {", "audit: {otlp: {url: 'http://collector.example:4318/v1/logs'}, ", []string{"url is not encrypted and of another host"}},
		{"otlp without its path", "audit: {", "audit: {otlp: {url: 'https://collector.example:4318', key: k, timeout: 1h}, ", []string{"url has no path", "audit.otlp.certificate is required with key", "timeout must be from 10ms to 5m"}},
		{"a secret in otlp", "audit: {", "audit: {otlp: {headers: x}, ", []string{"unknown key \"headers\""}},
		{"a burst of anything", "policy: policy.yaml", "policy: policy.yaml\nalerts: {burst: {factor: 1, least: -1}}", []string{":12:18: factor must be from 2 to 1000", ":12:29: least must be from 1"}},
		{"Vault in the clear", "local: {root_key: root.key}", "vault: {address: [http://vault.example:8200], auth: {token: {env: T}}}", []string{":9:11: address[0] "}},
		{"Vault without an address", "local: {root_key: root.key}", "vault: {auth: {token: {env: T}}}", []string{":9:3: address "}},
		{"Vault without auth", "local: {root_key: root.key}", "vault: {address: [https://v:8200]}", []string{":9:3: auth names 0 methods"}},
		{"Vault with two auths", "local: {root_key: root.key}", "vault: {address: [https://v:8200], auth: {token: {env: T}, kubernetes: {role: r}}}", []string{":9:38: auth names 2 methods"}},
		{"a secret in the configuration", "local: {root_key: root.key}", "vault: {address: [https://v:8200], auth: {token: {value: hvs.x}}}", []string{`unknown key "value"`}},
		{"no secret id", "local: {root_key: root.key}", "vault: {address: [https://v:8200], auth: {app_role: {role_id: r}}}", []string{":9:45: auth.app_role.secret_id names neither"}},
		{"Vault timeout", "local: {root_key: root.key}", "vault: {address: [https://v:8200], timeout: 1h, auth: {token: {env: T}}}", []string{":9:38: timeout must be"}},
		{"two passphrases", "root_key: root.key", "root_key: r, passphrase_env: E, passphrase_file: f", []string{":9:24: passphrase_env and passphrase_file are both given"}},
		{"limit too small", "in_flight: 100", "message_size: 1000", []string{":5:26: message_size must be from 131072"}},
		{"limit too long", "deadline: 5s", "deadline: 48h", []string{":5:12: deadline must be from 1ms to 24h"}},
		{"limit below zero", "deadline: 5s", "deadline: -1s", []string{":5:12: deadline must be"}},
		{"data type", "type: text", "type: txt", []string{`:14:10: profile "note": type "txt" is none of`}},
		{"fpe over too few", "type: text", "type: card-number, mode: fpe, format: digits, keep_first: 6, keep_last: 4", []string{`:14:56: profile "note": keep_first leaves 100 values of 13 digits and 100000 of 16 digits, fewer than the 1000000 that NIST SP 800-38G Rev 1 demands`}},
		{"fpe without a format", "type: text", "type: card-number, mode: fpe", []string{`profile "note": format is required in the mode fpe`}},
		{"an option of another format", "type: text", "type: text, keep_last: 4", []string{`:14:22: profile "note": keep_last has no meaning for the format opaque`}},
		{"a shape of another type", "type: text", "type: text, format: email", []string{`:14:22: profile "note": format email`}},
		{"a verification value for ever", "type: text", "type: card-verification, max_uses: 1", []string{`profile "note": ttl must be from 1s to 15m0s`}},
		{"a verification value twice", "type: text", "type: card-verification, ttl: 15m", []string{`profile "note": max_uses must be 1`}},
		{"passport without a pattern", "type: text", "type: passport", []string{`profile "note": pattern`}},
		{"a bad token pattern", "type: text", `type: text, format: template, token_pattern: "[A-Z"`, []string{`:14:40: profile "note": token_pattern at offset 0`}},
		{"ttl beyond retention", "type: text", "type: text, ttl: 2h, retention: 1h", []string{`:14:22: profile "note": ttl is longer than the retention`}},
		{"subject", "type: text", "type: text, subject: maybe", []string{`:14:22: profile "note": subject "maybe" is none of`}},
		{"lookup of nothing", "type: text", "type: text, mode: one-way, lookup: true", []string{`profile "note": lookup has no meaning in the mode one-way`}},
		{"profile name", "note:", "Note:", []string{`profile "Note": name must be`}},
		{"purpose", "[charge]", "[Charge!]", []string{`:13:29: profile "card": purposes "Charge!" is not of the form`}},
		{"two documents", "policy: policy.yaml", "---\npolicy: policy.yaml", []string{": a second document begins"}},
		{"several faults", "audit: {directory: audit}\npolicy: policy.yaml", "", []string{"audit.directory is required", "policy is required"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if !strings.Contains(good, row.old) {
				t.Fatalf("no %q in the good file", row.old)
			}
			_, err := load(t, strings.Replace(good, row.old, row.with, 1))
			if err == nil {
				t.Fatal("is accepted")
			}
			for _, want := range row.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.Contains(line, "c.yaml:") {
					t.Errorf("a fault without a place: %s", line)
				}
			}
		})
	}
}

func TestFilesThatAreNoConfiguration(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big.yaml")
	if err := os.WriteFile(big, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"missing": filepath.Join(dir, "none"), "a directory": dir, "too big": big} {
		if _, err := Load(path); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAuditOptions(t *testing.T) {
	for text, want := range map[string]audit.SegmentOptions{
		"{directory: audit}": {},
		"{directory: audit, segment_size: 1048576, segment_age: 1h, compress: false, retention: 8760h}": {Size: 1 << 20, Age: time.Hour, Plain: true, Retention: year},
		"{directory: audit, compress: true, retention: 720h, retention_below_a_year: true}":             {Retention: 720 * time.Hour},
	} {
		c, err := load(t, strings.Replace(good, "{directory: audit}", text, 1))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Audit.Options(); got != want {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
}
