package keystore

import (
	"bytes"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore/internal/wipe"
)

// wantWiped waits until keys are wiped, and looks at the memory that they were
// in.
func wantWiped(t *testing.T, count *inMemory, regions [][]byte) {
	t.Helper()
	if len(bytes.Trim(bytes.Join(regions, nil), "\x00")) == 0 {
		t.Fatal("there is nothing to wipe")
	}
	for end := time.Now().Add(30 * time.Second); count.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d keys are never wiped", count.Load())
		}
		runtime.GC()
	}
	for _, region := range regions {
		if len(bytes.Trim(region, "\x00")) > 0 {
			t.Errorf("%x is left", region)
		}
	}
}

// The memory of each kind of key is zeros once nothing points to it.
func TestKeysAreWiped(t *testing.T) {
	bytesOfKey := bytes.Repeat([]byte{0xa5, 0x5a}, KeySize/2)
	secret := &[SubjectSecretSize]byte{1}
	for name, use := range map[string]func(count *inMemory) [][]byte{
		"data": func(count *inMemory) [][]byte {
			k, err := newDataKey(bytesOfKey, new(atomic.Uint64), count)
			if err != nil {
				t.Fatal(err)
			}
			return append(wipe.Regions(k.aead), k.subjects)
		},
		"fpe": func(count *inMemory) [][]byte {
			k, err := newFPEKey(bytesOfKey, count)
			if err != nil {
				t.Fatal(err)
			}
			return wipe.Regions(k.block)
		},
		"subject": func(count *inMemory) [][]byte {
			data, err := newDataKey(bytesOfKey, new(atomic.Uint64), count)
			if err != nil {
				t.Fatal(err)
			}
			k, err := newSubjectCache(count).key(1, data, secret)
			if err != nil {
				t.Fatal(err)
			}
			return wipe.Regions(k.aead)
		},
		"name of a subject": func(count *inMemory) [][]byte {
			names := newSubjectNames(count)
			names.id(secret)
			states := names[secret[0]%subjectShards]
			return append(wipe.Regions(states.idle[0].hash), states.key)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var count inMemory
			wantWiped(t, &count, use(&count))
		})
	}
}

// What has been MACed is not in memory after the call.
func TestMACKeepsNothing(t *testing.T) {
	var count inMemory
	k := newMACKey(make([]byte, KeySize), &count)
	for what, sum := range map[string]func(){
		"a value":  func() { k.sum("label", []byte("a value or a secret, of 32 bytes")) },
		"a secret": func() { k.states.sumSecret((*[32]byte)([]byte("a value or a secret, of 32 bytes"))) },
	} {
		for range 2 { // the first use of a state is another than the second
			sum()
			state := k.states.idle[0]
			if left := append(wipe.Regions(state.hash), state.buf[:cap(state.buf)]); bytes.Contains(bytes.Join(left, nil), []byte("secret")) {
				t.Errorf("%s is left", what)
			}
		}
		k.states.idle = nil
	}
	runtime.KeepAlive(k)
}
