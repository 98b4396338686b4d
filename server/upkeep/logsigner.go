package upkeep

import (
	"context"
	"errors"

	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// LogSigner returns what signs checkpoints of the audit log. If there is no key for that
// yet, one is made, with an event that says so.
//
// Errors: those of tokenizer.Tokenizer.LogSigner and of tokenizer.Store.Commit.
func (u *Upkeep) LogSigner(ctx context.Context) (tokenizer.Signer, error) {
	for {
		var unit tokenizer.Unit
		signer, err := u.cfg.Tokenizer.LogSigner(ctx, u.cfg.Namespace, &unit)
		if err != nil || unit.Empty() {
			return signer, err
		}
		event := audit.SystemEvent(audit.ActionCreateLogKey, u.cfg.Namespace, u.cfg.PolicyHash())
		_, err = u.cfg.Audit.Commit(ctx, unit, &event)
		switch {
		case err == nil:
			return signer, nil
		case !errors.Is(err, tokenizer.ErrConflict): // or another replica was faster
			return tokenizer.Signer{}, err
		}
	}
}
