package main

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// A shadow policy is put beside the policy, replaced and refused while the server runs,
// which answers as it would without it, and starts without it.
func TestShadowPolicyIsFollowed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "instance")
	start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0").terminate(t)
	setPolicy(t, dir)
	config := filepath.Join(dir, "coatcheck.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	added := strings.Replace(string(text), "\npolicy: policy.yaml\n", "\npolicy: policy.yaml\nshadow_policy: shadow.yaml\nmetrics:\n  listen: 127.0.0.1:0\n", 1)
	if err := os.WriteFile(config, []byte(added), 0o600); err != nil || added == string(text) {
		t.Fatal(err)
	}
	shadow := filepath.Join(dir, "shadow.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(shadow+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(shadow+".new", shadow); err != nil {
			t.Fatal(err)
		}
	}
	check := func() bool {
		command := exec.Command(os.Args[0], "check-config", "--config", config)
		command.Env = append(os.Environ(), runMain+"=1")
		return command.Run() == nil
	}
	if check() {
		t.Error("check-config finds nothing wrong with a shadow policy that there isn't")
	}
	p := start(t, "serve", "--config", config)
	waitForLog(t, p, "there is no shadow policy until its file is mended")
	waitForLog(t, p, "the shadow policy file is refused")
	checkout := p.callers(t, dir).checkout
	tokenize := func() {
		t.Helper()
		if _, err := checkout.Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"}); err != nil {
			t.Error(err)
		}
	}
	metric := func(want string) {
		t.Helper()
		waitForLog(t, p, "serving metrics")
		address := regexp.MustCompile(`serving metrics" address=(\S+)`).FindStringSubmatch(p.stderr.String())[1]
		resp, err := http.Get("http://" + address + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		page, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(page), want+"\n") {
			t.Errorf("the metrics lack %s", want)
		}
	}
	tokenize()
	metric("coatcheck_shadow_policy_refused 1")

	write("version: 1\nrules: []\n")
	waitForLog(t, p, "shadow policy replaced")
	if !check() {
		t.Error("check-config finds something wrong with a shadow policy")
	}
	tokenize()
	metric("coatcheck_shadow_policy_refused 0")
	metric(`coatcheck_shadow_differences_total{action="tokenize",live="allow",shadow="NO_RULE"} 1`)

	write("version: 1\nrules: [oops]\n")
	waitForLog(t, p, "shadow.yaml:2:9: ")
	tokenize()
	metric("coatcheck_shadow_policy_refused 1")
	metric(`coatcheck_shadow_differences_total{action="tokenize",live="allow",shadow="NO_RULE"} 2`)
	if code := p.terminate(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	countIn(t, auditLog(t, dir), map[string]int{`"shadow":"deny NO_RULE"`: 2, `"action":"tokenize"`: 3, `"action":"reload-policy"`: 0})
}
