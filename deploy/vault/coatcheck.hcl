# All that Coatcheck may do in Vault: use one key of the transit engine.
#
# It can't read, make, rotate, configure or delete a key, nor list them. There is
# no "create", since with that an encryption would make the key where it is missing,
# under its default settings, and nobody would notice that it is another one.
#
# Tokens renew themselves by the policy "default", which Vault adds to every token
# unless told otherwise. Without it all works but renewal: a new login takes its
# place.

# A new key of Coatcheck's is wrapped.
path "transit/encrypt/coatcheck" {
  capabilities = ["update"]
}

# Coatcheck starts, makes a key, and has its keys confirmed.
path "transit/decrypt/coatcheck" {
  capabilities = ["update"]
}

# After the transit key was rotated, what is under its older versions moves to the
# newest, and never leaves Vault in clear for that.
path "transit/rewrap/coatcheck" {
  capabilities = ["update"]
}
