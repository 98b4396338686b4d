package vault

import (
	"errors"
	"fmt"
	"strings"
)

// setupStep is a row of the table that Setup and SetupCommands both follow: what is
// written where, and how to see that it needn't be.
type setupStep struct {
	what   string  // lower case, an imperative
	path   string  // what is written to
	fields []field // as strings, as Vault's program sends them too

	look  string // what is read first,
	there func(found map[string]any) (bool, error)
}

type field struct{ name, value string }

// steps returns the table for a configuration.
//
// Errors: FieldErrors, joined.
func (c SetupConfig) steps() ([]setupStep, error) {
	var errs []error
	for _, fault := range c.Validate() {
		errs = append(errs, fault)
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("vault: %w", errors.Join(errs...))
	}
	c = c.withDefaults()
	policy := Policy(c.Mount, c.Key)
	steps := []setupStep{{
		what:   "enable the transit engine at " + c.Mount,
		path:   "sys/mounts/" + c.Mount,
		fields: []field{{"type", "transit"}},
		look:   "sys/mounts",
		there:  mounted(c.Mount, "transit"),
	}, {
		what:   "make the key " + c.Key,
		path:   c.Mount + "/keys/" + c.Key,
		fields: []field{{"type", keyType}, {"exportable", "false"}, {"allow_plaintext_backup", "false"}},
		look:   c.Mount + "/keys/" + c.Key,
		there:  safeKey,
	}, {
		what:   "write the policy " + c.Policy,
		path:   "sys/policies/acl/" + c.Policy,
		fields: []field{{"policy", policy}},
		look:   "sys/policies/acl/" + c.Policy,
		there:  func(found map[string]any) (bool, error) { return found["policy"] == policy, nil },
	}}
	if c.AppRole == "" {
		return steps, nil
	}
	role := "auth/" + c.AppRoleMount + "/role/" + c.AppRole
	return append(steps, setupStep{
		what:   "enable the auth method AppRole at " + c.AppRoleMount,
		path:   "sys/auth/" + c.AppRoleMount,
		fields: []field{{"type", "approle"}},
		look:   "sys/auth",
		there:  mounted(c.AppRoleMount, "approle"),
	}, setupStep{
		what: "make the role " + c.AppRole,
		path: role,
		// A token that is taken from us is good for 20 minutes, unless it is
		// revoked, which tokens of type batch can't be.
		fields: []field{
			{"token_policies", c.Policy}, {"token_type", "service"}, {"bind_secret_id", "true"},
			{"token_ttl", "20m"}, {"token_max_ttl", "24h"},
		},
		look:  role,
		there: safeRole(c.Policy),
	}), nil
}

// keyType is the type of the transit key: AES-256-GCM with random nonces.
const keyType = "aes256-gcm96"

// mounted looks for a mount of a type in the list of mounts.
func mounted(mount, kind string) func(found map[string]any) (bool, error) {
	return func(found map[string]any) (bool, error) {
		at, ok := found[mount+"/"].(map[string]any)
		if !ok {
			return false, nil
		}
		if at["type"] != kind {
			return false, fmt.Errorf("something else is mounted there, of type %q", fmt.Sprint(at["type"]))
		}
		return true, nil
	}
}

// safeKey accepts a key that stays in Vault and works for us. It isn't for us to
// change one that doesn't: it may have left already.
func safeKey(found map[string]any) (bool, error) {
	if found["type"] != keyType {
		return false, fmt.Errorf("there is one of type %q; it has to be %s", fmt.Sprint(found["type"]), keyType)
	}
	for _, name := range []string{"exportable", "allow_plaintext_backup", "deletion_allowed", "derived"} {
		if found[name] != false {
			return false, fmt.Errorf("there is one that has %s set; use another one", name)
		}
	}
	return true, nil
}

// safeRole accepts a role that needs a secret id and gives tokens the policy, and
// no other, that can be revoked. One that is laxer is written anew.
func safeRole(policy string) func(found map[string]any) (bool, error) {
	return func(found map[string]any) (bool, error) {
		policies, _ := found["token_policies"].([]any)
		return len(policies) == 1 && policies[0] == policy && found["token_type"] == "service" && found["bind_secret_id"] == true, nil
	}
}

// command returns the step for a shell. A text of several lines comes in on
// standard input.
func (s setupStep) command() string {
	var b strings.Builder
	b.WriteString("vault write " + s.path)
	input := ""
	for _, f := range s.fields {
		if strings.Contains(f.value, "\n") {
			input = f.value
			b.WriteString(" " + f.name + "=-")
			continue
		}
		b.WriteString(" " + f.name + "=" + f.value)
	}
	if input != "" {
		b.WriteString(" <<'EOF'\n" + input + "EOF")
	}
	return b.String() + "\n"
}
