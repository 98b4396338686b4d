package repocheck

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const module = "github.com/coatcheck/coatcheck"

// repoRoot returns the directory of the root module's go.mod.
func repoRoot(t *testing.T) string {
	t.Helper()
	gomod := strings.TrimSpace(string(command(t, ".", "go", "env", "GOMOD")))
	if filepath.Base(gomod) != "go.mod" {
		t.Fatalf("not inside the module: go env GOMOD says %q", gomod)
	}
	return filepath.Dir(gomod)
}

// command returns the standard output of a program that has to succeed.
func command(t *testing.T, dir, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return out
}

// repoFiles returns the slash-separated names of the files that git tracks, and
// of those that it would, so that a new file is looked at before its first commit.
// It skips the test in a tree without git, such as a source archive.
func repoFiles(t *testing.T) (root string, names []string) {
	t.Helper()
	root = repoRoot(t)
	if _, err := os.Stat(filepath.Join(root, ".git")); errors.Is(err, fs.ErrNotExist) {
		t.Skip("not a git checkout")
	}
	// The checkout may belong to another user than the one who runs the tests.
	out := command(t, root, "git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	for _, name := range strings.Split(string(out), "\x00") {
		if name != "" {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		t.Fatal("git lists no files")
	}
	return root, names
}

// workplacePath matches an absolute path of the machine on which something was
// written. The directories are put together here so that this file doesn't match.
var workplacePath = regexp.MustCompile(`(?:^|[^\w./~$}-])/(?:` + strings.Join([]string{"work", "root", "home"}, "|") + `)/`)

func TestNoFileNamesAWorkplacePath(t *testing.T) {
	root, names := repoFiles(t)
	for _, name := range names {
		info, err := os.Lstat(filepath.Join(root, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, and the deletion not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		if !info.Mode().IsRegular() {
			continue
		}
		content, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range bytes.Split(content, []byte("\n")) {
			if found := workplacePath.Find(line); found != nil {
				t.Errorf("%s:%d: names the path %q", name, i+1, found)
			}
		}
	}
}

func TestWorkplacePath(t *testing.T) {
	for _, tc := range []struct {
		line string
		want bool
	}{
		{"/" + "work/main", true},
		{"see /" + "root/go for it", true},
		{`"/` + `home/ann/src"`, true},
		{"file:/" + "/" + "/" + "home/ann", false}, // after a slash: links_test.go refuses it
		{"https://example.com/" + "home/page", false},
		{"internal/" + "work/queue", false},
		{"./" + "work/queue", false},
		{"$HOME/" + "work/queue", false},
		{"${HOME}/" + "work/queue", false},
		{"~/" + "work/queue", false},
		{"/" + "workload/", false},
		{"/" + "homework", false},
	} {
		if got := workplacePath.MatchString(tc.line); got != tc.want {
			t.Errorf("%q: matches is %v, want %v", tc.line, got, tc.want)
		}
	}
}
