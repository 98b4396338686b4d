package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/coatcheck/coatcheck/cmd/internal/bench"
	"github.com/coatcheck/coatcheck/cmd/internal/client"
	"github.com/coatcheck/coatcheck/cmd/internal/config"
	"github.com/coatcheck/coatcheck/cmd/internal/service"
)

// benchmark is coatcheck bench.
type benchmark struct {
	env         Env
	server      client.Options
	target, dir string
	only        string
	connections int
	json        bool
	bench.Options
}

const benchLong = `Starts a server of default settings in a directory of its own on this disk, and beside it one
that answers constants: the same API, the same TLS, nothing behind it. Calls both in turn, and tells
how many items a second each answers, how long calls take, and the ratio of the two: what Coatcheck
costs on this machine.

  coatcheck bench                                         all workloads, about three minutes
  coatcheck bench --only 'unary' --profile convergent --known
  coatcheck bench --preload 10000000                      in a store that holds ten million tokens
  coatcheck bench --target vault.internal:7443 --profile card --purpose charge

Everything is removed at the end. A target keeps the tokens that are made in it.`

func benchCommand(env Env) *cobra.Command {
	b := &benchmark{env: env}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure a server against one that only answers",
		Long:  benchLong,
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return b.run(cmd.Context()) },
	}
	flags := cmd.Flags()
	b.server.Flags(flags, env.Getenv)
	_ = flags.MarkHidden("address")
	flags.StringVar(&b.target, "target", "", "host:port of a server to measure instead of a new one; --ca, --cert and --key say how to meet it")
	flags.StringVar(&b.dir, "dir", ".", "where the directory of the new server is made: the disk that is measured")
	flags.StringVar(&b.Profile, "profile", "random", "the profile: "+strings.Join(bench.Profiles(), ", ")+"; or one of card numbers of the target")
	flags.StringVar(&b.Purpose, "purpose", "charge", "for which values are revealed")
	flags.BoolVar(&b.Known, "known", false, "tokenize values that have been tokenized before, and not new ones")
	flags.BoolVar(&b.Subject, "subject", false, "name a subject with each value, one of ten thousand")
	flags.IntVar(&b.Preload, "preload", 0, "tokens to make before anything is measured")
	flags.StringVar(&b.only, "only", "", "workloads whose name matches this regular expression, such as tokenize/unary-64$")
	flags.IntVar(&b.Rounds, "rounds", 5, "rounds of each workload, on either server in turn")
	flags.DurationVar(&b.Duration, "duration", time.Second, "how long a round takes")
	flags.IntVar(&b.connections, "connections", 2, "connections that calls are spread over")
	flags.BoolVar(&b.json, "json", false, "print JSON")
	return cmd
}

// prepare checks the flags.
func (b *benchmark) prepare() error {
	only, err := regexp.Compile(b.only)
	switch {
	case err != nil:
		return usageError{fmt.Errorf("--only: %w", err)}
	case b.Rounds < 1 || b.Duration < 10*time.Millisecond || b.connections > 1000 || b.connections < 1 || b.Preload < 0:
		return usageError{errors.New("--rounds is positive, --duration at least 10ms, --connections 1 to 1000, --preload not negative")}
	case b.target == "" && !slices.Contains(bench.Profiles(), b.Profile):
		return usageError{fmt.Errorf("--profile %s: there are %s", b.Profile, strings.Join(bench.Profiles(), ", "))}
	case b.Subject && b.Profile == "fpe":
		return usageError{errors.New("--subject has no meaning with fpe, which stores nothing")}
	}
	if missing := b.server.Missing(); b.target != "" && len(missing) > 0 {
		return usageError{fmt.Errorf("--target needs %s", strings.Join(missing, ", "))}
	}
	for _, w := range bench.Workloads() {
		if only.MatchString(fmt.Sprintf("%s-%d", w.Name, w.InFlight)) || only.MatchString(w.Name) {
			b.Workloads = append(b.Workloads, w)
		}
	}
	if len(b.Workloads) == 0 {
		return usageError{fmt.Errorf("--only %s: matches no workload", b.only)}
	}
	b.Progress = func(format string, args ...any) { fmt.Fprintf(b.env.Stderr, "coatcheck: "+format+"\n", args...) }
	return nil
}

