package vault

import (
	"fmt"
	"os"
	"regexp"
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
	content, err := readFile(s.File)
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

// readFile reads a file of the configuration. A FIFO or a device would hang us.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSecret {
		return nil, fmt.Errorf("%s is not a file of at most %d bytes", path, maxSecret)
	}
	return os.ReadFile(path)
}

// envForm is what a variable can be called. A secret that was put into its place
// by mistake hardly is, and must not be repeated in an error.
var envForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// faults returns what is wrong with it, as the field of that name.
func (s Secret) faults(field string) []FieldError {
	switch {
	case s.File == "" && s.Env == "":
		return []FieldError{{field, "names neither a file nor an environment variable"}}
	case s.File != "" && s.Env != "":
		return []FieldError{{field, "names both a file and an environment variable"}}
	case s.Env != "" && !envForm.MatchString(s.Env):
		return []FieldError{{field, "is not the name of an environment variable"}}
	}
	return nil
}
