package repocheck

import (
	"fmt"
	"html"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// A mdLink is a link, an image or a reference definition in a Markdown file.
type mdLink struct {
	line int
	dest string
}

// A mdFile is what the link check needs to know of a Markdown file.
type mdFile struct {
	links   []mdLink
	anchors map[string]bool
}

var (
	fenceLine     = regexp.MustCompile("^ {0,3}(```+|~~~+)(.*)$")
	atxHeading    = regexp.MustCompile(`^ {0,3}#{1,6}(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$`)
	setextLine    = regexp.MustCompile(`^ {0,3}(?:=+|-+)[ \t]*$`)
	blockStart    = regexp.MustCompile(`^ {0,3}(?:[-+*>|]|\d+[.)][ \t]|$)`)
	linkTarget    = regexp.MustCompile(`\]\(\s*(?:<([^<>\n]*)>|((?:\\.|[^\s()\\]|\((?:\\.|[^\s()\\])*\))*))(?:\s+(?:"[^"]*"|'[^']*'|\([^()]*\)))?\s*\)`)
	linkReference = regexp.MustCompile(`(?m)^ {0,3}\[[^\]\n]+\]:[ \t]*(?:<([^<>\n]*)>|(\S+))`)
	htmlTarget    = regexp.MustCompile(`(?i)<(?:a|img|source)\b[^>]*?\s(?:href|src)\s*=\s*(?:"([^"]*)"|'([^']*)')`)
	htmlAnchor    = regexp.MustCompile(`(?i)<[a-z][a-z0-9]*\b[^>]*?\s(?:id|name)\s*=\s*(?:"([^"]*)"|'([^']*)')`)
	htmlComment   = regexp.MustCompile(`(?s)<!--.*?-->`)
	escaped       = regexp.MustCompile(`\\([!-/:-@\[-` + "`" + `{-~])`)
)

// parseMarkdown finds the links and the anchors of a file as GitHub shows it. It
// knows as much of Markdown as documentation uses: no indented code, no links
// whose text or title holds unbalanced brackets.
func parseMarkdown(text string) mdFile {
	file := mdFile{anchors: make(map[string]bool)}
	text = blank(strings.ReplaceAll(text, "\r\n", "\n"), htmlComment)
	text = blankFences(text)

	// Headings keep their code, links lose it.
	seen := make(map[string]int)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		heading, ok := "", false
		if m := atxHeading.FindStringSubmatch(line); m != nil {
			heading, ok = m[1], true
		} else if i+1 < len(lines) && setextLine.MatchString(lines[i+1]) && !blockStart.MatchString(line) {
			heading, ok = line, true
		}
		if !ok {
			continue
		}
		slug := anchor(heading)
		name := slug
		if n := seen[slug]; n > 0 {
			name = fmt.Sprintf("%s-%d", slug, n)
		}
		seen[slug]++
		file.anchors[name] = true
	}

	text = blankCodeSpans(text)
	for _, m := range htmlAnchor.FindAllStringSubmatch(text, -1) {
		file.anchors[m[1]+m[2]] = true
	}
	for _, re := range []*regexp.Regexp{linkTarget, linkReference, htmlTarget} {
		for _, at := range re.FindAllStringSubmatchIndex(text, -1) {
			dest := ""
			for group := 2; group < len(at); group += 2 {
				if at[group] >= 0 {
					dest += text[at[group]:at[group+1]]
				}
			}
			dest = html.UnescapeString(escaped.ReplaceAllString(dest, "$1"))
			file.links = append(file.links, mdLink{line: 1 + strings.Count(text[:at[0]], "\n"), dest: dest})
		}
	}
	return file
}

// blank replaces what matches by spaces, so that lines keep their numbers.
func blank(text string, re *regexp.Regexp) string {
	return re.ReplaceAllStringFunc(text, func(s string) string {
		return strings.Map(func(r rune) rune {
			if r == '\n' {
				return r
			}
			return ' '
		}, s)
	})
}

// blankFences empties fenced code blocks.
func blankFences(text string) string {
	lines := strings.Split(text, "\n")
	fence := ""
	for i, line := range lines {
		m := fenceLine.FindStringSubmatch(strings.TrimLeft(line, " \t>")) // also in lists and quotes
		switch {
		case fence == "" && m != nil && !(m[1][0] == '`' && strings.Contains(m[2], "`")):
			fence = m[1]
		case fence == "":
			continue
		case m != nil && m[1][0] == fence[0] && len(m[1]) >= len(fence) && strings.TrimSpace(m[2]) == "":
			fence = ""
		}
		lines[i] = ""
	}
	return strings.Join(lines, "\n")
}

// blankCodeSpans empties code spans: a run of backticks up to the next run of the
// same length in the same paragraph.
func blankCodeSpans(text string) string {
	out := []byte(text)
	for i := 0; i < len(text); {
		if text[i] == '\\' && i+1 < len(text) {
			i += 2
			continue
		}
		if text[i] != '`' {
			i++
			continue
		}
		opening := backticks(text, i)
		paragraph := len(text)
		if end := strings.Index(text[i:], "\n\n"); end >= 0 {
			paragraph = i + end
		}
		next := i + opening
		for j := next; j < paragraph; j++ {
			if text[j] != '`' {
				continue
			}
			closing := backticks(text, j)
			if closing == opening {
				for k := i; k < j+closing; k++ {
					if out[k] != '\n' {
						out[k] = ' '
					}
				}
				next = j + closing
				break
			}
			j += closing - 1
		}
		i = next
	}
	return string(out)
}

