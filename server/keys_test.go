package server_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/servertest"
	"github.com/coatcheck/coatcheck/server/upkeep"
	"github.com/coatcheck/coatcheck/tokenizer"
)

const (
	dataClass  = coatcheckv1.KeyClass_KEY_CLASS_DATA
	tokenClass = coatcheckv1.KeyClass_KEY_CLASS_TOKEN
	indexClass = coatcheckv1.KeyClass_KEY_CLASS_INDEX
	auditClass = coatcheckv1.KeyClass_KEY_CLASS_AUDIT
	fpeClass   = coatcheckv1.KeyClass_KEY_CLASS_FPE
)

// census returns the records under each version of a class, by version.
func census(t *testing.T, client coatcheckv1.KeyServiceClient, class coatcheckv1.KeyClass) map[uint32]uint64 {
	t.Helper()
	resp, err := client.ListKeys(deadline(t), &coatcheckv1.ListKeysRequest{})
	if err != nil {
		t.Fatal(err)
	}
	counts := make(map[uint32]uint64)
	for _, k := range resp.GetKeys() {
		if k.GetKeyClass() == class {
			counts[k.GetVersion()] = k.GetRecords()
		}
	}
	return counts
}

func TestKeysThroughTheirLife(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	keys := coatcheckv1.NewKeyServiceClient(in.As(t, "admin"))
	payments := coatcheckv1.NewTokenizationServiceClient(in.As(t, "payments"))
	tokens := make(map[string]string)
	add := func(value string) {
		tokens[tokenize(t, in, "card", value)] = value
	}
	reveal := func() {
		t.Helper()
		for token, value := range tokens {
			resp, err := payments.Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "charge"})
			if err != nil || resp.GetValue() != value {
				t.Fatalf("%q came back as %q, %v", value, resp.GetValue(), err)
			}
		}
	}
	add("4111111111111111")
	add("5555555555554444")
	resp, err := keys.ListKeys(deadline(t), &coatcheckv1.ListKeysRequest{})
	if err != nil || len(resp.GetKeys()) != 6 || resp.GetKeystoreState() != coatcheckv1.KeystoreState_KEYSTORE_STATE_READY {
		t.Fatalf("%v, %v", resp, err)
	}
	if k := resp.GetKeys()[0]; k.GetState() != coatcheckv1.KeyState_KEY_STATE_ACTIVE || k.GetRetirable() || k.GetRecords() != 2 || k.GetUses() != 2 || k.GetRootVersion() != 1 || time.Since(k.GetCreateTime().AsTime()) > time.Hour {
		t.Errorf("the data key: %v", k)
	}
	for _, class := range []coatcheckv1.KeyClass{dataClass, tokenClass, indexClass, auditClass, fpeClass} {
		made, err := keys.RotateKey(deadline(t), &coatcheckv1.RotateKeyRequest{KeyClass: class})
		if err != nil || made.GetKey().GetVersion() != 2 || made.GetKey().GetState() != coatcheckv1.KeyState_KEY_STATE_ACTIVE || made.GetKey().GetKeyClass() != class {
			t.Fatalf("%v: %v, %v", class, made, err)
		}
	}
	// Who thinks that another version is active is told so.
	for version, want := range map[uint32]string{1: "KEY_CHANGED", 3: "KEY_CHANGED"} {
		if _, err := keys.RotateKey(deadline(t), &coatcheckv1.RotateKeyRequest{KeyClass: dataClass, ActiveVersion: version}); status.Code(err) != codes.Aborted || reason(err) != want {
			t.Errorf("rotate with active version %d: %v", version, err)
		}
	}
	add("4012888888881881") // under the new keys at once
	reveal()
	for class, want := range map[coatcheckv1.KeyClass]map[uint32]uint64{dataClass: {1: 2, 2: 1}, tokenClass: {1: 2, 2: 1}, indexClass: {1: 0, 2: 0}} {
		if got := census(t, keys, class); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v: census %v, want %v", class, got, want)
		}
	}
	retire := func(class coatcheckv1.KeyClass, version uint32, validate bool) (codes.Code, string) {
		_, err := keys.RetireKey(deadline(t), &coatcheckv1.RetireKeyRequest{KeyClass: class, Version: version, ValidateOnly: validate})
		return status.Code(err), reason(err)
	}
	for _, row := range []struct {
		class   coatcheckv1.KeyClass
		version uint32
		code    codes.Code
		reason  string
	}{
		{dataClass, 1, codes.FailedPrecondition, "KEY_IN_USE"},
		{dataClass, 2, codes.FailedPrecondition, "KEY_IN_USE"},
		{tokenClass, 1, codes.FailedPrecondition, "KEY_IN_USE"},
		{auditClass, 1, codes.FailedPrecondition, "KEY_IN_USE"},
		{fpeClass, 1, codes.FailedPrecondition, "KEY_IN_USE"},
		{dataClass, 3, codes.NotFound, "KEY_NOT_FOUND"},
		{dataClass, 0, codes.NotFound, "KEY_NOT_FOUND"},
		{0, 1, codes.InvalidArgument, "INVALID_KEY_CLASS"},
		{9, 1, codes.InvalidArgument, "INVALID_KEY_CLASS"},
	} {
		for _, validate := range []bool{true, false} {
			if code, reason := retire(row.class, row.version, validate); code != row.code || reason != row.reason {
				t.Errorf("retire %v %d: %v, %s; want %v, %s", row.class, row.version, code, reason, row.code, row.reason)
			}
		}
	}
	for message, req := range map[string]*coatcheckv1.RetireKeyRequest{
		"the key is the active one of its class; rotate first":                                 {KeyClass: dataClass, Version: 2},
		"records are still under the key; keys rewrap moves them":                              {KeyClass: dataClass, Version: 1},
		"audit keys are never retired, since the log names them":                               {KeyClass: auditClass, Version: 1},
		"fpe keys are never retired, since nobody can count their tokens":                      {KeyClass: fpeClass, Version: 1},
		"clients have tokens of this key; it is needed for as long as their records are there": {KeyClass: tokenClass, Version: 1},
	} {
		if _, err := keys.RetireKey(deadline(t), req); status.Convert(err).Message() != message {
			t.Errorf("%v: %v, want %s", req, err, message)
		}
	}
	started, err := keys.Rewrap(deadline(t), &coatcheckv1.RewrapRequest{RecordsPerSecond: 1_000_000})
	if err != nil || started.GetResealing().GetRemaining() != 2 || !started.GetResealing().GetRunning() || len(started.GetRewrapped()) != 0 {
		t.Fatalf("%v, %v", started, err)
	}
	waitFor(t, "the census", func() bool { return census(t, keys, dataClass)[1] == 0 })
	reveal()
	for range 2 { // found out twice, done once
		if code, _ := retire(dataClass, 1, true); code != codes.OK {
			t.Errorf("retire, validate only: %v", code)
		}
	}
	if code, reason := retire(dataClass, 1, false); code != codes.OK {
		t.Fatalf("retire: %v, %s", code, reason)
	}
	if code, reason := retire(dataClass, 1, false); code != codes.NotFound || reason != "KEY_NOT_FOUND" {
		t.Errorf("retired again: %v, %s", code, reason)
	}
	if code, _ := retire(indexClass, 1, false); code != codes.OK {
		t.Errorf("retire the old index key: %v", code)
	}
	add("378282246310005")
	reveal()
	if got := census(t, keys, dataClass); fmt.Sprint(got) != "map[2:4]" {
		t.Errorf("census %v", got)
	}
	for class, want := range map[coatcheckv1.KeyClass]string{0: "INVALID_KEY_CLASS", 7: "INVALID_KEY_CLASS"} {
		if _, err := keys.RotateKey(deadline(t), &coatcheckv1.RotateKeyRequest{KeyClass: class}); reason(err) != want {
			t.Errorf("rotate class %d: %v", class, err)
		}
	}
	if _, err := keys.Rewrap(deadline(t), &coatcheckv1.RewrapRequest{RecordsPerSecond: 1_000_001}); reason(err) != "INVALID_RATE" {
		t.Errorf("rewrap at a mad rate: %v", err)
	}
	checkKeyEvents(t, in)
}

