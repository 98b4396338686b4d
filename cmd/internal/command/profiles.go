package command

import (
	"fmt"
	"io"
	"math/big"
	"strings"
	"text/tabwriter"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// What check-config --json prints. Names and meanings are a promise: fields may
// be added.
type (
	jsonChecked struct {
		Config   string        `json:"config"`
		Profiles []jsonProfile `json:"profiles"`
		Notes    []string      `json:"notes"` // about the policy
	}
	jsonProfile struct {
		Profile  string   `json:"profile"`
		Type     string   `json:"type"`
		Mode     string   `json:"mode"`
		Format   string   `json:"format,omitempty"`
		Example  string   `json:"example"`            // a token, or in the mode one-way a masked form
		Capacity *big.Int `json:"capacity,omitempty"` // tokens for a usual value
		Notes    []string `json:"notes"`
	}
)

// noted returns the notes about a policy, one by one.
func noted(notes error) []string {
	if notes == nil {
		return []string{}
	}
	return strings.Split(notes.Error(), "\n")
}

// checkedProfiles describes the profiles of a configuration.
func checkedProfiles(profiles []tokenizer.Profile) ([]jsonProfile, error) {
	list := make([]jsonProfile, 0, len(profiles))
	for _, p := range profiles {
		d, err := p.Describe()
		if err != nil {
			return nil, err
		}
		p = p.WithDefaults()
		list = append(list, jsonProfile{
			Profile: p.Name, Type: p.Type, Mode: string(p.Mode), Format: string(p.Format),
			Example: d.Example, Capacity: d.Capacity, Notes: append([]string{}, d.Notes...),
		})
	}
	return list, nil
}

// printProfiles prints a table of profiles, and what there is to note about them.
func printProfiles(w io.Writer, profiles []jsonProfile) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PROFILE\tTYPE\tMODE\tFORMAT\tCAPACITY\tEXAMPLE")
	for _, p := range profiles {
		format, capacity := p.Format, "-"
		if format == "" {
			format = "-"
		}
		if p.Capacity != nil {
			capacity = groupedBig(p.Capacity)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", p.Profile, p.Type, p.Mode, format, capacity, printable(strings.ReplaceAll(p.Example, "\n", " ")))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, p := range profiles {
		for _, note := range p.Notes {
			if _, err := fmt.Fprintf(w, "%s: %s\n", p.Profile, note); err != nil {
				return err
			}
		}
	}
	return nil
}

// groupedBig writes a number as people read it; beyond a quadrillion, as a power of
// ten.
func groupedBig(n *big.Int) string {
	digits := n.String()
	if len(digits) > 15 {
		return fmt.Sprintf("%s.%se%d", digits[:1], digits[1:2], len(digits)-1)
	}
	return grouped(n.Uint64())
}
