package policy

import _ "embed"

//go:embed policy.schema.json
var schema string

// Schema returns the JSON Schema (draft 2020-12) of a policy file, for editors. It is
// laxer than Parse: what depends on the vocabulary it can't know.
func Schema() string { return schema }
