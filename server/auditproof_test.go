package server_test

import (
	"bytes"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/servertest"
)

// waitForCheckpoint returns the first checkpoint of so many events or more.
func waitForCheckpoint(t *testing.T, client coatcheckv1.AuditServiceClient, events uint64) *coatcheckv1.GetCheckpointResponse {
	t.Helper()
	for ctx := deadline(t); ; {
		resp, err := client.GetCheckpoint(ctx, &coatcheckv1.GetCheckpointRequest{})
		if err == nil && resp.GetEvents() >= events {
			return resp
		}
		if err != nil && reason(err) != "NO_CHECKPOINT" {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A client proves an event by what the server says and the key alone, and so does the
// verifier by the files.
func TestCheckpointAndProof(t *testing.T) {
	in := servertest.Start(t, servertest.Options{Checkpoints: true})
	tokenize(t, in, "note", "x")
	client := coatcheckv1.NewAuditServiceClient(in.As(t, "admin"))
	got := waitForCheckpoint(t, client, 1)
	key, err := note.NewVerifier(got.GetPublicKey())
	if err != nil {
		t.Fatal(err)
	}
	first, err := audit.OpenCheckpoint([]byte(got.GetCheckpoint()), key)
	if err != nil || first.Events != got.GetEvents() || first.Log != in.Store.LogID() || !first.Time.Equal(got.GetSignTime().AsTime()) {
		t.Fatalf("%+v, %v", first, err)
	}
	resp, err := client.GetProof(deadline(t), &coatcheckv1.GetProofRequest{Sequence: 1, OldEvents: 1})
	if err != nil {
		t.Fatal(err)
	}
	p := audit.Proof{
		Events: resp.GetEvents(), Root: tlog.Hash(resp.GetRootHash()), Event: 1, Leaf: tlog.Hash(resp.GetLeafHash()), Inclusion: hashes(resp.GetInclusion()),
		Old: 1, OldRoot: tlog.Hash(resp.GetOldRootHash()), Consistency: hashes(resp.GetConsistency()),
	}
	if err := p.Check(); err != nil {
		t.Error(err)
	}
	for _, req := range []*coatcheckv1.GetProofRequest{{}, {Sequence: 1 << 62}, {Sequence: 1, Events: 1 << 63}, {Sequence: 2, Events: 1}, {OldEvents: 2, Events: 1}} {
		if _, err := client.GetProof(deadline(t), req); reason(err) != "INVALID_PROOF" {
			t.Errorf("%v: %v", req, err)
		}
	}
	in = in.Restart(t)
	again := waitForCheckpoint(t, coatcheckv1.NewAuditServiceClient(in.As(t, "admin")), first.Events+1)
	if again.GetPublicKey() != got.GetPublicKey() {
		t.Error("another key after a restart")
	}
	in.Stop()
	if err := in.Wait(); err != nil {
		t.Fatal(err)
	}
	s, err := audit.VerifySigned(in.AuditDir(), audit.SignedOptions{Keys: []note.Verifier{key}, Kept: []audit.Checkpoint{first}, Event: 1})
	if err != nil || s.Uncovered() != 0 || s.Proof == nil || !bytes.Equal(s.Proof.Leaf[:], resp.GetLeafHash()) {
		t.Errorf("%+v, %v", s, err)
	}
}

func hashes(list [][]byte) []tlog.Hash {
	all := make([]tlog.Hash, len(list))
	for i, b := range list {
		all[i] = tlog.Hash(b)
	}
	return all
}

// Before anything is signed there is nothing to get.
func TestNoCheckpointYet(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	client := coatcheckv1.NewAuditServiceClient(in.As(t, "admin"))
	if _, err := client.GetCheckpoint(deadline(t), &coatcheckv1.GetCheckpointRequest{}); reason(err) != "NO_CHECKPOINT" {
		t.Errorf("error %v", err)
	}
	if _, err := client.GetProof(deadline(t), &coatcheckv1.GetProofRequest{Sequence: 1}); reason(err) != "NO_CHECKPOINT" {
		t.Errorf("error %v", err)
	}
}

// Of servers that need the key at once, one makes it, and all sign with it.
func TestLogSignerIsOne(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	const servers = 8
	keys := make(chan []byte, servers)
	for range servers {
		go func() {
			s, err := in.Upkeep.LogSigner(t.Context())
			if err != nil {
				t.Error(err)
				keys <- nil
				return
			}
			keys <- s.Public()
		}()
	}
	first := <-keys
	for range servers - 1 {
		if !bytes.Equal(first, <-keys) {
			t.Error("two keys")
		}
	}
}
