package service

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// textSource is a source of one file, whose text is good unless it begins with "bad".
type textSource struct {
	path    string
	work    atomic.Pointer[string]
	reads   int
	refused []string      // the names of what was refused
	full    bool          // has nothing recorded any more
	hang    chan struct{} // has reading wait until it is closed, if it isn't nil
}

func (s *textSource) paths() []string { return []string{s.path} }

func (s *textSource) read() ([][]byte, error) {
	if s.hang != nil {
		<-s.hang
	}
	s.reads++
	data, err := read("text", s.path)
	return [][]byte{data}, err
}

func (s *textSource) working() string            { return digest([][]byte{[]byte(*s.work.Load())}) }
func (s *textSource) name(files [][]byte) string { return string(files[0]) }

func (s *textSource) load(files [][]byte) (func(context.Context) error, error) {
	text := string(files[0])
	if strings.HasPrefix(text, "bad") {
		return nil, errors.New("bad text")
	}
	return func(context.Context) error {
		if s.full {
			return errors.New("the disk is full")
		}
		s.work.Store(&text)
		return nil
	}, nil
}

func (s *textSource) refuse(_ context.Context, name string) error {
	if s.full {
		return errors.New("the disk is full")
	}
	s.refused = append(s.refused, name)
	return nil
}

// followed is a text that is at work, and its follower. Each change of the file shows in
// its time, which is long ago.
type followed struct {
	*textSource
	*follower
	changed time.Time
}

func newFollowed(t *testing.T, text string) *followed {
	f := &followed{textSource: &textSource{path: filepath.Join(t.TempDir(), "text")}, changed: time.Now().Add(-time.Hour)}
	f.write(t, text)
	f.work.Store(&text)
	f.follower = newFollower(f.textSource, "text", slog.New(slog.DiscardHandler))
	return f
}

// write writes over the file, in place.
func (f *followed) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(f.path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f.changed = f.changed.Add(time.Second)
	if err := os.Chtimes(f.path, f.changed, f.changed); err != nil {
		t.Fatal(err)
	}
}

// do does one thing: "look", "ask", "remove", "full", "room", or writes what follows
// "write ".
func (f *followed) do(t *testing.T, what string) {
	t.Helper()
	switch text, write := strings.CutPrefix(what, "write "); {
	case write:
		f.write(t, text)
	case what == "look" || what == "ask":
		f.look(t.Context(), what == "ask")
	case what == "remove":
		if err := os.Remove(f.path); err != nil {
			t.Fatal(err)
		}
	default:
		f.full = what == "full"
	}
}

func TestFollower(t *testing.T) {
	for _, row := range []struct {
		name    string
		do      string // one after the other
		work    string // what is at work then, and was "one" before
		refused string // what has been refused until then
		stays   bool   // whether the file is one that is refused
	}{
		{"unchanged", "look, look, look", "one", "", false},
		{"changed", "write two, look, look", "two", "", false},
		{"changed a moment ago", "write two, look", "one", "", false},
		{"changed while followed", "look, look, look, write two, look, look", "two", "", false},
		{"changed while it is written", "write t, look, write tw, look, write two, look", "one", "", false},
		{"changed while it is written, to the end", "write t, look, write tw, look, write two, look, look", "two", "", false},
		{"bad while it is written", "write bad, look, write two, look, look", "two", "", false},
		{"back to the former text before it is taken", "write two, look, write one, look, look", "one", "", false},
		{"back to the former text", "write two, look, look, write one, look, look", "one", "", false},
		{"unreadable", "remove, look, look, look", "one", "", true},
		{"unreadable for a moment", "remove, look, write one, look, look", "one", "", false},
		{"unreadable, then back", "remove, look, look, write one, look, look", "one", "", false},
		{"unreadable, then another", "remove, look, look, write two, look, look", "two", "", false},
		{"refused, once", "write bad, look, look, look, look", "one", "bad", true},
		{"refused, then another that is", "write bad, look, look, write bad too, look, look", "one", "bad, bad too", true},
		{"refused, then good", "write bad, look, look, write two, look, look", "two", "bad", false},
		{"refused, then back", "write bad, look, look, write one, look, look", "one", "bad", false},
		{"refused, back, and again", "write bad, look, look, write one, look, look, write bad, look, look", "one", "bad, bad", true},
		{"asked for", "write two, ask", "two", "", false},
		{"asked for what is at work", "ask, ask", "one", "", false},
		{"asked for what is bad", "write bad, ask, look, look", "one", "bad", true},
		{"asked for what is refused already", "write bad, look, look, ask", "one", "bad, bad", true},
		{"not recorded", "full, write two, look, look, look", "one", "", false},
		{"recorded later", "full, write two, look, look, room, look", "two", "", false},
		{"refused later", "full, write bad, look, look, room, look", "one", "bad", true},
	} {
		f := newFollowed(t, "one")
		for what := range strings.SplitSeq(row.do, ", ") {
			f.do(t, what)
		}
		refused := strings.Join(f.textSource.refused, ", ")
		if work := *f.work.Load(); work != row.work || refused != row.refused || f.follower.refused.Load() != row.stays {
			t.Errorf("%s: %q at work, %q refused, still so %v; want %q, %q, %v", row.name, work, refused, f.follower.refused.Load(), row.work, row.refused, row.stays)
		}
	}
}

