package service

import (
	"io/fs"
	"os"
	"time"
)

// markedAfter is how long after a change of a file another one shows in its time, on all
// file systems.
const markedAfter = 3 * time.Second

// marksOf returns what can be known about files without reading them; nil of one about
// which nothing can.
func marksOf(paths []string) []fs.FileInfo {
	marks := make([]fs.FileInfo, len(paths))
	for i, path := range paths {
		if info, err := os.Stat(path); err == nil {
			marks[i] = info
		}
	}
	return marks
}

// tell says whether marks of now tell of every change from now on. Those of a file that
// has changed a moment ago, or in the future, don't.
func tell(marks []fs.FileInfo, now time.Time) bool {
	for _, m := range marks {
		if m == nil || now.Sub(m.ModTime()) < markedAfter {
			return false
		}
	}
	return true
}

// sameMarks says whether marks are of the same files, unchanged.
func sameMarks(was, is []fs.FileInfo) bool {
	if len(was) != len(is) {
		return false
	}
	for i, m := range is {
		if m == nil || !os.SameFile(was[i], m) || m.Size() != was[i].Size() || m.Mode() != was[i].Mode() || !m.ModTime().Equal(was[i].ModTime()) {
			return false
		}
	}
	return true
}
