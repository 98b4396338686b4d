package audit

import (
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// BenchmarkVerifySigned verifies a log against its checkpoints; an operation is one event
// of about 0.7 kB, as a Tokenize has.
func BenchmarkVerifySigned(b *testing.B) {
	store, dir := newMemoryStore(1, 0), b.TempDir()
	for range 20_000 {
		store.add(goldenEvents[1].Body())
	}
	notarize(b, dir, store)
	b.SetBytes(int64(len(store.text()) / len(store.entries)))
	verified := 0
	for b.Loop() {
		if verified++; verified%len(store.entries) != 1 {
			continue
		}
		if _, err := VerifySigned(dir, SignedOptions{Keys: []note.Verifier{testKey(b, store.id)}}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkGrow adds events to the tree, which is done beside the calls; an operation is
// one event.
func BenchmarkGrow(b *testing.B) {
	store, dir := newMemoryStore(1, 0), b.TempDir()
	for range 20_000 {
		store.add(goldenEvents[1].Body())
	}
	segments, err := OpenSegments(ctx, dir, store, SegmentOptions{}, new(logBuffer).logger())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = segments.Close() }()
	grown := 0
	for b.Loop() {
		if grown++; grown%len(store.entries) != 1 {
			continue
		}
		n, err := OpenNotary(ctx, segments, CheckpointOptions{})
		if err != nil {
			b.Fatal(err)
		}
		if err := n.step(ctx, false); err != nil {
			b.Fatal(err)
		}
		_ = n.Close(ctx)
	}
}