func (b *benchmark) run(ctx context.Context) (err error) {
	if err := b.prepare(); err != nil {
		return err
	}
	// A terminal that is closed and a pipe that nobody reads end it as others do, with
	// everything removed.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	dir, err := os.MkdirTemp(b.dir, ".coatcheck-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	path, err := bench.Make(filepath.Join(dir, "instance"))
	if err != nil {
		return err
	}
	wire, err := bench.Start(ctx, "bench-wire", "--config", path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, wire.Stop()) }()
	certs := filepath.Join(dir, "instance", "certs")
	wireClient, err := b.dial(wire.Address, certs)
	if err != nil {
		return err
	}
	defer wireClient.Close()
	var target *bench.Client
	var process *bench.Process
	if b.target != "" {
		target, err = b.dialTarget()
	} else if process, err = bench.Start(ctx, "serve", "--config", path); err == nil {
		defer func() { err = errors.Join(err, process.Stop()) }()
		target, err = b.dial(process.Address, certs)
		b.Rest = process.Rest
	}
	if err != nil {
		return err
	}
	defer target.Close()
	results, err := bench.Run(ctx, target, wireClient, b.Options)
	if len(results) > 0 || err == nil {
		err = errors.Join(err, b.print(results, process, filepath.Join(dir, "instance")))
	}
	return err
}

// print prints what was measured, and what the server takes up, if it is ours.
func (b *benchmark) print(results []bench.Result, process *bench.Process, dir string) error {
	if b.json {
		return printJSON(b.env.Stdout, results)
	}
	if err := printResults(b.env.Stdout, results); err != nil || process == nil {
		return err
	}
	return printCosts(b.env.Stdout, process, dir)
}

// dial connects to a server of the instance, as its callers.
func (b *benchmark) dial(address, certs string) (*bench.Client, error) {
	as := func(caller string) client.Options {
		at := filepath.Join(certs, caller)
		return client.Options{Address: address, CA: filepath.Join(certs, "ca.crt"), Cert: at + ".crt", Key: at + ".key"}
	}
	return b.connect(as("checkout"), as("payments"))
}

// dialTarget connects to the server that is named.
func (b *benchmark) dialTarget() (*bench.Client, error) {
	b.server.Address = b.target
	return b.connect(b.server, b.server)
}

func (b *benchmark) connect(tokenize, detokenize client.Options) (*bench.Client, error) {
	var conns [2][]*grpc.ClientConn
	for k, o := range []client.Options{tokenize, detokenize} {
		for range b.connections {
			conn, err := o.Dial()
			if err != nil {
				return nil, err
			}
			conns[k] = append(conns[k], conn)
		}
	}
	return bench.NewClient(conns[0], conns[1]), nil
}

func printResults(w io.Writer, results []bench.Result) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "WORKLOAD\tIN FLIGHT\tITEMS/S\tP50\tP99\tP99.9\tWIRE ITEMS/S\tWIRE P50\tOF THE WIRE\t")
	for _, r := range results {
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%.2f\t\n", r.Name, r.InFlight,
			grouped(uint64(r.Rate)), micros(r.P50), micros(r.P99), micros(r.P999), grouped(uint64(r.WireRate)), micros(r.WireP50), r.Ratio)
	}
	return table.Flush()
}

func micros(us float64) string {
	d := time.Duration(us * float64(time.Microsecond))
	if d < 10*time.Millisecond {
		return d.Round(time.Microsecond).String()
	}
	return d.Round(100 * time.Microsecond).String()
}

// printCosts tells what the server takes up at the end.
func printCosts(w io.Writer, process *bench.Process, dir string) error {
	var sizes [2]int64
	for i, part := range []string{"data", "audit"} {
		err := filepath.WalkDir(filepath.Join(dir, part), func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			info, err := entry.Info()
			if err == nil {
				sizes[i] += info.Size()
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "\nstore %d MiB, audit segments %d MiB, memory %d MiB, on %d cores\n",
		sizes[0]>>20, sizes[1]>>20, process.Resident()>>20, runtime.NumCPU())
	return err
}

// benchWireCommand is the server that only answers.
func benchWireCommand(env Env) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:    "bench-wire --config FILE",
		Short:  "Serve constants, for bench",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(path)
			if err != nil {
				return err
			}
			tlsConfig, err := service.LoadTLS(c.Server.TLS, time.Now())
			if err != nil {
				return err
			}
			listener, err := net.Listen("tcp", c.Server.Listen)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "coatcheck: serving on %s\n", listener.Addr())
			return bench.ServeWire(cmd.Context(), listener, tlsConfig, c.ServerLimits())
		},
	}
	requireConfig(cmd, &path)
	return cmd
}
