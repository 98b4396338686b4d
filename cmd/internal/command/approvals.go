package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// approvalCommands are the commands about approvals.
type approvalCommands struct{ remote }

func approvalsCommand(env Env) *cobra.Command {
	a := &approvalCommands{remote{env: env}}
	cmd := &cobra.Command{
		Use:   "approvals",
		Short: "Ask for what takes a second person, and decide on what others ask for",
		Long: `Works on a running server, as the caller that --cert names. What a rule of the policy
demands an approval for is asked for by one caller and granted by another:

  coatcheck approvals request --profile card --purpose refund --items 500 --reason CHG-12
  coatcheck approvals list --state pending
  coatcheck approvals approve ID --items 200 --for 5m
  coatcheck approvals deny ID --reason "which change is that?"

Who has asked takes it back with withdraw; who may grant it ends a grant early with end.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("approvals needs a command: list, show, request, withdraw, approve, deny or end")}
		},
	}
	a.flags(cmd)
	cmd.AddCommand(a.list(), a.show(), a.request(), a.withdraw(), a.approve(), a.deny(), a.end())
	return cmd
}

func (a *approvalCommands) list() *cobra.Command {
	var state string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what you have asked for, may decide on, or have decided on",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			wanted, err := parseApprovalState(state)
			if err != nil {
				return err
			}
			return a.do(cmd.Context(), func(ctx context.Context, approvals coatcheckv1.ApprovalServiceClient) error {
				var all []*coatcheckv1.Approval
				for page := ""; ; {
					resp, err := approvals.ListApprovals(ctx, &coatcheckv1.ListApprovalsRequest{State: wanted, PageToken: page})
					if err != nil {
						return err
					}
					all = append(all, resp.GetApprovals()...)
					if page = resp.GetNextPageToken(); page == "" {
						break
					}
				}
				slices.SortFunc(all, func(x, y *coatcheckv1.Approval) int {
					return y.GetCreateTime().AsTime().Compare(x.GetCreateTime().AsTime())
				})
				return a.printAll(all)
			})
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "only those that are pending, granted, denied or ended")
	return cmd
}

func (a *approvalCommands) show() *cobra.Command {
	return a.about("show ID", "Show all that is known of one", nil, func(ctx context.Context, approvals coatcheckv1.ApprovalServiceClient, id string) (answeredApproval, error) {
		return approvals.GetApproval(ctx, &coatcheckv1.GetApprovalRequest{Id: id})
	})
}

func (a *approvalCommands) request() *cobra.Command {
	var reveal string
	var req coatcheckv1.RequestApprovalRequest
	cmd := &cobra.Command{
		Use:   "request",
		Short: "Ask for an approval, and print it",
		Long: `Asks for an approval for the caller itself. The server finds the rule that demands it
by --action, --profile and --purpose, and if need be --reveal; --rule names it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if req.GetProfile() == "" && req.GetRule() == "" {
				return usageError{errors.New("--profile or --rule is needed: what the approval is to be for")}
			}
			if reveal != "" {
				if !slices.Contains(revealNames(), reveal) {
					return usageError{fmt.Errorf("--reveal %q: there are %s", reveal, strings.Join(revealNames(), ", "))}
				}
				req.Reveal = coatcheckv1.Reveal(coatcheckv1.Reveal_value["REVEAL_"+reveal])
			}
			return a.do(cmd.Context(), func(ctx context.Context, approvals coatcheckv1.ApprovalServiceClient) error {
				resp, err := approvals.RequestApproval(ctx, &req)
				if err != nil {
					return err
				}
				return a.printOne(resp.GetApproval())
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&req.Action, "action", "detokenize", "what is to be done: detokenize or export-tokens")
	flags.StringVar(&req.Profile, "profile", "", "with data of which profile")
	flags.StringVar(&req.Purpose, "purpose", "", "what for")
	flags.StringVar(&reveal, "reveal", "", "the form that will be asked for, in capitals")
	flags.StringVar(&req.Rule, "rule", "", "the rule of the policy")
	flags.Uint64Var(&req.Items, "items", 0, "for how many values or tokens; 0 is as many as the rule allows")
	flags.StringVar(&req.Reason, "reason", "", "why, for whom decides and the audit log")
	return cmd
}

func (a *approvalCommands) withdraw() *cobra.Command {
	var reason string
	return a.about("withdraw ID", "Take back what you have asked for, or end its grant", &reason, func(ctx context.Context, approvals coatcheckv1.ApprovalServiceClient, id string) (answeredApproval, error) {
		return approvals.WithdrawApproval(ctx, &coatcheckv1.WithdrawApprovalRequest{Id: id, Reason: reason})
	})
}

func (a *approvalCommands) approve() *cobra.Command {
	var req coatcheckv1.ApproveRequest
	var ttl time.Duration
	cmd := a.about("approve ID", "Grant what another caller asks for", &req.Reason, func(ctx context.Context, approvals coatcheckv1.ApprovalServiceClient, id string) (answeredApproval, error) {
		if req.Id = id; ttl != 0 {
			req.Ttl = durationpb.New(ttl)
		}
		return approvals.Approve(ctx, &req)
	})
	cmd.Flags().Uint64Var(&req.Items, "items", 0, "for how many values or tokens; 0 is as many as are asked for")
	cmd.Flags().DurationVar(&ttl, "for", 0, "for how long, as in 5m; 0 is as long as the rule allows")
	return cmd
}

func (a *approvalCommands) deny() *cobra.Command {
	var reason string
	return a.about("deny ID", "Deny what another caller asks for", &reason, func(ctx context.Context, approvals coatcheckv1.ApprovalServiceClient, id string) (answeredApproval, error) {
		return approvals.Deny(ctx, &coatcheckv1.DenyRequest{Id: id, Reason: reason})
	})
}

func (a *approvalCommands) end() *cobra.Command {
	var reason string
	return a.about("end ID", "End a grant to another caller before its time", &reason, func(ctx context.Context, approvals coatcheckv1.ApprovalServiceClient, id string) (answeredApproval, error) {
		return approvals.RevokeApproval(ctx, &coatcheckv1.RevokeApprovalRequest{Id: id, Reason: reason})
	})
}

// answeredApproval is an answer with an approval.
type answeredApproval interface {
	GetApproval() *coatcheckv1.Approval
}

// about returns a command about one approval, which takes a reason unless that is nil.
func (a *approvalCommands) about(use, short string, reason *string, call func(context.Context, coatcheckv1.ApprovalServiceClient, string) (answeredApproval, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.do(cmd.Context(), func(ctx context.Context, approvals coatcheckv1.ApprovalServiceClient) error {
				resp, err := call(ctx, approvals, args[0])
				if err != nil {
					return err
				}
				return a.printOne(resp.GetApproval())
			})
		},
	}
	if reason != nil {
		cmd.Flags().StringVar(reason, "reason", "", "why, for the other side and the audit log")
	}
	return cmd
}

// do calls the service.
func (a *approvalCommands) do(ctx context.Context, f func(context.Context, coatcheckv1.ApprovalServiceClient) error) error {
	return a.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		return f(ctx, coatcheckv1.NewApprovalServiceClient(conn))
	})
}

// parseApprovalState reads a state as people write it; "" stands for any.
func parseApprovalState(name string) (coatcheckv1.ApprovalState, error) {
	if name == "" {
		return coatcheckv1.ApprovalState_APPROVAL_STATE_UNSPECIFIED, nil
	}
	state, ok := coatcheckv1.ApprovalState_value["APPROVAL_STATE_"+strings.ToUpper(name)]
	if !ok || state == 0 || strings.ToLower(name) != name {
		return 0, usageError{fmt.Errorf("%q is no state: there are pending, granted, denied and ended", name)}
	}
	return coatcheckv1.ApprovalState(state), nil
}