// checkKeyEvents looks for what TestKeysThroughTheirLife must leave on record.
func checkKeyEvents(t *testing.T, in *servertest.Instance) {
	t.Helper()
	var found []string
	for _, e := range events(t, in) {
		switch e["action"] {
		case "create-keys", "rotate-key", "rewrap", "reseal", "retire-key":
			if e["code"] == "OK" {
				line := fmt.Sprintf("%v%v%v", e["action"], e["keys"], e["records"])
				if e["validate_only"] == true {
					line += "validated"
				}
				found = append(found, line)
			}
		}
	}
	want := []string{
		"create-keys[data/1 token/1 index/1 subject/1 audit/1 fpe/1]<nil>",
		"rotate-key[data/2]<nil>", "rotate-key[token/2]<nil>", "rotate-key[index/2]<nil>", "rotate-key[audit/2]<nil>", "rotate-key[fpe/2]<nil>",
		"rewrap<nil><nil>", "reseal[data/2]2",
		"retire-key[data/1]<nil>validated", "retire-key[data/1]<nil>validated",
		"retire-key[data/1]<nil>", "retire-key[index/1]<nil>",
	}
	if !slices.Equal(found, want) {
		t.Errorf("events %q, want %q", found, want)
	}
}

// racingStore does something between a call's handler and its commit.
type racingStore struct {
	tokenizer.Store
	before atomic.Pointer[func(tokenizer.Unit)]
}

