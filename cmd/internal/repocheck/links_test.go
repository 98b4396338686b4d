package repocheck

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// lineAnchor is the form in which GitHub points at lines of a source file.
var lineAnchor = regexp.MustCompile(`^L([1-9][0-9]*)(?:-L([1-9][0-9]*))?$`)

// brokenLinks returns a line for each link of a Markdown file that leads nowhere in
// tree. Links to other sites are not followed.
func brokenLinks(tree fs.FS, name string) []string {
	text, err := fs.ReadFile(tree, name)
	if err != nil {
		return []string{err.Error()}
	}
	var lines []string
	file := parseMarkdown(string(text))
	for _, link := range file.links {
		if why := linkProblem(tree, name, file, link.dest); why != "" {
			lines = append(lines, fmt.Sprintf("%s:%d: link %q: %s", name, link.line, link.dest, why))
		}
	}
	return lines
}

func linkProblem(tree fs.FS, from string, file mdFile, dest string) string {
	u, err := url.Parse(dest)
	if err != nil {
		return "cannot be parsed"
	}
	switch {
	case u.Scheme == "http" || u.Scheme == "https" || u.Scheme == "mailto":
		return ""
	case u.Scheme != "":
		return "neither a web address nor relative"
	case dest == "":
		return "is empty"
	case u.Host != "" || strings.HasPrefix(u.Path, "/"):
		return "must be relative to the file that it stands in"
	case u.Path == "":
		if !file.anchors[u.Fragment] {
			return "the file has no such heading"
		}
		return ""
	}

	target := path.Join(path.Dir(from), u.Path)
	if target == ".." || strings.HasPrefix(target, "../") {
		return "leaves the repository"
	}
	info, err := fs.Stat(tree, target)
	if err != nil {
		return "no such file"
	}
	if u.Fragment == "" {
		return ""
	}
	if info.IsDir() {
		return "a directory has no headings"
	}
	text, err := fs.ReadFile(tree, target)
	if err != nil {
		return err.Error()
	}
	if path.Ext(target) == ".md" {
		if !parseMarkdown(string(text)).anchors[u.Fragment] {
			return "the file has no such heading"
		}
		return ""
	}
	m := lineAnchor.FindStringSubmatch(u.Fragment)
	if m == nil {
		return "only Markdown files have headings"
	}
	for _, s := range m[1:] {
		if n, _ := strconv.Atoi(s); n > strings.Count(string(text), "\n") {
			return "the file has fewer lines"
		}
	}
	return ""
}

func TestLinks(t *testing.T) {
	root, names := repoFiles(t)
	tree := os.DirFS(root)
	for _, name := range names {
		if path.Ext(name) != ".md" || strings.Contains(name, "testdata/") {
			continue
		}
		if _, err := fs.Stat(tree, name); err != nil {
			continue // deleted, and the deletion not committed yet
		}
		for _, line := range brokenLinks(tree, name) {
			t.Error(line)
		}
	}
}

func TestBrokenLinks(t *testing.T) {
	tree := fstest.MapFS{
		"README.md":          {Data: []byte("# Coatcheck\n## Try it\n")},
		"docs/guide.md":      {Data: []byte("# A guide\n")},
		"docs/adr/0001-x.md": {Data: []byte("# 1. X\n")},
		"docs/with space.md": {Data: []byte("# Y\n")},
		"keystore/keys.go":   {Data: []byte("package keystore\n\nvar x int\n")},
	}
	for _, tc := range []struct {
		dest string
		want string // of the problem; empty if the link is good
	}{
		{"../README.md", ""},
		{"../README.md#try-it", ""},
		{"./adr/0001-x.md#1-x", ""},
		{"adr/", ""},
		{"adr", ""},
		{"#here", ""},
		{"with%20space.md", ""},
		{"../keystore/keys.go", ""},
		{"../keystore/keys.go#L3", ""},
		{"../keystore/keys.go#L1-L3", ""},
		{"https://example.com/#nothing", ""},
		{"mailto:someone@example.com", ""},

		{"../READ.md", "no such file"},
		{"README.md", "no such file"},
		{"../README.md#try", "the file has no such heading"},
		{"../README.md#Try-it", "the file has no such heading"},
		{"#there", "the file has no such heading"},
		{"adr/#x", "a directory has no headings"},
		{"../keystore/keys.go#L4", "the file has fewer lines"},
		{"../keystore/keys.go#x", "only Markdown files have headings"},
		{"../../issues", "leaves the repository"},
		{"/docs/guide.md", "must be relative to the file that it stands in"},
		{"/" + "home/ann/guide.md", "must be relative to the file that it stands in"},
		{"//example.com/x", "must be relative to the file that it stands in"},
		{"file:///etc/passwd", "neither a web address nor relative"},
		{"", "is empty"},
		{"%zz.md", "cannot be parsed"},
	} {
		t.Run(tc.dest, func(t *testing.T) {
			tree["docs/from.md"] = &fstest.MapFile{Data: []byte("# Here\n\n[a link](" + tc.dest + ")\n")}
			got := brokenLinks(tree, "docs/from.md")
			var want []string
			if tc.want != "" {
				want = []string{fmt.Sprintf("docs/from.md:3: link %q: %s", tc.dest, tc.want)}
			}
			if !slices.Equal(got, want) {
				t.Errorf("have %q, want %q", got, want)
			}
		})
	}
}
