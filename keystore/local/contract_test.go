package local_test

import (
	"path/filepath"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/keystoretest"
	"github.com/coatcheck/coatcheck/keystore/local"
)

func TestContract(t *testing.T) {
	// No Outage: once the file is open, nothing of it can go away.
	keystoretest.TestBackend(t, keystoretest.Harness{NewRoot: func(t *testing.T) keystoretest.Root {
		path := filepath.Join(t.TempDir(), "root.key")
		if err := local.Create(path, nil); err != nil {
			t.Fatal(err)
		}
		return keystoretest.Root{Open: func(t *testing.T) keystore.Backend {
			b, err := local.Open(path, nil)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}}
	}})
}