func (s *racingStore) Commit(ctx context.Context, unit tokenizer.Unit) (tokenizer.Outcome, error) {
	if before := s.before.Load(); before != nil {
		(*before)(unit)
	}
	return s.Store.Commit(ctx, unit)
}

// A record whose key is retired while its call is under way is sealed anew, and
// the client doesn't notice.
func TestAKeyRetiredUnderACall(t *testing.T) {
	store := new(racingStore)
	in := servertest.Start(t, servertest.Options{Wrap: func(s tokenizer.Store) tokenizer.Store { store.Store = s; return store }})
	ctx := deadline(t)
	raced := false
	race := func(unit tokenizer.Unit) {
		if len(unit.Records) == 0 || raced {
			return
		}
		raced = true
		key, err := in.Keystore.NewVersion(ctx, server.DefaultNamespace, keystore.Data)
		if err != nil {
			t.Error(err)
		}
		event := func(tokenizer.Outcome) []byte { return []byte(`{"v":1,"time":"2026-11-25T00:00:00.000000000Z"}`) }
		_, added := store.Store.Commit(ctx, tokenizer.Unit{Keys: []keystore.WrappedKey{key}, Event: event})
		_, retired := store.Store.Commit(ctx, tokenizer.Unit{Retire: keystore.KeyID{Namespace: server.DefaultNamespace, Class: keystore.Data, Version: 1}, Event: event})
		if err := errors.Join(added, retired); err != nil {
			t.Error(err)
		}
	}
	store.before.Store(&race)
	token := tokenize(t, in, "card", "4111111111111111")
	if !raced {
		t.Fatal("there was no race")
	}
	resp, err := coatcheckv1.NewTokenizationServiceClient(in.As(t, "payments")).Detokenize(ctx, &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "charge"})
	if err != nil || resp.GetValue() != "4111111111111111" {
		t.Errorf("%q, %v", resp.GetValue(), err)
	}
	if got := census(t, coatcheckv1.NewKeyServiceClient(in.As(t, "admin")), dataClass); fmt.Sprint(got) != "map[2:1]" {
		t.Errorf("census %v", got)
	}
	made := 0
	for _, e := range events(t, in) {
		if e["action"] == "tokenize" {
			made++
		}
	}
	if made != 1 {
		t.Errorf("%d events of one call", made)
	}
}

// A key that becomes used between the look and the commit is not retired, and
// that is on record as a refusal.
func TestAKeyUsedUnderItsRetirement(t *testing.T) {
	store := new(racingStore)
	in := servertest.Start(t, servertest.Options{Wrap: func(s tokenizer.Store) tokenizer.Store { store.Store = s; return store }})
	ctx := deadline(t)
	keys := coatcheckv1.NewKeyServiceClient(in.As(t, "admin"))
	if _, err := keys.RotateKey(ctx, &coatcheckv1.RotateKeyRequest{KeyClass: dataClass}); err != nil {
		t.Fatal(err)
	}
	event := func(tokenizer.Outcome) []byte { return []byte(`{"v":1,"time":"2026-11-25T00:00:00.000000000Z"}`) }
	race := func(unit tokenizer.Unit) {
		if unit.Retire == (keystore.KeyID{}) {
			return
		}
		id, err := store.ReserveIDs(ctx, 1)
		if err != nil {
			t.Error(err)
		}
		late := tokenizer.Record{ID: id, Namespace: server.DefaultNamespace, Profile: "card", KeyVersion: 1, TokenVersion: 1, Value: []byte("late")}
		if _, err := store.Store.Commit(ctx, tokenizer.Unit{Records: []tokenizer.Record{late}, Event: event}); err != nil {
			t.Error(err)
		}
	}
	store.before.Store(&race)
	if _, err := keys.RetireKey(ctx, &coatcheckv1.RetireKeyRequest{KeyClass: dataClass, Version: 1}); status.Code(err) != codes.FailedPrecondition || reason(err) != "KEY_IN_USE" {
		t.Errorf("RetireKey: %v", err)
	}
	log := events(t, in)
	if last := log[len(log)-1]; last["action"] != "retire-key" || last["reason"] != "KEY_IN_USE" {
		t.Errorf("the last event is %v", last)
	}
}

