package command

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server"
)

// keyCommands are the commands about keys.
type keyCommands struct{ remote }

func keysCommand(env Env) *cobra.Command {
	k := &keyCommands{remote{env: env}}
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "List, rotate, rewrap and retire the keys of a running server",
		Long: `Works on a running server, as the caller that --cert names. A key version is taken
out of use in three steps:

  coatcheck keys rotate data            makes a new version, which is active from then on
  coatcheck keys rewrap                 moves the records that are under older ones
  coatcheck keys retire data 1 --yes    destroys a version that nothing is under`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("keys needs a command: list, rotate, rewrap or retire")}
		},
	}
	k.flags(cmd)
	cmd.AddCommand(k.list(), k.rotate(), k.rewrap(), k.retire())
	return cmd
}

func (k *keyCommands) list() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List all key versions, and how many records are under each",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return k.do(cmd.Context(), func(ctx context.Context, keys coatcheckv1.KeyServiceClient) error {
				resp, err := keys.ListKeys(ctx, &coatcheckv1.ListKeysRequest{})
				if err != nil {
					return err
				}
				if k.json {
					return printJSON(k.env.Stdout, listingOf(resp))
				}
				if err := printKeys(k.env.Stdout, resp.GetKeys()...); err != nil {
					return err
				}
				_, err = fmt.Fprintf(k.env.Stdout, "\n%s\n%s\n%s\n", stateLine(resp, time.Now()), resealLine(resp.GetResealing()), indexLine(resp.GetKeys()))
				return err
			})
		},
	}
}

func (k *keyCommands) rotate() *cobra.Command {
	return &cobra.Command{
		Use:   "rotate CLASS",
		Short: "Make a new version of a class of keys",
		Long: "Makes a new version of CLASS: " + strings.Join(classNames(), ", ") + ".\n" +
			"It is active when the command ends. Older versions stay; see rewrap and retire.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			class, err := parseClass(args[0])
			if err != nil {
				return err
			}
			return k.do(cmd.Context(), func(ctx context.Context, keys coatcheckv1.KeyServiceClient) error {
				resp, err := keys.RotateKey(ctx, &coatcheckv1.RotateKeyRequest{KeyClass: class})
				if err != nil {
					return err
				}
				return k.print(resp.GetKey())
			})
		},
	}
}

func (k *keyCommands) rewrap() *cobra.Command {
	var rate uint32
	var keysOnly, noWait bool
	cmd := &cobra.Command{
		Use:   "rewrap",
		Short: "Put everything under the newest keys",
		Long: `Wraps all keys under the newest version of the root key, and has the server move
records from older data keys to the active one. Waits until all records are moved; if
it is interrupted, the server goes on. Exits with 1 if records are left.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if rate > server.MaxRate {
				return usageError{fmt.Errorf("--rate is at most %d", server.MaxRate)}
			}
			return k.do(cmd.Context(), func(ctx context.Context, keys coatcheckv1.KeyServiceClient) error {
				resp, err := keys.Rewrap(ctx, &coatcheckv1.RewrapRequest{RecordsPerSecond: rate, KeysOnly: keysOnly})
				if err != nil {
					return err
				}
				done := resp.GetResealing()
				wait := !noWait && !keysOnly
				if wait {
					if done, err = k.follow(cmd.Context(), keys, done); err != nil {
						return err
					}
				}
				if k.json {
					err = printJSON(k.env.Stdout, rewrapOf(resp.GetRewrapped(), done))
				} else {
					_, err = fmt.Fprintf(k.env.Stdout, "keys wrapped anew: %d\n%s\n", len(resp.GetRewrapped()), resealLine(done))
				}
				if err == nil && wait && done.GetRemaining() > 0 {
					err = fmt.Errorf("%d records are left, of which %d can't be opened; the keys that they are under can't be retired", done.GetRemaining(), done.GetFailed())
				}
				return err
			})
		},
	}
	cmd.Flags().Uint32Var(&rate, "rate", 0, "records to move in a second at most; 0 is what the server is configured for")
	cmd.Flags().BoolVar(&keysOnly, "keys-only", false, "wrap the keys anew and leave the records as they are")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "don't wait for the records")
	return cmd
}

func (k *keyCommands) retire() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "retire CLASS VERSION",
		Short: "Destroy a key version that nothing is under",
		Long: `Destroys a key version for good. Without --yes it only says whether that would work.
It is refused while the version is active or anything is under it.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			class, err := parseClass(args[0])
			if err != nil {
				return err
			}
			version, err := strconv.ParseUint(args[1], 10, 32)
			if err != nil || version == 0 {
				return usageError{fmt.Errorf("%q is not a version", args[1])}
			}
			return k.do(cmd.Context(), func(ctx context.Context, keys coatcheckv1.KeyServiceClient) error {
				resp, err := keys.RetireKey(ctx, &coatcheckv1.RetireKeyRequest{KeyClass: class, Version: uint32(version), ValidateOnly: !yes})
				if err != nil {
					return err
				}
				if key := resp.GetKey(); key.GetKeyClass() != class || key.GetVersion() != uint32(version) {
					return fmt.Errorf("the server answers for another key: look with keys list")
				}
				if yes {
					fmt.Fprintf(k.env.Stderr, "coatcheck: %s key %d is destroyed\n", args[0], version)
				} else {
					fmt.Fprintf(k.env.Stderr, "coatcheck: nothing is under %s key %d; with --yes it would be destroyed, for good\n", args[0], version)
				}
				switch {
				case yes && k.json:
					gone := keyOf(resp.GetKey())
					gone.State, gone.Retirable = "retired", false
					return printJSON(k.env.Stdout, gone)
				case yes:
					return nil // a table would show what is no more
				}
				return k.print(resp.GetKey())
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "destroy it")
	return cmd
}

// do calls the service.
func (k *keyCommands) do(ctx context.Context, f func(context.Context, coatcheckv1.KeyServiceClient) error) error {
	return k.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		return f(ctx, coatcheckv1.NewKeyServiceClient(conn))
	})
}

