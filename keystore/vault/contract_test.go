package vault_test

import (
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/keystoretest"
	"github.com/coatcheck/coatcheck/keystore/vault"
	"github.com/coatcheck/coatcheck/keystore/vault/testvault"
)

// harness makes root keys in one Vault, which may go away as outage says.
func harness(v *testvault.Vault, outage func() (end func()), change func(*vault.Config)) keystoretest.Harness {
	return keystoretest.Harness{NewRoot: func(t *testing.T) keystoretest.Root {
		r := newRoot(v)
		cfg := r.appRole(t)
		change(&cfg)
		return keystoretest.Root{
			Open:   func(t *testing.T) keystore.Backend { return open(t, cfg) },
			Rotate: func(*testing.T) { v.RotateKey("transit", r.name) },
			Outage: func(*testing.T) func() { return outage() },
			Deny: func(*testing.T) func() {
				v.DeletePolicy(r.name)
				v.RevokeTokensOf(r.name)
				return r.allow
			},
		}
	}}
}

func TestContract(t *testing.T) {
	v := newVault(t)
	keystoretest.TestBackend(t, harness(v, func() func() {
		v.Stop()
		return v.Restart
	}, func(*vault.Config) {}))
}

// A Vault that accepts connections and never answers.
func TestContractHung(t *testing.T) {
	v := newVault(t)
	keystoretest.TestOutage(t, harness(v, func() func() {
		v.Hang()
		return v.Resume
	}, func(cfg *vault.Config) { cfg.Timeout, cfg.Retries = 1500*time.Millisecond, -1 }))
}

// A Vault that answers, and says that it can't serve.
func TestContractSealed(t *testing.T) {
	v := newVault(t)
	keystoretest.TestOutage(t, harness(v, func() func() {
		v.Seal()
		return v.Restart
	}, func(*vault.Config) {}))
}