// While the backend is away keys can be listed and records revealed, but no key
// made; and when it is back, everything goes on.
func TestKeysWhileTheBackendIsAway(t *testing.T) {
	in, _, backend := startFaulty(t, server.Limits{})
	keys := coatcheckv1.NewKeyServiceClient(in.As(t, "admin"))
	token := tokenize(t, in, "card", "4111111111111111")
	if _, err := keys.RotateKey(deadline(t), &coatcheckv1.RotateKeyRequest{KeyClass: indexClass}); err != nil {
		t.Fatal(err)
	}
	backend.away.Store(true)
	waitFor(t, "OFFLINE", func() bool {
		resp, err := keys.ListKeys(deadline(t), &coatcheckv1.ListKeysRequest{})
		return err == nil && resp.GetKeystoreState() == coatcheckv1.KeystoreState_KEYSTORE_STATE_OFFLINE && resp.GetSealTime() != nil
	})
	for name, call := range map[string]func() error{
		"rotate": func() error {
			_, err := keys.RotateKey(deadline(t), &coatcheckv1.RotateKeyRequest{KeyClass: dataClass})
			return err
		},
		"rewrap": func() error {
			_, err := keys.Rewrap(deadline(t), &coatcheckv1.RewrapRequest{})
			return err
		},
	} {
		if err := call(); status.Code(err) != codes.Unavailable || reason(err) != "KEYSTORE_UNAVAILABLE" {
			t.Errorf("%s: %v", name, err)
		}
	}
	// To retire a key takes none.
	if _, err := keys.RetireKey(deadline(t), &coatcheckv1.RetireKeyRequest{KeyClass: indexClass, Version: 1}); err != nil {
		t.Errorf("retire: %v", err)
	}
	payments := coatcheckv1.NewTokenizationServiceClient(in.As(t, "payments"))
	if resp, err := payments.Detokenize(deadline(t), &coatcheckv1.DetokenizeRequest{Token: token, Purpose: "charge"}); err != nil || resp.GetValue() != "4111111111111111" {
		t.Errorf("Detokenize: %v", err)
	}
	backend.away.Store(false)
	waitFor(t, "READY", func() bool {
		resp, err := keys.ListKeys(deadline(t), &coatcheckv1.ListKeysRequest{})
		return err == nil && resp.GetKeystoreState() == coatcheckv1.KeystoreState_KEYSTORE_STATE_READY
	})
	if _, err := keys.RotateKey(deadline(t), &coatcheckv1.RotateKeyRequest{KeyClass: dataClass}); err != nil {
		t.Errorf("rotate: %v", err)
	}
}

// Keys that are due are replaced, and records follow, by themselves.
func TestDueKeysAreReplaced(t *testing.T) {
	in := servertest.Start(t, servertest.Options{Upkeep: upkeep.Config{
		Period: 10 * time.Millisecond, Rate: 1_000_000,
		Rotation: map[keystore.Class]upkeep.Due{keystore.Data: {Uses: 3}, keystore.Token: {Age: time.Second}},
	}})
	keys := coatcheckv1.NewKeyServiceClient(in.As(t, "admin"))
	for range 3 {
		tokenize(t, in, "card", "4111111111111111")
	}
	waitFor(t, "a new data key, with all records", func() bool { return census(t, keys, dataClass)[2] >= 3 })
	// That they were all moved to it doesn't make it due again.
	for range 50 {
		time.Sleep(10 * time.Millisecond)
		if now := census(t, keys, dataClass); len(now) != 2 {
			t.Fatalf("versions follow each other: %v", now)
		}
	}
	waitFor(t, "a new token key", func() bool { return len(census(t, keys, tokenClass)) > 1 })
	rotated := make(map[string]bool)
	for _, e := range events(t, in) {
		if e["action"] == "rotate-key" {
			rotated[fmt.Sprint(e["keys"])] = true
			if e["caller"] != nil || e["policy"] == nil {
				t.Errorf("an event of the system: %v", e)
			}
		}
	}
	if !rotated["[data/2]"] || !rotated["[token/2]"] {
		t.Errorf("events tell of %v", rotated)
	}
}

