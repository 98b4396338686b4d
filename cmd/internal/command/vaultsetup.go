package command

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/coatcheck/coatcheck/cmd/internal/config"
	"github.com/coatcheck/coatcheck/keystore/vault"
)

func vaultSetupCommand(env Env) *cobra.Command {
	var path, secretFile string
	var apply bool
	var setup vault.SetupConfig
	cmd := &cobra.Command{
		Use:   "vault-setup",
		Short: "Set up HashiCorp Vault: the mount, the key, the policy and a role",
		Long: `Prints the vault commands that set up what a service needs: the transit engine, the
key, the policy and, with --app-role, an AppRole. With --apply it does the same itself, as the
administrator whose VAULT_ADDR, VAULT_TOKEN, VAULT_CACERT and so on are in the
environment. What is there and right is left as it is, so it can be done again.

With --apply and --secret-id FILE it also makes a secret id of the AppRole, writes it to
FILE, which must not exist, and prints the role id for the configuration.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromConfig(cmd, path, &setup); err != nil {
				return err
			}
			if secretFile != "" && (!apply || setup.AppRole == "") {
				return usageError{errors.New("--secret-id needs --apply and --app-role")}
			}
			if !apply {
				commands, err := vault.SetupCommands(setup)
				if err != nil {
					return usageError{err}
				}
				_, err = fmt.Fprint(env.Stdout, commands)
				return err
			}
			if _, err := os.Lstat(secretFile); secretFile != "" && err == nil {
				return fmt.Errorf("%s is there already: no secret id is made", secretFile)
			}
			steps, err := vault.Setup(cmd.Context(), setup)
			for _, step := range steps {
				state := "is there"
				if step.Done {
					state = "done"
				}
				fmt.Fprintf(env.Stdout, "%s: %s\n", step.What, state)
			}
			if err != nil || secretFile == "" {
				return err
			}
			return newSecretID(cmd.Context(), env, setup, secretFile)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&path, "config", "", "a configuration file, from which mount and key are taken")
	flags.StringVar(&setup.Mount, "mount", vault.DefaultMount, "where the transit engine is mounted")
	flags.StringVar(&setup.Key, "key", vault.DefaultKey, "the name of the key")
	flags.StringVar(&setup.Policy, "policy", "coatcheck", "the name of the policy")
	flags.StringVar(&setup.AppRole, "app-role", "", "the name of an AppRole for the service; none if empty")
	flags.StringVar(&setup.AppRoleMount, "app-role-mount", "approle", "where AppRole is mounted")
	flags.StringVar(&secretFile, "secret-id", "", "a new file for a new secret id of the AppRole")
	flags.BoolVar(&apply, "apply", false, "do it")
	return cmd
}

// newSecretID makes what the service logs in with. The file comes first: a
// secret that can't be kept is not made.
func newSecretID(ctx context.Context, env Env, setup vault.SetupConfig, path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	roleID, secretID, err := vault.NewSecretID(ctx, setup)
	if err == nil {
		_, err = file.WriteString(secretID + "\n")
	}
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		_ = os.Remove(path)
		return err
	}
	fmt.Fprintf(env.Stdout, "make a secret id, in %s: done\nrole_id: %s\n", path, roleID)
	return nil
}

// fromConfig takes over what a configuration says, where no flag says otherwise.
func fromConfig(cmd *cobra.Command, path string, setup *vault.SetupConfig) error {
	if path == "" {
		return nil
	}
	c, err := config.Load(path)
	if err != nil {
		return err
	}
	v := c.Keystore.Vault
	if v == nil {
		return fmt.Errorf("%s: its keystore is not Vault", path)
	}
	take := func(flag string, to *string, from string) {
		if from != "" && !cmd.Flags().Changed(flag) {
			*to = from
		}
	}
	take("mount", &setup.Mount, v.Mount)
	take("key", &setup.Key, v.Key)
	if a := v.Auth.AppRole; a != nil {
		take("app-role-mount", &setup.AppRoleMount, a.Mount)
	}
	return nil
}
