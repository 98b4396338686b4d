package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/coatcheck/coatcheck/cmd/internal/config"
	"github.com/coatcheck/coatcheck/cmd/internal/devkit"
	"github.com/coatcheck/coatcheck/cmd/internal/service"
	"github.com/coatcheck/coatcheck/keystore/local"
)

// options returns what a service needs to run with the configuration.
func (e Env) options(c *config.Config) service.Options {
	return service.Options{
		Config: c, Getenv: e.Getenv, Log: e.logger(),
		Ready: func(address net.Addr) { fmt.Fprintf(e.Stderr, "coatcheck: serving on %s\n", address) },
	}
}

func serveCommand(env Env) *cobra.Command {
	var path string
	var wait bool
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Serve",
		Long:  "Serves until SIGTERM or SIGINT, then finishes the calls in flight and exits.\nA second signal ends it at once. The policy file, the certificates and the\nrevocation lists are read anew when they change, and on SIGHUP.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(path)
			if err != nil {
				return err
			}
			o := env.options(c)
			o.Wait = wait
			return run(cmd.Context(), env, o)
		},
	}
	requireConfig(cmd, &path)
	cmd.Flags().BoolVar(&wait, "wait", false, "wait for the keystore for as long as it takes")
	return cmd
}

// run serves until ctx ends.
func run(ctx context.Context, env Env, o service.Options) error {
	tuneGC(env.Getenv)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	o.Reload = hangups
	return service.Run(ctx, o)
}

func checkConfigCommand(env Env) *cobra.Command {
	var path, policyFile string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check-config --config FILE [--policy FILE]",
		Short: "Check a configuration and all that it names, without serving",
		Long:  "Reads the configuration, the policy, the certificates and the root key as serve\nwould, and says what is wrong with them. The store is not opened, and Vault is not asked.\nFor each profile it prints an example token, how many there can be, and what\nstandards have to say.",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := config.Load(path)
			if err != nil {
				return err
			}
			if policyFile != "" {
				c.Policy = policyFile
			}
			notes, err := service.Check(env.options(c))
			if err != nil {
				return err
			}
			profiles, err := checkedProfiles(c.TokenizerProfiles())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(env.Stdout, jsonChecked{path, profiles, noted(notes)})
			}
			fmt.Fprintf(env.Stdout, "%s: good, with %s\n\n", path, counted(len(profiles), "profile"))
			if err := printProfiles(env.Stdout, profiles); err != nil {
				return err
			}
			for _, note := range noted(notes) {
				if _, err := fmt.Fprintln(env.Stdout, printable(note)); err != nil {
					return err
				}
			}
			return nil
		},
	}
	requireConfig(cmd, &path)
	cmd.Flags().StringVar(&policyFile, "policy", "", "a policy file in place of the one that the configuration names")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// requireConfig adds the flag --config, without which the command is refused.
func requireConfig(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "config", "", "the configuration file")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if *path == "" {
			return usageError{fmt.Errorf("%s needs --config FILE", cmd.Name())}
		}
		return nil
	}
}

const devWarning = `
*** DEVELOPMENT ONLY ***************************************************
*** The root key and the keys of all certificates lie in %s.
*** Put no real values in. For real use, see docs/serving.md
************************************************************************

`

func devCommand(env Env) *cobra.Command {
	var dir, listen, passphraseFile string
	var makeOnly bool
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Make a development instance, if there is none, and serve it",
		Long:  "Makes certificates, a root key, a sample configuration and a sample policy\nunder DIR, unless there is a configuration, and serves.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := config.CheckListen(listen); err != nil {
				return usageError{fmt.Errorf("--listen %w", err)}
			}
			passphrase, err := readPassphrase(passphraseFile)
			if err != nil {
				return err
			}
			made, err := devkit.Ensure(devkit.Options{Dir: dir, Listen: listen, PassphraseFile: passphraseFile, Passphrase: passphrase})
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, devWarning, dir)
			if made {
				fmt.Fprintf(env.Stderr, "coatcheck: made %s\n", dir)
			}
			if makeOnly {
				if !made {
					return fmt.Errorf("%s is there already", dir)
				}
				return nil
			}
			c, err := config.Load(filepath.Join(dir, devkit.ConfigFile))
			if err != nil {
				return err
			}
			if passphraseFile != "" && c.Keystore.Local.PassphraseFile == "" {
				return fmt.Errorf("%s was made without a passphrase: its root key is not encrypted", dir)
			}
			if made || cmd.Flags().Changed("listen") {
				c.Server.Listen = listen
			}
			return run(cmd.Context(), env, env.options(c))
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".coatcheck", "where everything is kept")
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:7443", "the address to serve on")
	cmd.Flags().BoolVar(&makeOnly, "make-only", false, "make a new instance and don't serve it")
	cmd.Flags().StringVar(&passphraseFile, "passphrase-file", "", "encrypt a new root key under the passphrase in this file")
	return cmd
}

func keygenCommand(env Env) *cobra.Command {
	var passphraseFile string
	cmd := &cobra.Command{
		Use:   "keygen FILE",
		Short: "Make a root key file for a local keystore",
		Long:  "Makes a new root key in FILE, which must not exist. Keep a copy of it, apart from\nthe data: without it no value can be read ever again.",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			passphrase, err := readPassphrase(passphraseFile)
			if err != nil {
				return err
			}
			err = local.Create(args[0], passphrase)
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%s is there already: nothing is written over it", args[0])
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "coatcheck: made %s\n", args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&passphraseFile, "passphrase-file", "", "encrypt the root key under the passphrase in this file")
	return cmd
}

// readPassphrase returns the passphrase in a file, nil if none is named.
func readPassphrase(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return service.TrimPassphrase(data), nil
}
