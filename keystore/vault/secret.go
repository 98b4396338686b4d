package vault

import (
	"fmt"
	"os"
	"strings"
)

// Secret says where a secret is to be found: in a file or in an environment
// variable, never in the configuration itself. Exactly one of the two is set.
type Secret struct {
	// File is the path of a file, which is read at every login, so that it can
	// be replaced while the service runs. White space around what it holds is
	// ignored.
	File string

	// Env is the name of an environment variable.
	Env string
}

// maxSecret is the largest size in bytes of a file with a secret. A Kubernetes
// token has about 1 KiB.
const maxSecret = 64 << 10

// credentialsError says that what to log in with can't be had, and why. It comes
// with keystore.ErrUnavailable, since nobody has refused us yet.
type credentialsError string

// Error implements error.
func (e credentialsError) Error() string { return "can't read credentials: " + string(e) }

// read returns the secret.
//
// Errors: credentialsError.
func (s Secret) read(getenv func(string) string) (string, error) {
	if s.File == "" {
		value := strings.TrimSpace(getenv(s.Env))
		if value == "" {
			return "", credentialsError("environment variable " + s.Env + " is empty")
		}
		return value, nil
	}
	info, err := os.Stat(s.File)
	if err != nil {
		return "", credentialsError(err.Error())
	}
	if !info.Mode().IsRegular() || info.Size() > maxSecret {
		return "", credentialsError(fmt.Sprintf("%s is not a file of at most %d bytes", s.File, maxSecret))
	}
	content, err := os.ReadFile(s.File)
	if err != nil {
		return "", credentialsError(err.Error())
	}
	defer clear(content)
	value := strings.TrimSpace(string(content))
	if value == "" {
		return "", credentialsError(s.File + " is empty")
	}
	return value, nil
}

// faults returns what is wrong with it, as the field of that name.
func (s Secret) faults(field string) []FieldError {
	switch {
	case s.File == "" && s.Env == "":
		return []FieldError{{field, "names neither a file nor an environment variable"}}
	case s.File != "" && s.Env != "":
		return []FieldError{{field, "names both a file and an environment variable"}}
	}
	return nil
}
