package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/audit"
)

func (a *auditCommands) checkpoint() *cobra.Command {
	var key bool
	cmd := &cobra.Command{
		Use:   "checkpoint",
		Short: "Print the latest signed checkpoint, or the key that signs them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.do(cmd.Context(), func(ctx context.Context, client coatcheckv1.AuditServiceClient) error {
				resp, err := client.GetCheckpoint(ctx, &coatcheckv1.GetCheckpointRequest{})
				if err != nil {
					return err
				}
				return a.printCheckpoint(resp, key)
			})
		},
	}
	cmd.Flags().BoolVar(&key, "public-key", false, "print the public key instead")
	return cmd
}

// printCheckpoint prints a checkpoint that is signed as it should be, or its key.
func (a *auditCommands) printCheckpoint(resp *coatcheckv1.GetCheckpointResponse, key bool) error {
	verifier, err := note.NewVerifier(resp.GetPublicKey())
	if err != nil {
		return fmt.Errorf("the server's public key: %w", err)
	}
	text := []byte(resp.GetCheckpoint())
	c, err := audit.OpenCheckpoint(text, verifier)
	switch {
	case err != nil:
		return err
	case a.json:
		return printJSON(a.env.Stdout, struct {
			PublicKey string `json:"public_key"`
			*jsonCheckpoint
		}{resp.GetPublicKey(), checkpointOf(c, text)})
	case key:
		_, err = fmt.Fprintln(a.env.Stdout, resp.GetPublicKey())
	default:
		_, err = a.env.Stdout.Write(text)
	}
	return err
}

func (a *auditCommands) proof() *cobra.Command {
	var req coatcheckv1.GetProofRequest
	cmd := &cobra.Command{
		Use:   "proof",
		Short: "Print the proof that an event is in the log, or that the log only grew, as JSON",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if req.GetSequence() == 0 && req.GetOldEvents() == 0 {
				return usageError{errors.New("proof needs --event, --old-events or both")}
			}
			return a.do(cmd.Context(), func(ctx context.Context, client coatcheckv1.AuditServiceClient) error {
				resp, err := client.GetProof(ctx, &req)
				if err != nil {
					return err
				}
				return a.printProof(&req, resp)
			})
		},
	}
	flags := cmd.Flags()
	flags.Uint64Var(&req.Sequence, "event", 0, "the number of an event that is in the log")
	flags.Uint64Var(&req.OldEvents, "old-events", 0, "the events of an earlier checkpoint with which the log begins")
	flags.Uint64Var(&req.Events, "events", 0, "the events of the checkpoint that it is proven by (default that of the latest)")
	return cmd
}

// printProof prints a proof that proves what it says.
func (a *auditCommands) printProof(req *coatcheckv1.GetProofRequest, resp *coatcheckv1.GetProofResponse) error {
	p := audit.Proof{Events: resp.GetEvents(), Event: req.GetSequence(), Old: req.GetOldEvents()}
	faults := []error{fill(&p.Root, resp.GetRootHash()), fillAll(&p.Inclusion, resp.GetInclusion()), fillAll(&p.Consistency, resp.GetConsistency())}
	if p.Event > 0 {
		faults = append(faults, fill(&p.Leaf, resp.GetLeafHash()))
	}
	if p.Old > 0 {
		faults = append(faults, fill(&p.OldRoot, resp.GetOldRootHash()))
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	if err := p.Check(); err != nil {
		return err
	}
	var printed struct {
		Inclusion   *jsonInclusion   `json:"inclusion,omitempty"`
		Consistency *jsonConsistency `json:"consistency,omitempty"`
	}
	if p.Event > 0 {
		printed.Inclusion = inclusionOf(p, nil)
	}
	if p.Old > 0 {
		printed.Consistency = &jsonConsistency{
			OldEvents: p.Old, OldRoot: hexOf(p.OldRoot), Events: p.Events, Root: hexOf(p.Root), Hashes: hexList(p.Consistency),
		}
	}
	return printJSON(a.env.Stdout, printed)
}

// fill takes a hash over from a message.
func fill(hash *tlog.Hash, b []byte) error {
	if copy(hash[:], b) != len(hash) || len(b) != len(hash) {
		return errors.New("the server's answer has a hash that is none")
	}
	return nil
}

func fillAll(hashes *[]tlog.Hash, list [][]byte) error {
	*hashes = make([]tlog.Hash, len(list))
	var err error
	for i, b := range list {
		err = errors.Join(err, fill(&(*hashes)[i], b))
	}
	return err
}
