//go:build unix

package testvault

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Try makes a call of Vault's HTTP API with a token, at a path below /v1/. body
// is sent as JSON unless it is nil. It returns the status and the body of the
// response; an error only if there is no response.
func (v *Vault) Try(token, method, path string, body any) (status int, response []byte, err error) {
	var sent io.Reader
	if body != nil {
		content, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		sent = bytes.NewReader(content)
	}
	req, err := http.NewRequest(method, v.Address+"/v1/"+path, sent)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("X-Vault-Token", token)
	resp, err := v.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	response, err = io.ReadAll(resp.Body)
	return resp.StatusCode, response, err
}

// Do makes a call with the root token and decodes the response into out, unless
// that is nil. The test fails unless Vault answers with 200 or 204.
func (v *Vault) Do(method, path string, body, out any) {
	v.t.Helper()
	status, response, err := v.Try(v.RootToken, method, path, body)
	if err != nil {
		v.t.Fatalf("testvault: %s %s: %v", method, path, err)
	}
	if status != http.StatusOK && status != http.StatusNoContent {
		v.t.Fatalf("testvault: %s %s: status %d: %s", method, path, status, response)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal(response, out); err != nil {
		v.t.Fatalf("testvault: %s %s: %v", method, path, err)
	}
}

// fields is the body of a request.
type fields map[string]any

// unique returns a name that this Vault has not been given yet.
func (v *Vault) unique(kind string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.names++
	return fmt.Sprintf("%s-%d", kind, v.names)
}

// EnableTransit mounts the transit engine.
func (v *Vault) EnableTransit(mount string) {
	v.t.Helper()
	v.Do(http.MethodPost, "sys/mounts/"+mount, fields{"type": "transit"}, nil)
}

// NewKey makes a transit key of the default type, aes256-gcm96.
func (v *Vault) NewKey(mount, name string) {
	v.t.Helper()
	v.Do(http.MethodPost, mount+"/keys/"+name, fields{}, nil)
}

// RotateKey makes a new version of a transit key.
func (v *Vault) RotateKey(mount, name string) {
	v.t.Helper()
	v.Do(http.MethodPost, mount+"/keys/"+name+"/rotate", nil, nil)
}

// ConfigureKey sets fields of a transit key's configuration, such as
// min_decryption_version or deletion_allowed.
func (v *Vault) ConfigureKey(mount, name string, config map[string]any) {
	v.t.Helper()
	v.Do(http.MethodPost, mount+"/keys/"+name+"/config", config, nil)
}

// WritePolicy makes or replaces a policy, given in HCL.
func (v *Vault) WritePolicy(name, hcl string) {
	v.t.Helper()
	v.Do(http.MethodPut, "sys/policies/acl/"+name, fields{"policy": hcl}, nil)
}

// DeletePolicy takes a policy, and so all that it grants, from every token.
func (v *Vault) DeletePolicy(name string) {
	v.t.Helper()
	v.Do(http.MethodDelete, "sys/policies/acl/"+name, nil, nil)
}

// EnableAuth enables an auth method, "approle", "cert" or "kubernetes", at the
// mount of that name, unless it is enabled.
func (v *Vault) EnableAuth(kind string) {
	v.t.Helper()
	var enabled struct {
		Data map[string]any `json:"data"`
	}
	v.Do(http.MethodGet, "sys/auth", nil, &enabled)
	if enabled.Data[kind+"/"] == nil {
		v.Do(http.MethodPost, "sys/auth/"+kind, fields{"type": kind}, nil)
	}
}

// AppRole makes an AppRole with the policies, beside "default", and returns what
// logs in as it. Its tokens live for 20 minutes.
func (v *Vault) AppRole(policies ...string) (roleID, secretID string) {
	v.t.Helper()
	name := v.unique("role")
	v.WriteRole(name, map[string]any{"token_policies": policies, "token_ttl": "20m"})
	return v.RoleID(name), v.SecretID(name)
}

// WriteRole makes an AppRole or changes it. The fields are those of the API.
func (v *Vault) WriteRole(name string, role map[string]any) {
	v.t.Helper()
	v.EnableAuth("approle")
	v.Do(http.MethodPost, "auth/approle/role/"+name, role, nil)
}

// DeleteRole deletes an AppRole. Tokens that it has given out stay good.
func (v *Vault) DeleteRole(name string) {
	v.t.Helper()
	v.Do(http.MethodDelete, "auth/approle/role/"+name, nil, nil)
}

// RoleID returns the role id of an AppRole.
func (v *Vault) RoleID(name string) string {
	v.t.Helper()
	var read struct {
		Data struct {
			RoleID string `json:"role_id"`
		} `json:"data"`
	}
	v.Do(http.MethodGet, "auth/approle/role/"+name+"/role-id", nil, &read)
	return read.Data.RoleID
}

// SecretID makes a secret id for an AppRole.
func (v *Vault) SecretID(name string) string {
	v.t.Helper()
	var made struct {
		Data struct {
			SecretID string `json:"secret_id"`
		} `json:"data"`
	}
	v.Do(http.MethodPost, "auth/approle/role/"+name+"/secret-id", fields{}, &made)
	return made.Data.SecretID
}

// Token makes a renewable token with the policy, beside "default".
func (v *Vault) Token(policy string, ttl time.Duration) string {
	v.t.Helper()
	return v.NewToken(map[string]any{"policies": []string{policy}, "ttl": ttl.String()})
}

// NewToken makes a token without a parent. The fields are those of the API's
// auth/token/create.
func (v *Vault) NewToken(token map[string]any) string {
	v.t.Helper()
	var made struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		} `json:"auth"`
	}
	v.Do(http.MethodPost, "auth/token/create-orphan", token, &made)
	return made.Auth.ClientToken
}

