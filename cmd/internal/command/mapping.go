package command

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/coatcheck/coatcheck/cmd/internal/rows"
)

// mapping says which fields are of which profile.
type mapping struct {
	maps     []string // field=profile, as flags give them
	profile  string   // of lines
	optional []string // fields that rows may lack
	inFlight int

	fields, profiles []string
}

// flags adds the flags of a mapping.
func (m *mapping) flags(cmd *cobra.Command, how string) {
	cmd.Flags().StringArrayVar(&m.maps, "map", nil, how)
	cmd.Flags().StringVar(&m.profile, "profile", "", "the profile, with --format lines")
	cmd.Flags().StringArrayVar(&m.optional, "optional", nil, "a field that JSON objects may lack; one that lacks another is rejected. Repeat it")
	cmd.Flags().IntVar(&m.inFlight, "in-flight", 4096, "rows on their way at once")
}

// parse reads the flags. required says that each field needs a profile.
func (m *mapping) parse(format rows.Format, required bool) error {
	switch {
	case m.inFlight < 1 || m.inFlight > 1<<20:
		return errors.New("--in-flight is from 1 to 1048576")
	case format == rows.Lines && len(m.maps) > 0:
		return errors.New("--map is for fields, and lines have none: --profile says which it is")
	case format == rows.Lines && m.profile == "" && required:
		return errors.New("--profile is needed for lines")
	case format == rows.Lines:
		m.fields, m.profiles = []string{rows.LineField}, []string{m.profile}
		return nil
	case m.profile != "":
		return errors.New("--profile is for lines; --map says of which profile a field is")
	case len(m.maps) == 0:
		return errors.New("--map is needed: which field is of which profile")
	}
	for _, arg := range m.maps {
		// A profile has no equals sign, a field may.
		at := strings.LastIndexByte(arg, '=')
		field, profile := arg, ""
		if at >= 0 {
			field, profile = arg[:at], arg[at+1:]
		}
		if field == "" || required && profile == "" {
			return fmt.Errorf("--map %q: is not of the form field=profile", arg)
		}
		if slices.Contains(m.fields, field) {
			return fmt.Errorf("--map %q: the field is mapped twice", arg)
		}
		m.fields, m.profiles = append(m.fields, field), append(m.profiles, profile)
	}
	return nil
}

// checkOptional says what is wrong with --optional, where the fields of a row are
// known.
func (m *mapping) checkOptional(fields []string) error {
	for _, name := range m.optional {
		if !slices.Contains(fields, name) {
			return fmt.Errorf("--optional %q: is no field that is asked for", name)
		}
	}
	return nil
}

// lacking refuses a row that lacks a field: the name may be mistyped, and the
// values would pass.
func (m *mapping) lacking(r *rowInFlight, fields []string) *rows.Refusal {
	for i, name := range fields {
		if r.Lacks(i) && !slices.Contains(m.optional, name) {
			return malformed(name, "has no such field; --optional names those that rows may lack")
		}
	}
	return nil
}

// text is the mapping as the state file has it.
func (m *mapping) text() string {
	if m.profile != "" {
		return m.profile
	}
	return strings.Join(m.maps, " ")
}
