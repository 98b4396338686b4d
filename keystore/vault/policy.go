package vault

import "strings"

// Policy returns the text of the policy under which the service works with a key:
// deploy/vault/coatcheck.hcl, which is that for the defaults. mount and key
// follow the rules of Config.
func Policy(mount, key string) string {
	return strings.NewReplacer("MOUNT", mount, "KEY", key).Replace(policyText)
}

// policyText has nothing but update: create would let a call of encrypt make a
// key that is missing, and the rest is administration.
const policyText = `# All that Coatcheck may do in Vault: use one key of the transit engine.
#
# It can't read, make, rotate, configure or delete a key, nor list them. There is
# no "create", since with that an encryption would make the key where it is missing,
# under its default settings, and nobody would notice that it is another one.
#
# Tokens renew themselves by the policy "default", which Vault adds to every token
# unless told otherwise. Without it all works but renewal: a new login takes its
# place.

# A new key of Coatcheck's is wrapped.
path "MOUNT/encrypt/KEY" {
  capabilities = ["update"]
}

# Coatcheck starts, makes a key, and has its keys confirmed.
path "MOUNT/decrypt/KEY" {
  capabilities = ["update"]
}

# After the transit key was rotated, what is under its older versions moves to the
# newest, and never leaves Vault in clear for that.
path "MOUNT/rewrap/KEY" {
  capabilities = ["update"]
}
`
