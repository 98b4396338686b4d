package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// document is a YAML file with the places of its keys.
type document struct {
	file string
	root *yaml.Node
}

// decode decodes a file strictly into out.
func decode(file string, data []byte, out any) (document, error) {
	doc := document{file: file, root: new(yaml.Node)}
	if len(strings.TrimSpace(string(data))) == 0 {
		return doc, fmt.Errorf("%s:1:1: the file is empty", file)
	}
	options := yaml.Options(yaml.WithKnownFields(), yaml.WithUniqueKeys())
	loader, err := yaml.NewLoader(bytes.NewReader(data), options)
	if err == nil {
		err = loader.Load(doc.root)
	}
	if err != nil {
		return doc, located(file, err)
	}
	var second yaml.Node
	if err := loader.Load(&second); !errors.Is(err, io.EOF) {
		return doc, at(file, yaml.Mark{Line: second.Line, Column: second.Column}, "a second document begins; there may be one only")
	}
	return doc, located(file, yaml.Load(data, out, options, yaml.WithSingleDocument()))
}

// located gives the errors of the YAML library the form file:line:column:
// message.
func located(file string, err error) error {
	var many *yaml.LoadErrors
	var one *yaml.LoadError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &many):
		var faults []error
		for _, e := range many.Errors {
			faults = append(faults, at(file, e.Mark, e.Message))
		}
		return errors.Join(faults...)
	case errors.As(err, &one):
		return at(file, one.Mark, one.Message)
	}
	return fmt.Errorf("%s: %w", file, err)
}

// at words an error. The library speaks of Go types, which people who write
// configurations don't know.
func at(file string, mark yaml.Mark, message string) error {
	if key, _, ok := strings.Cut(message, " not found in type "); ok {
		message = fmt.Sprintf("unknown key %q", strings.TrimPrefix(key, "field "))
	}
	if text, kind, ok := strings.Cut(message, " into "); ok && strings.HasPrefix(text, "cannot construct ") {
		_, text, _ = strings.Cut(text, " `")
		message = fmt.Sprintf("%q is not %s", strings.TrimSuffix(text, "`"), kindName(kind))
	}
	return fmt.Errorf("%s:%d:%d: %s", file, max(mark.Line, 1), max(mark.Column, 1), message)
}

// kindName is how people who write configurations call a Go type.
func kindName(kind string) string {
	switch kind {
	case "time.Duration":
		return "a duration, such as 15m or 720h"
	case "[]string":
		return "a list, as in [one, two]"
	case "bool":
		return "true or false"
	case "int", "int64":
		return "a whole number"
	case "uint32", "uint64":
		return "a whole number from 0 on"
	}
	return "of the type " + kind
}

// fault returns an error at the key with the path, or, where that is missing,
// at the last key before it that is there.
func (d document) fault(message string, path ...string) error {
	node := d.root
	if node.Kind == yaml.DocumentNode && len(node.Content) > 0 {
		node = node.Content[0]
	}
	mark := yaml.Mark{Line: node.Line, Column: node.Column}
	for _, key := range path {
		found := false
		for i := 0; i+1 < len(node.Content) && node.Kind == yaml.MappingNode; i += 2 {
			if node.Content[i].Value == key {
				mark = yaml.Mark{Line: node.Content[i].Line, Column: node.Content[i].Column}
				node, found = node.Content[i+1], true
				break
			}
		}
		if !found {
			break
		}
	}
	return at(d.file, mark, message)
}
