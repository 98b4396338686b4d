package service

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/coatcheck/coatcheck/cmd/internal/config"
	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
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

// policyPeriod is how often the policy file is looked at. What it holds is put to work
// once it has been the same twice, lest a file that is being written is taken for what
// it isn't yet.
const policyPeriod = time.Second

// policyFollower puts to work what the policy file holds when it changes. A file that
// isn't good is refused, and the policy that is at work stays.
type policyFollower struct {
	config *config.Config
	live   *policy.Live
	audit  *audit.Log
	log    *slog.Logger

	seen    content // when the file was last looked at
	settled content // what has been decided about: put to work, or refused
	refused atomic.Bool
}

// content names what a file holds: by its hash, or by why it can't be read.
type content struct{ hash, fault string }

// run follows the file until ctx ends. A signal on reload says that the file is as it is
// meant to be: it is looked at right away.
func (f *policyFollower) run(ctx context.Context, reload <-chan os.Signal) {
	f.settled = content{hash: f.live.Hash()}
	tick := time.NewTicker(policyPeriod)
	defer tick.Stop()
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-reload:
			asked = true
		case <-tick.C:
		}
		f.look(ctx, asked)
	}
}

// look looks at the file. Not for concurrent use.
func (f *policyFollower) look(ctx context.Context, asked bool) {
	data, err := read("policy", f.config.Policy)
	found := content{}
	if err != nil {
		found.fault = err.Error()
	} else {
		sum := sha256.Sum256(data)
		found.hash = hex.EncodeToString(sum[:])
	}
	steady := found == f.seen
	f.seen = found
	switch {
	case asked && found == content{hash: f.live.Hash()}:
		f.log.Info("the policy file is the policy that is at work", "hash", found.hash)
	case found == f.settled && !asked, !steady && !asked:
		return
	}
	if found.hash == f.live.Hash() { // as it was before
		f.settled = found
		f.refused.Store(false)
		return
	}
	var next *policy.Policy
	if err == nil {
		next, err = parsePolicy(f.config, data)
	}
	if err == nil {
		err = f.replace(ctx, next)
	} else {
		err = f.refuse(ctx, found, err)
	}
	if err != nil {
		f.log.Error("a change of the policy file can't be recorded, so nothing is done about it yet", "error", err)
		return // tried again at the next look
	}
	f.settled = found
}

// replace puts a policy to work, as soon as the event that says so is durable.
func (f *policyFollower) replace(ctx context.Context, next *policy.Policy) error {
	was := f.live.Hash()
	event := audit.SystemEvent(audit.ActionReloadPolicy, "", next.Hash())
	event.PreviousPolicy = was
	if err := f.commit(ctx, &event); err != nil {
		return err
	}
	f.live.Replace(next)
	f.refused.Store(false)
	f.log.Info("policy replaced", "hash", next.Hash(), "previous", was)
	if notes := next.Notes(); notes != nil {
		f.log.Warn("the policy allows in vain", "notes", notes.Error())
	}
	return nil
}

// refuse records that the policy at work stays.
func (f *policyFollower) refuse(ctx context.Context, found content, why error) error {
	event := audit.SystemEvent(audit.ActionReloadPolicy, "", f.live.Hash())
	event.Code, event.Reason, event.RefusedPolicy = "INVALID_ARGUMENT", audit.ReasonPolicyInvalid, found.hash
	if found.hash == "" {
		event.Code, event.Reason = "UNAVAILABLE", audit.ReasonPolicyUnreadable
	}
	if err := f.commit(ctx, &event); err != nil {
		return err
	}
	f.refused.Store(true)
	f.log.Error("the policy file is refused; the policy that is at work stays", "at_work", f.live.Hash(), "refused", found.hash, "error", why)
	return nil
}

func (f *policyFollower) commit(ctx context.Context, event *audit.Event) error {
	ctx, cancel := context.WithTimeout(ctx, systemEventTimeout)
	defer cancel()
	_, err := f.audit.Commit(ctx, tokenizer.Unit{}, event)
	return err
}