// RevokeToken revokes a token.
func (v *Vault) RevokeToken(token string) {
	v.t.Helper()
	v.Do(http.MethodPost, "auth/token/revoke", fields{"token": token}, nil)
}

// TokenInfo is what Vault knows of a token, as far as tests look at it.
type TokenInfo struct {
	Policies    []string `json:"policies"`
	Created     int64    `json:"creation_time"`     // Unix seconds
	LastRenewal int64    `json:"last_renewal_time"` // Unix seconds, zero if it never was
}

// LookUp returns what Vault knows of the token with an accessor, unless it has
// expired or was revoked.
func (v *Vault) LookUp(accessor string) (info TokenInfo, ok bool) {
	v.t.Helper()
	status, response, err := v.Try(v.RootToken, http.MethodPost, "auth/token/lookup-accessor", fields{"accessor": accessor})
	if err != nil {
		v.t.Fatalf("testvault: look up an accessor: %v", err)
	}
	var token struct {
		Data TokenInfo `json:"data"`
	}
	ok = status == http.StatusOK && json.Unmarshal(response, &token) == nil
	return token.Data, ok
}

// TokensOf returns the accessors of all tokens that have the policy.
func (v *Vault) TokensOf(policy string) []string {
	v.t.Helper()
	var list struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	v.Do("LIST", "auth/token/accessors", nil, &list)
	var found []string
	for _, accessor := range list.Data.Keys {
		if info, ok := v.LookUp(accessor); ok && slices.Contains(info.Policies, policy) {
			found = append(found, accessor)
		}
	}
	return found
}

// RevokeTokensOf revokes all tokens that have the policy.
func (v *Vault) RevokeTokensOf(policy string) {
	v.t.Helper()
	for _, accessor := range v.TokensOf(policy) {
		v.Do(http.MethodPost, "auth/token/revoke-accessor", fields{"accessor": accessor}, nil)
	}
}

// AuditFile enables a file audit device and returns the path of its file, to
// which Vault writes each request and response before it answers. With raw,
// nothing in it is hashed.
func (v *Vault) AuditFile(raw bool) string {
	v.t.Helper()
	name := v.unique("audit")
	path := filepath.Join(v.dir, name+".log")
	v.Do(http.MethodPut, "sys/audit/"+name, fields{
		"type":    "file",
		"options": map[string]string{"file_path": path, "log_raw": strconv.FormatBool(raw)},
	}, nil)
	return path
}

// Seal seals Vault, which then answers with 503 until Restart.
func (v *Vault) Seal() {
	v.t.Helper()
	v.Do(http.MethodPut, "sys/seal", nil, nil)
}