func backticks(text string, at int) int {
	return len(text[at:]) - len(strings.TrimLeft(text[at:], "`"))
}

var (
	headingCode     = regexp.MustCompile("`+[^`]*`+")
	headingImage    = regexp.MustCompile(`!\[[^\]]*\]\([^)]*\)`)
	headingLink     = regexp.MustCompile(`\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])`)
	headingTag      = regexp.MustCompile(`</?[A-Za-z][^>]*>`)
	headingEmphasis = regexp.MustCompile(`(^|[^\pL\pN])_+([^_\s](?:[^_]*[^_\s])?)_+($|[^\pL\pN])`)
)

// anchor returns the name that GitHub gives to a heading: of the text as shown, in
// lower case, everything but letters, marks, digits, connectors, hyphens and spaces
// is left out, then each space becomes a hyphen.
func anchor(heading string) string {
	// What is in code stands as it is: hide it from the rest of the mark-up.
	var code []string
	heading = headingCode.ReplaceAllStringFunc(heading, func(s string) string {
		code = append(code, strings.Trim(s, "`"))
		return "\x00"
	})
	heading = headingImage.ReplaceAllString(heading, "")
	heading = headingLink.ReplaceAllString(heading, "$1")
	heading = headingTag.ReplaceAllString(heading, "")
	heading = headingEmphasis.ReplaceAllString(heading, "$1$2$3")
	heading = html.UnescapeString(heading)
	for _, s := range code {
		heading = strings.Replace(heading, "\x00", s, 1)
	}

	var b strings.Builder
	for _, r := range strings.ToLower(strings.TrimSpace(heading)) {
		switch {
		case r == ' ':
			b.WriteByte('-')
		case r == '-', unicode.In(r, unicode.L, unicode.M, unicode.Nd, unicode.Pc):
			b.WriteRune(r)
		}
	}
	return b.String()
}

func TestAnchor(t *testing.T) {
	for heading, want := range map[string]string{
		"Keys":                             "keys",
		"The way through":                  "the-way-through",
		"3. The way through":               "3-the-way-through",
		"What is it? Why, a vault!":        "what-is-it-why-a-vault",
		"Tokens & keys":                    "tokens--keys",
		"Tokens &amp; keys":                "tokens--keys",
		"Rotate – then retire":             "rotate--then-retire",
		"`make check`":                     "make-check",
		"The `max_offline` setting":        "the-max_offline-setting",
		"`_x_` in code":                    "_x_-in-code",
		"max_uses and ttl_":                "max_uses-and-ttl_",
		"An _important_ word":              "an-important-word",
		"A **bold** *word*":                "a-bold-word",
		"See [the design](DESIGN.md#x)":    "see-the-design",
		"![logo](logo.png) Coatcheck":      "coatcheck",
		`<a id="top"></a>Top`:              "top",
		"cmd/internal/repocheck":           "cmdinternalrepocheck",
		"v1.2.0 - 2026-11-24":              "v120---2026-11-24",
		"[1.2.0] - 2026-11-24":             "120---2026-11-24",
		"Größe und Maß":                    "größe-und-maß",
		"--listen":                         "--listen",
		"  spaces around  ":                "spaces-around",
		"coatcheck.v1.TokenizationService": "coatcheckv1tokenizationservice",
	} {
		if got := anchor(heading); got != want {
			t.Errorf("%q: anchor is %q, want %q", heading, got, want)
		}
	}
}

func TestParseMarkdown(t *testing.T) {
	file := parseMarkdown(strings.ReplaceAll(`# Title
[one](one.md) and ![two](two.png "a title") and [three](<with space.md>)
[four][ref] [five](docs/a_(b).md#part) §[six](no.md)§

[ref]: four.md
<a href="seven.md">seven</a> <img alt="" src='eight.png'>

§§§sh
[in a fence](no.md)
# not a heading
§§§

- item
  ~~~
  [in a nested fence](no.md)
  ~~~

<!-- [in a comment](no.md)
still -->
Setext heading
--------------

## Twice
## Twice ##
<a name="by-hand"></a>
§§§ not a fence §§§ [nine](nine.md)
[![ten](ten.svg)](https://example.com/ten)
§a span
over lines [no](no.md)§ [eleven](#twice-1)

| a | table |
|---|-------|
---
`, "§", "`"))

	want := []mdLink{
		{2, "one.md"}, {2, "two.png"}, {2, "with space.md"}, {3, "docs/a_(b).md#part"},
		{26, "nine.md"}, {27, "ten.svg"}, {27, "https://example.com/ten"}, {29, "#twice-1"},
		{5, "four.md"}, {6, "seven.md"}, {6, "eight.png"},
	}
	if len(file.links) != len(want) {
		t.Errorf("%d links, want %d", len(file.links), len(want))
	}
	for i := range min(len(file.links), len(want)) {
		if file.links[i] != want[i] {
			t.Errorf("link %d is %+v, want %+v", i, file.links[i], want[i])
		}
	}
	wantAnchors := []string{"title", "setext-heading", "twice", "twice-1", "by-hand"}
	for _, name := range wantAnchors {
		if !file.anchors[name] {
			t.Errorf("no anchor %q", name)
		}
	}
	if len(file.anchors) != len(wantAnchors) {
		t.Errorf("anchors are %v, want %q", file.anchors, wantAnchors)
	}
}
