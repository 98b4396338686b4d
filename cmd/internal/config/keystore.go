package config

import (
	"fmt"
	"slices"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/server/upkeep"
)

// Keystore says what guards the keys, and how they are looked after. Exactly
// one kind of guard is named.
type Keystore struct {
	Local *LocalKeystore `yaml:"local"`
	Vault *VaultKeystore `yaml:"vault"`

	Lease      time.Duration  `yaml:"lease"`
	MaxOffline *time.Duration `yaml:"max_offline"`
	StartWait  *time.Duration `yaml:"start_wait"`
	Rotation   map[string]Due `yaml:"rotation"` // by class
	ResealRate *int           `yaml:"reseal_rate"`
}

// Due says when a key is replaced, whichever comes first.
type Due struct {
	Age  time.Duration `yaml:"age"`
	Uses uint64        `yaml:"uses"`
}

// LocalKeystore is a root key in a file. A passphrase comes from a file or
// from an environment variable, never from the configuration itself.
type LocalKeystore struct {
	RootKey        string `yaml:"root_key"`
	PassphraseFile string `yaml:"passphrase_file"`
	PassphraseEnv  string `yaml:"passphrase_env"`
}

// Defaults of a Keystore.
const (
	defaultStartWait  = 10 * time.Second
	defaultResealRate = upkeep.DefaultRate

	// defaultUses leaves as much room again for what is not counted: seals whose
	// records were never stored.
	defaultUses = keystore.MaxUses / 2

	// leastUses is so many that keys don't follow each other within minutes.
	leastUses = 1 << 20
)

// Options returns how long keys are good for.
func (k Keystore) Options() keystore.Options {
	o := keystore.Options{Lease: k.Lease, MaxOffline: keystore.DefaultMaxOffline}
	if k.MaxOffline != nil {
		o.MaxOffline = *k.MaxOffline
	}
	return o
}

// Wait returns how long a start waits for what guards the keys; 0 stands for one
// attempt.
func (k Keystore) Wait() time.Duration {
	if k.StartWait == nil {
		return defaultStartWait
	}
	return *k.StartWait
}

// Upkeep returns when keys are due and how fast records are moved. Data keys
// are always replaced in time.
func (k Keystore) Upkeep() upkeep.Config {
	cfg := upkeep.Config{Rate: defaultResealRate, Rotation: make(map[keystore.Class]upkeep.Due)}
	if k.ResealRate != nil {
		cfg.Rate = *k.ResealRate
	}
	for _, class := range keystore.Classes() {
		due := upkeep.Due(k.Rotation[class.String()])
		if class == keystore.Data && due.Uses == 0 {
			due.Uses = defaultUses
		}
		if due != (upkeep.Due{}) {
			cfg.Rotation[class] = due
		}
	}
	return cfg
}

// paths returns the settings that are paths.
func (k *Keystore) paths() []*string {
	if k.Local != nil {
		return []*string{&k.Local.RootKey, &k.Local.PassphraseFile}
	}
	return k.Vault.paths()
}

// check reports settings that can't be.
func (k Keystore) check(fault func(string, ...string), require func(string, ...string)) {
	switch {
	case k.Local == nil && k.Vault == nil:
		fault("keystore.vault or keystore.local is required", "keystore")
	case k.Local != nil && k.Vault != nil:
		fault("vault and local are both given; there may be one only", "keystore", "vault")
	case k.Local != nil:
		require(k.Local.RootKey, "keystore", "local", "root_key")
		if k.Local.PassphraseFile != "" && k.Local.PassphraseEnv != "" {
			fault("passphrase_env and passphrase_file are both given", "keystore", "local", "passphrase_env")
		}
	default:
		k.Vault.check(fault)
	}
	if k.Lease != 0 && (k.Lease < 100*time.Millisecond || k.Lease > time.Hour) {
		fault("lease must be from 100ms to 1h", "keystore", "lease")
	}
	if k.MaxOffline != nil && (*k.MaxOffline < 0 || *k.MaxOffline > 7*24*time.Hour) {
		fault("max_offline must be from 0 to 168h", "keystore", "max_offline")
	}
	if k.StartWait != nil && (*k.StartWait < 0 || *k.StartWait > time.Hour) {
		fault("start_wait must be from 0 to 1h", "keystore", "start_wait")
	}
	if k.ResealRate != nil && (*k.ResealRate < 0 || *k.ResealRate > 1_000_000) {
		fault("reseal_rate must be from 0 to 1000000", "keystore", "reseal_rate")
	}
	k.checkRotation(fault)
}

func (k Keystore) checkRotation(fault func(string, ...string)) {
	var known []string
	for _, class := range keystore.Classes() {
		known = append(known, class.String())
	}
	for class, due := range k.Rotation {
		at := []string{"keystore", "rotation", class}
		if !slices.Contains(known, class) {
			fault(fmt.Sprintf("%q is none of %v", class, known), at...)
			continue
		}
		if due.Age != 0 && (due.Age < time.Hour || due.Age > 10*365*24*time.Hour) {
			fault("age must be from 1h to 87600h", append(at, "age")...)
		}
		switch {
		case due.Uses != 0 && class != keystore.Data.String():
			fault("uses are counted for data keys only", append(at, "uses")...)
		case due.Uses != 0 && (due.Uses < leastUses || due.Uses > upkeep.MaxUses):
			fault(fmt.Sprintf("uses must be from %d to %d", uint64(leastUses), uint64(upkeep.MaxUses)), append(at, "uses")...)
		}
	}
}