// How often the server is asked how far it is: less and less, since each call
// is on its record.
const (
	followFirst = 250 * time.Millisecond
	followLast  = 10 * time.Second
)

// follow waits until the server has moved the records that it can, in a pass
// that began after the one before, and shows how far it is. A server that is
// away for a moment is asked again.
func (k *keyCommands) follow(ctx context.Context, keys coatcheckv1.KeyServiceClient, before *coatcheckv1.Resealing) (*coatcheckv1.Resealing, error) {
	bar := newBar(k.env, before.GetRemaining())
	defer bar.end()
	answered := time.Now()
	for {
		one, cancel := context.WithTimeout(ctx, k.timeout)
		resp, err := keys.ListKeys(one, &coatcheckv1.ListKeysRequest{})
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil, errInterrupted
		case status.Code(err) == codes.Unavailable && time.Since(answered) < k.timeout:
		case err != nil:
			return nil, err
		default:
			answered = time.Now()
			r := resp.GetResealing()
			bar.show(r.GetRemaining(), answered)
			begun := !proto.Equal(r.GetStartTime(), before.GetStartTime())
			if r.GetRemaining() == 0 || begun && !r.GetRunning() {
				return r, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, errInterrupted
		case <-time.After(min(max(time.Since(bar.began)/20, followFirst), followLast)):
		}
	}
}

// errInterrupted says that the command ended before what it watches.
var errInterrupted = errors.New("interrupted; the server goes on moving records")

// print prints one key.
func (k *keyCommands) print(key *coatcheckv1.Key) error {
	if k.json {
		return printJSON(k.env.Stdout, keyOf(key))
	}
	return printKeys(k.env.Stdout, key)
}

// classNames returns the classes as people write them.
func classNames() (names []string) {
	for n := int32(1); ; n++ {
		name, ok := coatcheckv1.KeyClass_name[n]
		if !ok {
			return names
		}
		names = append(names, shortClass(name))
	}
}

func shortClass(name string) string {
	return strings.ToLower(strings.TrimPrefix(name, "KEY_CLASS_"))
}

func parseClass(name string) (coatcheckv1.KeyClass, error) {
	class, ok := coatcheckv1.KeyClass_value["KEY_CLASS_"+strings.ToUpper(name)]
	if !ok || class == 0 || strings.ToLower(name) != name {
		return 0, usageError{fmt.Errorf("%q is no class of keys: there are %s", name, strings.Join(classNames(), ", "))}
	}
	return coatcheckv1.KeyClass(class), nil
}
