package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// honeytokenCommands are the commands about honeytokens.
type honeytokenCommands struct{ remote }

func honeytokenCommand(env Env) *cobra.Command {
	h := &honeytokenCommands{remote{env: env}}
	cmd := &cobra.Command{
		Use:   "honeytoken",
		Short: "Make, list and delete tokens that nobody should ever use",
		Long: `Works on a running server, as the caller that --cert names. A honeytoken looks like any
token of its profile, and stands for nothing. Plant it where data may be stolen: whoever
uses it has it from there.

  coatcheck honeytoken create --profile card --note "backup of the shop, row 17"
  coatcheck honeytoken list --profile card
  coatcheck honeytoken delete TOKEN`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("honeytoken needs a command: create, list or delete")}
		},
	}
	h.flags(cmd)
	cmd.AddCommand(h.create(), h.list(), h.delete())
	return cmd
}

// jsonHoneytoken is what --json prints. Names and meanings are a promise: fields may
// be added.
type jsonHoneytoken struct {
	Token   string     `json:"token"`
	Profile string     `json:"profile"`
	Note    string     `json:"note"`
	Creator string     `json:"creator"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"`
	Digest  string     `json:"digest"` // by which events name it
}

func honeytokenOf(m *coatcheckv1.Honeytoken) jsonHoneytoken {
	j := jsonHoneytoken{Token: m.GetToken(), Profile: m.GetProfile(), Note: m.GetNote(), Creator: m.GetCreator(), Created: m.GetCreateTime().AsTime(), Digest: m.GetDigest()}
	if at := m.GetExpireTime(); at != nil {
		t := at.AsTime()
		j.Expires = &t
	}
	return j
}

func (h *honeytokenCommands) create() *cobra.Command {
	var profile, note string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "create --profile PROFILE [--note NOTE] [--ttl TTL]",
		Short: "Make a honeytoken and print it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if profile == "" {
				return usageError{errors.New("--profile is needed: which tokens it is to look like")}
			}
			req := &coatcheckv1.CreateHoneytokenRequest{Profile: profile, Note: note}
			if cmd.Flags().Changed("ttl") {
				req.Ttl = durationpb.New(ttl)
			}
			return h.do(cmd.Context(), func(ctx context.Context, c coatcheckv1.HoneytokenServiceClient) error {
				resp, err := c.CreateHoneytoken(ctx, req)
				if err != nil {
					return err
				}
				if h.json {
					return printJSON(h.env.Stdout, honeytokenOf(resp.GetHoneytoken()))
				}
				_, err = fmt.Fprintln(h.env.Stdout, printable(resp.GetHoneytoken().GetToken()))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&profile, "profile", "", "the profile that it is to look like a token of")
	cmd.Flags().StringVar(&note, "note", "", "where it is planted: one line of up to 256 bytes")
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "how long it is good for, such as 8760h (default for ever)")
	return cmd
}

func (h *honeytokenCommands) list() *cobra.Command {
	var profile string
	cmd := &cobra.Command{
		Use:   "list --profile PROFILE",
		Short: "List the honeytokens of a profile",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if profile == "" {
				return usageError{errors.New("--profile is needed")}
			}
			list := make([]jsonHoneytoken, 0) // not null
			if err := h.do(cmd.Context(), func(ctx context.Context, c coatcheckv1.HoneytokenServiceClient) error {
				req := &coatcheckv1.ListHoneytokensRequest{Profile: profile}
				for {
					resp, err := c.ListHoneytokens(ctx, req)
					if err != nil {
						return err
					}
					for _, m := range resp.GetHoneytokens() {
						list = append(list, honeytokenOf(m))
					}
					if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
						return nil
					}
				}
			}); err != nil {
				return err
			}
			if h.json {
				return printJSON(h.env.Stdout, list)
			}
			return printHoneytokens(h.env.Stdout, list)
		},
	}
	cmd.Flags().StringVar(&profile, "profile", "", "the profile")
	return cmd
}

// printHoneytokens prints a table.
func printHoneytokens(w io.Writer, list []jsonHoneytoken) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "None.")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TOKEN\tCREATED\tEXPIRES\tCREATOR\tNOTE")
	for _, j := range list {
		expires := "-"
		if j.Expires != nil {
			expires = j.Expires.Format(time.RFC3339)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", printable(j.Token), j.Created.Format(time.RFC3339), expires, printable(j.Creator), printable(j.Note))
	}
	return t.Flush()
}

func (h *honeytokenCommands) delete() *cobra.Command {
	req := new(coatcheckv1.DeleteHoneytokenRequest)
	cmd := &cobra.Command{
		Use:   "delete TOKEN [--profile PROFILE] [--reason REASON]",
		Short: "Delete a honeytoken, which is then a token that isn't there",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Token = args[0]
			return h.do(cmd.Context(), func(ctx context.Context, c coatcheckv1.HoneytokenServiceClient) error {
				_, err := c.DeleteHoneytoken(ctx, req)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&req.Profile, "profile", "", "its profile, unless it is an opaque token")
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why, for the audit log")
	return cmd
}

// do calls the service.
func (h *honeytokenCommands) do(ctx context.Context, f func(context.Context, coatcheckv1.HoneytokenServiceClient) error) error {
	return h.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		return f(ctx, coatcheckv1.NewHoneytokenServiceClient(conn))
	})
}
