package policy

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

const (
	maxFile  = 1 << 20 // bytes
	maxDepth = 16      // of lists and mappings in each other; a policy needs 4
)

// readDocument returns the content of the one YAML document of a file. Nodes
// rather than Go values are what the rest works on, since they know where they
// stand. What a policy has no use for and a reader might trip over is refused:
// anchors and aliases, and with them documents that grow when they are read.
func readDocument(data []byte, p *problems) (*yaml.Node, bool) {
	if len(data) > maxFile {
		p.at(1, 1, "the file has more than %d bytes", maxFile)
		return nil, false
	}
	if line, column, ok := plainText(data); !ok {
		p.at(line, column, "not plain text: a byte that is not UTF-8, or a control character")
		return nil, false
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth))))
	if err != nil {
		p.at(1, 1, "%v", err)
		return nil, false
	}
	var document, second yaml.Node
	switch err := loader.Load(&document); {
	case err == io.EOF:
		p.at(1, 1, `the file is empty; a policy that denies everything is "version: 1" and "rules: []"`)
		return nil, false
	case err != nil:
		p.syntax(err)
		return nil, false
	}
	switch err := loader.Load(&second); {
	case err == nil:
		p.node(&second, "a second YAML document begins here; a policy is one")
		return nil, false
	case err != io.EOF:
		p.syntax(err)
		return nil, false
	}
	if len(document.Content) != 1 {
		p.node(&document, "not a YAML document")
		return nil, false
	}
	refuseAliases(document.Content[0], p)
	return document.Content[0], p.none()
}

// plainText says whether data is UTF-8 without control characters but tabs and
// line breaks, and if not, where the first place is.
func plainText(data []byte) (line, column int, ok bool) {
	line, column = 1, 1
	for len(data) > 0 {
		r, size := utf8.DecodeRune(data)
		switch {
		case r == utf8.RuneError && size == 1, r < ' ' && r != '\t' && r != '\r' && r != '\n', r == 0x7f:
			return line, column, false
		case r == '\n':
			line, column = line+1, 0
		}
		column++
		data = data[size:]
	}
	return line, column, true
}

// refuseAliases adds each anchor, alias and tag of one's own below a node. It doesn't
// follow aliases, so it visits no node twice. YAML takes an exclamation mark for a tag, and
// so takes it away: an expression would mean the opposite.
func refuseAliases(n *yaml.Node, p *problems) {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		p.node(n, "anchors and aliases are not supported; write it out")
		return
	}
	if strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") {
		p.node(n, `YAML takes "!" for a tag: put what begins with it in quotes`)
		return
	}
	for _, child := range n.Content {
		refuseAliases(child, p)
	}
}

// yamlHints say what may be wrong where the YAML library says something.
var yamlHints = map[string]string{
	"mapping values are not allowed":   `; text with ": " in it, such as an expression, has to be in quotes`,
	"did not find expected key":        `; text that begins with a quotation mark and goes on after the second has to be in other quotes`,
	"found character '\"' that is not": `; text that begins with "!" has to be in quotes`,
}

// syntax adds an error of the YAML library.
func (p *problems) syntax(err error) {
	var load *yaml.LoadError
	if !errors.As(err, &load) {
		p.at(1, 1, "not YAML: %v", err)
		return
	}
	for message, hint := range yamlHints {
		if strings.HasPrefix(load.Message, message) {
			load.Message += hint
		}
	}
	if load.ContextMsg != "" && load.ContextMark.Line > 0 && load.ContextMark != load.Mark {
		p.at(load.Mark.Line, load.Mark.Column, "not YAML: %s (%s that begins at %d:%d)",
			load.Message, load.ContextMsg, load.ContextMark.Line, load.ContextMark.Column)
		return
	}
	p.at(load.Mark.Line, load.Mark.Column, "not YAML: %s", load.Message)
}
