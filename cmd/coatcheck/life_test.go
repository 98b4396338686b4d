package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// TestCrashInABatch kills the process while clients send batches. What was
// acknowledged is good, all of it; of what was not, each batch is there whole or
// not at all; and a batch that is sent again under the same idempotency keys has
// one token for each value.
func TestCrashInABatch(t *testing.T) {
	rounds := 3
	if soak() {
		rounds = 60
	}
	dir := filepath.Join(t.TempDir(), "instance")
	start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0").terminate(t)
	setPolicy(t, dir)
	tokens := &ledger{values: make(map[string]string)}
	const size = 400
	for round := range rounds {
		p := start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0")
		client := coatcheckv1.NewTokenizationServiceClient(p.dial(t, dir, "checkout"))
		var wg sync.WaitGroup
		var mu sync.Mutex
		var lost []*coatcheckv1.BatchTokenizeRequest // not acknowledged
		for c := range 4 {
			wg.Go(func() {
				for n := 0; ; n++ {
					req := batchOf(fmt.Sprintf("round %d client %d batch %d", round, c, n), size)
					resp, err := client.BatchTokenize(context.Background(), req)
					if err != nil {
						mu.Lock()
						lost = append(lost, req)
						mu.Unlock()
						return
					}
					enter(t, tokens, req, resp)
				}
			})
		}
		time.Sleep(time.Duration(50+rand.IntN(400)) * time.Millisecond) // the moment of the kill
		p.kill()
		wg.Wait()
		p = start(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0")
		client = coatcheckv1.NewTokenizationServiceClient(p.dial(t, dir, "checkout"))
		verifyTokens(t, p, dir, tokens, tokens.fresh)
		tokens.fresh = nil
		for _, req := range lost {
			resp, err := client.BatchTokenize(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			reused := 0
			for _, r := range resp.GetResults() {
				if r.GetResponse().GetReused() {
					reused++
				}
			}
			if reused != 0 && reused != size {
				t.Errorf("%d of %d items of a batch were there", reused, size)
			}
			enter(t, tokens, req, resp)
		}
		verifyTokens(t, p, dir, tokens, tokens.fresh)
		p.terminate(t)
	}
	if _, err := audit.VerifyDir(filepath.Join(dir, "audit")); err != nil {
		t.Errorf("the audit log: %v", err)
	}
	wantExactCensus(t, dir, len(tokens.values))
	t.Logf("%d rounds, %d tokens", rounds, len(tokens.values))
}

// batchOf returns a batch of values with idempotency keys.
func batchOf(name string, size int) *coatcheckv1.BatchTokenizeRequest {
	req := new(coatcheckv1.BatchTokenizeRequest)
	for i := range size {
		value := fmt.Sprintf("%s item %d", name, i)
		req.Items = append(req.Items, &coatcheckv1.TokenizeRequest{Profile: "note", Value: value, IdempotencyKey: value, Subject: fmt.Sprint("subject ", i%7)})
	}
	return req
}

// enter enters the tokens of a batch.
func enter(t *testing.T, tokens *ledger, req *coatcheckv1.BatchTokenizeRequest, resp *coatcheckv1.BatchTokenizeResponse) {
	for i, r := range resp.GetResults() {
		if r.GetError() != nil {
			t.Errorf("an item failed: %v", r.GetError())
			continue
		}
		tokens.add(t, r.GetResponse().GetToken(), req.GetItems()[i].GetValue())
	}
}

// TestOneTimeValueLeavesNothing redeems card verification values, and looks for
// what they were sealed as in the files: after they have been shredded nothing is
// left, for somebody who has all keys either. Under a redemption id that is when
// the lease is over, without one at once.
func TestOneTimeValueLeavesNothing(t *testing.T) {
	for _, id := range []string{"", "attempt-1"} {
		t.Run("redemption id "+id, func(t *testing.T) { testOneTimeValue(t, id) })
	}
}

func testOneTimeValue(t *testing.T, id string) {
	dir := filepath.Join(t.TempDir(), "instance")
	args := []string{"dev", "--dir", dir, "--listen", "127.0.0.1:0"}
	start(t, args...).terminate(t)
	edit(t, filepath.Join(dir, "coatcheck.yaml"), "    max_uses: 1\n", "    max_uses: 1\n    redemption_lease: 2s\n")
	p := start(t, args...)
	c := p.callers(t, dir)
	made, err := c.checkout.Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: "cvv", Value: "737"})
	if err != nil {
		t.Fatal(err)
	}
	for range 50 { // so that the file has something else in it, too
		if _, err := c.checkout.Tokenize(t.Context(), &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"}); err != nil {
			t.Fatal(err)
		}
	}
	p.terminate(t)
	store := filepath.Join(dir, "data", "coatcheck.db")
	sealed := [][]byte{sealedOf(t, store, "cvv")}
	holds := func() bool {
		files, err := filepath.Glob(store + "*") // its journal too
		if err != nil || len(files) < 2 {
			t.Fatalf("%q: %v", files, err)
		}
		return slices.ContainsFunc(files, func(file string) bool {
			content, err := os.ReadFile(file)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			return slices.ContainsFunc(sealed, func(s []byte) bool { return bytes.Contains(content, s) })
		})
	}
	if !holds() {
		t.Fatal("the search finds nothing before either")
	}
	p = start(t, args...)
	c = p.callers(t, dir)
	redeem := func(id string) (string, error) {
		resp, err := c.payments.Detokenize(t.Context(), &coatcheckv1.DetokenizeRequest{Token: made.GetToken(), Purpose: "charge", RedemptionId: id})
		return resp.GetValue(), err
	}
	if value, err := redeem(id); err != nil || value != "737" {
		t.Fatalf("%q, %v", value, err)
	}
	if id != "" {
		if value, err := redeem(id); err != nil || value != "737" {
			t.Fatalf("under the same id: %q, %v", value, err)
		}
		p.terminate(t)
		sealed = append(sealed, sealedOf(t, store, "cvv")) // it was sealed anew
		p = start(t, args...)
		c = p.callers(t, dir)
	}
	if _, err := redeem("another"); reasonOf(err) != "FailedPrecondition TOKEN_SPENT" {
		t.Fatalf("the second time: %v", err)
	}
	waitUntil(t, "what it was sealed as is overwritten", func() bool { return !holds() })
	p.kill()
	if holds() {
		t.Error("it is there again")
	}
	p = start(t, args...)
	c = p.callers(t, dir)
	if _, err := redeem(id); reasonOf(err) != "FailedPrecondition TOKEN_SPENT" {
		t.Fatalf("after a restart: %v", err)
	}
	if code := p.terminate(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// sealedOf returns what the value of the one record of a profile is sealed as.
func sealedOf(t *testing.T, store, profile string) (sealed []byte) {
	t.Helper()
	db, err := bbolt.Open(store, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("records")).ForEach(func(key, stored []byte) error {
			r, err := tokenizer.ParseRecord(binary.BigEndian.Uint64(key), stored)
			if r.Profile == profile {
				sealed = r.Value
			}
			return err
		})
	})
	if err != nil || len(sealed) == 0 {
		t.Fatalf("no record of %s: %v", profile, err)
	}
	return sealed
}

// edit replaces something in a file.
func edit(t *testing.T, path, old, with string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(content, []byte(old)) {
		t.Fatalf("%s has no %q: %v", path, old, err)
	}
	if err := os.WriteFile(path, bytes.Replace(content, []byte(old), []byte(with), 1), 0o600); err != nil {
		t.Fatal(err)
	}
}