// What has been refused is judged once more when what it is judged by has changed.
func TestFollowerAgain(t *testing.T) {
	f := newFollowed(t, "one")
	for _, what := range []string{"write bad", "look", "look", "look"} {
		f.do(t, what)
	}
	f.again()
	f.do(t, "look")
	f.do(t, "look")
	if n := len(f.textSource.refused); n != 2 {
		t.Errorf("refused %d times, want 2", n)
	}
}

// A file is read when it may have changed, and when that is asked for.
func TestFollowerReads(t *testing.T) {
	for _, row := range []struct {
		name string
		do   string
		want int
	}{
		{"unchanged", "look, look, look, look", 1},
		{"changed", "look, write two, look, look, look, look", 3},
		{"refused", "look, write bad, look, look, look, look", 3},
		{"gone", "look, remove, look, look, look", 4},
		{"asked for", "look, ask, ask, look", 3},
		{"not recorded", "look, full, write two, look, look, look", 4},
	} {
		f := newFollowed(t, "one")
		for what := range strings.SplitSeq(row.do, ", ") {
			f.do(t, what)
		}
		if f.reads != row.want {
			t.Errorf("%s: read %d times, want %d", row.name, f.reads, row.want)
		}
	}
}

func TestMarks(t *testing.T) {
	at := time.Now().Add(-time.Hour)
	for _, row := range []struct {
		name   string
		change func(path string) error
		want   bool // whether they are the same
	}{
		{"unchanged", func(string) error { return nil }, true},
		{"another time", func(path string) error { return os.Chtimes(path, at, at.Add(time.Nanosecond)) }, false},
		{"another size", func(path string) error { return errors.Join(os.Truncate(path, 1), os.Chtimes(path, at, at)) }, false},
		{"another file", func(path string) error {
			return errors.Join(os.WriteFile(path+".new", []byte("two"), 0o600), os.Chtimes(path+".new", at, at), os.Rename(path+".new", path))
		}, false},
		{"another mode", func(path string) error { return os.Chmod(path, 0o400) }, false},
		{"gone", os.Remove, false},
	} {
		path := filepath.Join(t.TempDir(), "file")
		if err := errors.Join(os.WriteFile(path, []byte("one"), 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
		was := marksOf([]string{path})
		if err := row.change(path); err != nil {
			t.Fatal(err)
		}
		if got := sameMarks(was, marksOf([]string{path})); got != row.want {
			t.Errorf("%s: the same %v", row.name, got)
		}
	}
	if sameMarks(nil, marksOf([]string{"gone"})) {
		t.Error("files that have not been read are the same")
	}
}

// A change right after another can leave the time of the file as it is, so that marks
// tell of it only if the file had been left alone for a while.
func TestMarksOfAFileThatHasJustChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	marks := marksOf([]string{path})
	changed := marks[0].ModTime()
	for after, want := range map[time.Duration]bool{-time.Hour: false, 0: false, markedAfter - 1: false, markedAfter: true} {
		if tell(marks, changed.Add(after)) != want {
			t.Errorf("%v after a change: %v", after, !want)
		}
	}
	if tell(marksOf([]string{path + ".gone"}), changed.Add(time.Hour)) {
		t.Error("what isn't there tells")
	}

	f := newFollowed(t, "one")
	now := time.Now()
	if err := os.Chtimes(f.path, now, now); err != nil {
		t.Fatal(err)
	}
	f.do(t, "look")
	f.do(t, "look")
	if err := errors.Join(os.WriteFile(f.path, []byte("two"), 0o600), os.Chtimes(f.path, now, now)); err != nil {
		t.Fatal(err)
	}
	f.do(t, "look")
	f.do(t, "look")
	if work := *f.work.Load(); work != "two" {
		t.Errorf("%q is at work", work)
	}
}

// Files that can't be reached keep no others waiting, and are looked at again when they
// can be.
func TestFollowWhileAFileHangs(t *testing.T) {
	hung, fine := newFollowed(t, "one"), newFollowed(t, "one")
	hung.hang = make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	reload, ended := make(chan os.Signal), make(chan struct{})
	go func() {
		follow(ctx, reload, group{followers: []*follower{hung.follower}}, group{followers: []*follower{fine.follower}})
		close(ended)
	}()
	becomes := func(f *followed, want string) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); *f.work.Load() != want; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%q is at work, not %q", *f.work.Load(), want)
			}
		}
	}
	hung.write(t, "two")
	for _, text := range []string{"two", "three", "four"} {
		fine.write(t, text)
		reload <- syscall.SIGHUP
		becomes(fine, text)
	}
	if text := *hung.work.Load(); text != "one" {
		t.Errorf("%q is at work, which nobody could read", text)
	}
	close(hung.hang)
	becomes(hung, "two")
	fine.write(t, "five") // found without being asked
	becomes(fine, "five")
	stop()
	<-ended
}
