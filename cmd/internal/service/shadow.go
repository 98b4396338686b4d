package service

import (
	"context"
	"log/slog"

	"github.com/coatcheck/coatcheck/cmd/internal/config"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/policy"
)

// loadShadow reads the shadow policy; it returns nil if none is configured. A fault of
// the file keeps no server from its work: there is a Shadow without a policy then.
func loadShadow(c *config.Config) (shadow *server.Shadow, fault error) {
	if c.ShadowPolicy == "" {
		return nil, nil
	}
	shadow = new(server.Shadow)
	data, fault := read("shadow_policy", c.ShadowPolicy)
	if fault != nil {
		return shadow, fault
	}
	rules, fault := parseShadow(c, data)
	if fault == nil {
		shadow.Replace(rules)
	}
	return shadow, fault
}

func parseShadow(c *config.Config, data []byte) (*policy.Policy, error) {
	return policy.Parse(c.ShadowPolicy, data, server.Vocabulary(c.TokenizerProfiles()))
}

// shadowSource is the file of the shadow policy. Nothing depends on it, so the audit log
// doesn't tell of it.
type shadowSource struct {
	config *config.Config
	shadow *server.Shadow
	log    *slog.Logger
}

func (s *shadowSource) paths() []string { return []string{s.config.ShadowPolicy} }

func (s *shadowSource) read() ([][]byte, error) {
	data, err := read("shadow_policy", s.config.ShadowPolicy)
	return [][]byte{data}, err
}

func (s *shadowSource) working() string {
	if p := s.shadow.Current(); p != nil {
		return p.Hash()
	}
	return ""
}

func (s *shadowSource) name(files [][]byte) string { return digest(files) }

func (s *shadowSource) load(files [][]byte) (func(context.Context) error, error) {
	next, err := parseShadow(s.config, files[0])
	if err != nil {
		return nil, err
	}
	return func(context.Context) error {
		was := s.working()
		s.shadow.Replace(next)
		s.log.Info("shadow policy replaced", "hash", next.Hash(), "previous", was)
		return nil
	}, nil
}

func (s *shadowSource) refuse(context.Context, string) error { return nil }
