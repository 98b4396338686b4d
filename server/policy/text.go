package policy

import (
	"bytes"
	"errors"
	"fmt"

	"go.yaml.in/yaml/v4"
)

// Text returns the file written anew, without comments and descriptions: what it says
// to the server, and nothing that it says to people alone.
func (p *Policy) Text() (string, error) {
	root, ok := readDocument(p.text, &problems{file: p.file})
	if !ok {
		return "", fmt.Errorf("policy: %s can't be read again", p.file)
	}
	dropComments(root)
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == "rules" {
			for _, rule := range root.Content[i+1].Content {
				dropDescription(rule)
			}
		}
	}
	var text bytes.Buffer
	dumper, err := yaml.NewDumper(&text, yaml.WithIndent(2), yaml.WithLineWidth(-1))
	if err != nil {
		return "", err
	}
	if err := errors.Join(dumper.Dump(root), dumper.Close()); err != nil {
		return "", err
	}
	return text.String(), nil
}

func dropComments(n *yaml.Node) {
	n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	for _, child := range n.Content {
		dropComments(child)
	}
}

func dropDescription(rule *yaml.Node) {
	for i := 0; i+1 < len(rule.Content); i += 2 {
		if rule.Content[i].Value == "description" {
			rule.Content = append(rule.Content[:i], rule.Content[i+2:]...)
			return
		}
	}
}
