package service

import (
	"context"
	"log/slog"

	"github.com/coatcheck/coatcheck/cmd/internal/config"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/policy"
)

// LoadPolicy reads the policy file against the method table and the profiles.
func LoadPolicy(c *config.Config) (*policy.Policy, error) {
	data, err := read("policy", c.Policy)
	if err != nil {
		return nil, err
	}
	return parsePolicy(c, data)
}

func parsePolicy(c *config.Config, data []byte) (*policy.Policy, error) {
	return policy.Parse(c.Policy, data, server.Vocabulary(c.TokenizerProfiles()))
}

// policySource is the policy file.
type policySource struct {
	config *config.Config
	live   *policy.Live
	audit  *audit.Log
	log    *slog.Logger
}

func (s *policySource) paths() []string { return []string{s.config.Policy} }

func (s *policySource) read() ([][]byte, error) {
	data, err := read("policy", s.config.Policy)
	return [][]byte{data}, err
}

func (s *policySource) working() string            { return s.live.Hash() }
func (s *policySource) name(files [][]byte) string { return digest(files) }

func (s *policySource) load(files [][]byte) (func(context.Context) error, error) {
	next, err := parsePolicy(s.config, files[0])
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return s.put(ctx, next) }, nil
}

func (s *policySource) put(ctx context.Context, next *policy.Policy) error {
	was := s.live.Hash()
	event := audit.SystemEvent(audit.ActionReloadPolicy, "", next.Hash())
	event.PreviousPolicy = was
	if err := commitEvent(ctx, s.audit, &event); err != nil {
		return err
	}
	s.live.Replace(next)
	s.log.Info("policy replaced", "hash", next.Hash(), "previous", was)
	if notes := next.Notes(); notes != nil {
		s.log.Warn("the policy allows in vain", "notes", notes.Error())
	}
	return nil
}

func (s *policySource) refuse(ctx context.Context, name string) error {
	event := refusalEvent(audit.ActionReloadPolicy, s.live.Hash(), name, audit.ReasonPolicyUnreadable, audit.ReasonPolicyInvalid)
	event.RefusedPolicy = name
	return commitEvent(ctx, s.audit, &event)
}