// A pass that takes its time keeps no key from being replaced, and a rate that
// is raised meanwhile counts at once.
func TestASlowPassHoldsUpNothing(t *testing.T) {
	in := servertest.Start(t, servertest.Options{Upkeep: upkeep.Config{
		Period: 20 * time.Millisecond, Rate: 1, Rotation: map[keystore.Class]upkeep.Due{keystore.Token: {Age: 2 * time.Second}},
	}})
	keys := coatcheckv1.NewKeyServiceClient(in.As(t, "admin"))
	for range 100 {
		tokenize(t, in, "card", "4111111111111111")
	}
	if _, err := keys.RotateKey(deadline(t), &coatcheckv1.RotateKeyRequest{KeyClass: dataClass}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a pass", func() bool { return in.Upkeep.Progress().Running })
	waitFor(t, "a new token key", func() bool { return len(census(t, keys, tokenClass)) > 1 })
	if left := census(t, keys, dataClass)[1]; left < 50 {
		t.Errorf("only %d records are left, at one a second", left)
	}
	if _, err := keys.Rewrap(deadline(t), &coatcheckv1.RewrapRequest{RecordsPerSecond: 100_000}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "all records", func() bool { return census(t, keys, dataClass)[1] == 0 })
	waitFor(t, "the end of the pass", func() bool { return !in.Upkeep.Progress().Running && in.Upkeep.Progress().Rate == 1 })
}

// lyingStore has a census without records, and may refuse what is committed.
type lyingStore struct {
	tokenizer.Store
	lies, refuses atomic.Bool
}

func (s *lyingStore) Census(ctx context.Context, namespace string) ([]keystore.KeyCount, error) {
	counts, err := s.Store.Census(ctx, namespace)
	for i := range counts {
		if s.lies.Load() {
			counts[i].Records = 0
		}
	}
	return counts, err
}

func (s *lyingStore) Commit(ctx context.Context, unit tokenizer.Unit) (tokenizer.Outcome, error) {
	if s.refuses.Load() && len(unit.Records) > 0 {
		return tokenizer.Outcome{}, tokenizer.ErrDamaged
	}
	return s.Store.Commit(ctx, unit)
}

// A census that is wrong doesn't cost a key that is needed, and what the store
// refuses as damaged is on record.
func TestADamagedCensus(t *testing.T) {
	store := new(lyingStore)
	in := servertest.Start(t, servertest.Options{Wrap: func(s tokenizer.Store) tokenizer.Store { store.Store = s; return store }})
	keys := coatcheckv1.NewKeyServiceClient(in.As(t, "admin"))
	tokenize(t, in, "card", "4111111111111111")
	if _, err := keys.RotateKey(deadline(t), &coatcheckv1.RotateKeyRequest{KeyClass: tokenClass}); err != nil {
		t.Fatal(err)
	}
	store.lies.Store(true)
	for _, validate := range []bool{true, false} {
		_, err := keys.RetireKey(deadline(t), &coatcheckv1.RetireKeyRequest{KeyClass: tokenClass, Version: 1, ValidateOnly: validate})
		if status.Code(err) != codes.DataLoss || reason(err) != "RECORD_DAMAGED" {
			t.Errorf("RetireKey: %v", err)
		}
	}
	store.refuses.Store(true)
	_, err := coatcheckv1.NewTokenizationServiceClient(in.As(t, "checkout")).Tokenize(deadline(t), &coatcheckv1.TokenizeRequest{Profile: "card", Value: "4111111111111111"})
	if status.Code(err) != codes.DataLoss || reason(err) != "RECORD_DAMAGED" {
		t.Errorf("Tokenize: %v", err)
	}
	log := events(t, in)
	if last := log[len(log)-1]; last["action"] != "tokenize" || last["code"] != "DATA_LOSS" || last["caller"] == nil {
		t.Errorf("the last event is %v", last)
	}
}
