package server

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// method is a row of the method table: how the chain treats an RPC.
type method struct {
	// action is what policy calls it. It is empty for a method that any
	// caller with an identity may call; such a method is not recorded either,
	// so it must neither reveal nor change anything.
	action string

	// kind says what policy needs to know to decide on the action.
	kind policy.ActionKind

	// also is a second action: what policy calls a part of what the RPC does, which the
	// handler asks about. It is of the same kind.
	also string

	// token says that it is about tokens of which something is known once they are
	// looked up, values that it gives values away, and reason that callers can state
	// one.
	token, values, reason bool

	// endless marks streams that last as long as the client likes. They are
	// recorded when they begin, have no deadline and are ended by a drain.
	endless bool

	// stream marks streams that commit an event for each group of messages before
	// they answer it. They have no deadline, and end themselves when the server
	// drains.
	stream bool

	// standard marks the services that come with grpc: their errors are
	// statuses, which are passed on.
	standard bool
}

// methods is the method table. An RPC that is registered without a row here
// stops the server from starting, and so does a row without its RPC.
var methods = map[string]method{
	coatcheckv1.TokenizationService_Tokenize_FullMethodName:         {action: "tokenize", kind: policy.ProfileAction, token: true},
	coatcheckv1.TokenizationService_Detokenize_FullMethodName:       {action: "detokenize", kind: policy.RevealAction, token: true, values: true, reason: true},
	coatcheckv1.TokenizationService_BatchTokenize_FullMethodName:    {action: "tokenize", kind: policy.ProfileAction, token: true},
	coatcheckv1.TokenizationService_BatchDetokenize_FullMethodName:  {action: "detokenize", kind: policy.RevealAction, token: true, values: true, reason: true},
	coatcheckv1.TokenizationService_StreamTokenize_FullMethodName:   {action: "tokenize", kind: policy.ProfileAction, token: true, stream: true},
	coatcheckv1.TokenizationService_StreamDetokenize_FullMethodName: {action: "detokenize", kind: policy.RevealAction, token: true, values: true, reason: true, stream: true},

	coatcheckv1.TokenService_GetToken_FullMethodName:     {action: "get-token", kind: policy.ProfileAction, token: true},
	coatcheckv1.TokenService_ListTokens_FullMethodName:   {action: "list-tokens", kind: policy.ProfileAction},
	coatcheckv1.TokenService_LookupToken_FullMethodName:  {action: "lookup-token", kind: policy.ProfileAction},
	coatcheckv1.TokenService_UpdateToken_FullMethodName:  {action: "update-token", kind: policy.ProfileAction, token: true},
	coatcheckv1.TokenService_RevokeToken_FullMethodName:  {action: "revoke-token", kind: policy.ProfileAction, token: true, reason: true},
	coatcheckv1.TokenService_RestoreToken_FullMethodName: {action: "restore-token", kind: policy.ProfileAction, token: true, reason: true},
	coatcheckv1.TokenService_DeleteToken_FullMethodName:  {action: "delete-token", kind: policy.ProfileAction, token: true, reason: true},
	coatcheckv1.TokenService_ImportTokens_FullMethodName: {action: "import-tokens", kind: policy.ProfileAction, token: true},
	coatcheckv1.TokenService_ExportTokens_FullMethodName: {action: "export-tokens", kind: policy.ProfileAction, values: true, stream: true},

	coatcheckv1.HoneytokenService_CreateHoneytoken_FullMethodName: {action: "create-honeytoken", kind: policy.ProfileAction},
	coatcheckv1.HoneytokenService_ListHoneytokens_FullMethodName:  {action: "list-honeytokens", kind: policy.ProfileAction},
	coatcheckv1.HoneytokenService_DeleteHoneytoken_FullMethodName: {action: "delete-honeytoken", kind: policy.ProfileAction},

	coatcheckv1.KeyService_ListKeys_FullMethodName:  {action: "list-keys", kind: policy.PlainAction},
	coatcheckv1.KeyService_RotateKey_FullMethodName: {action: "rotate-key", kind: policy.PlainAction},
	coatcheckv1.KeyService_Rewrap_FullMethodName:    {action: "rewrap", kind: policy.PlainAction},
	coatcheckv1.KeyService_RetireKey_FullMethodName: {action: "retire-key", kind: policy.PlainAction},

	coatcheckv1.PolicyService_GetPolicy_FullMethodName: {action: "get-policy", kind: policy.PlainAction},
	coatcheckv1.PolicyService_Explain_FullMethodName:   {action: "explain-policy", kind: policy.PlainAction},

	coatcheckv1.PrivacyService_ReportExposure_FullMethodName: {action: "report-exposure", also: reportSubjects, kind: policy.PlainAction, reason: true, stream: true},

	coatcheckv1.CallerService_SuspendCaller_FullMethodName:   {action: "suspend-caller", kind: policy.PlainAction},
	coatcheckv1.CallerService_ListSuspensions_FullMethodName: {action: "list-suspensions", kind: policy.PlainAction},
	coatcheckv1.CallerService_RestoreCaller_FullMethodName:   {action: "restore-caller", kind: policy.PlainAction},

	coatcheckv1.ApprovalService_RequestApproval_FullMethodName:  {action: "request-approval", kind: policy.PlainAction},
	coatcheckv1.ApprovalService_WithdrawApproval_FullMethodName: {action: "request-approval", kind: policy.PlainAction},
	coatcheckv1.ApprovalService_ListApprovals_FullMethodName:    {action: "list-approvals", kind: policy.PlainAction},
	coatcheckv1.ApprovalService_GetApproval_FullMethodName:      {action: "list-approvals", kind: policy.PlainAction},
	coatcheckv1.ApprovalService_Approve_FullMethodName:          {action: "decide-approval", kind: policy.PlainAction},
	coatcheckv1.ApprovalService_Deny_FullMethodName:             {action: "decide-approval", kind: policy.PlainAction},
	coatcheckv1.ApprovalService_RevokeApproval_FullMethodName:   {action: "decide-approval", kind: policy.PlainAction},

	coatcheckv1.AuditService_Prune_FullMethodName:         {action: "prune-audit", kind: policy.PlainAction},
	coatcheckv1.AuditService_GetCheckpoint_FullMethodName: {action: "get-checkpoint", kind: policy.PlainAction},
	coatcheckv1.AuditService_GetProof_FullMethodName:      {action: "get-proof", kind: policy.PlainAction},
	coatcheckv1.AuditService_QueryEvents_FullMethodName:   {action: "query-audit", kind: policy.PlainAction},
	coatcheckv1.AuditService_WatchEvents_FullMethodName:   {action: "watch-audit", kind: policy.PlainAction, endless: true},

	grpc_reflection_v1.ServerReflection_ServerReflectionInfo_FullMethodName: {action: "reflect", kind: policy.PlainAction, endless: true, standard: true},

	// Health tells load balancers whether to send calls, often and before
	// anybody has written a policy.
	grpc_health_v1.Health_Check_FullMethodName: {standard: true},
	grpc_health_v1.Health_List_FullMethodName:  {standard: true},
	grpc_health_v1.Health_Watch_FullMethodName: {endless: true, standard: true},
}

// unknownMethod is the row of a method that the server doesn't have. Its name,
// which may hold anything, is not recorded.
var unknownMethod = method{action: "unknown"}

// rowOf returns the row of a method.
func rowOf(name string) (m method, known bool) {
	if m, known = methods[name]; !known {
		return unknownMethod, false
	}
	return m, true
}

// actions returns what policy calls it, and parts of it.
func (m method) actions() []string {
	return slices.DeleteFunc([]string{m.action, m.also}, func(name string) bool { return name == "" })
}

// Actions returns the actions that a policy can speak of, from the method
// table.
func Actions() map[string]policy.ActionKind {
	actions := make(map[string]policy.ActionKind)
	for _, m := range methods {
		for _, name := range m.actions() {
			actions[name] = m.kind
		}
	}
	return actions
}

// Vocabulary returns what policies of a server with these profiles can speak of.
func Vocabulary(profiles []tokenizer.Profile) policy.Vocabulary {
	v := policy.Vocabulary{
		Actions: Actions(), Traits: make(map[string]policy.ActionTraits), Namespaces: []string{DefaultNamespace},
		Profiles: make(map[string]policy.ProfileVocabulary),
	}
	for _, m := range methods {
		for _, name := range m.actions() {
			v.Traits[name] = policy.ActionTraits{Token: m.token, Values: m.values, Reason: m.reason}
		}
	}
	for _, p := range profiles {
		about := policy.ProfileVocabulary{Purposes: p.Purposes, Classes: p.Classes, Vain: vainActions(p.WithDefaults())}
		for _, part := range p.Parts() {
			about.Parts = append(about.Parts, part.String())
		}
		v.Profiles[p.Name] = about
	}
	return v
}

// vainActions returns the actions that can't succeed on a profile, and why.
func vainActions(p tokenizer.Profile) map[string]string {
	vain := make(map[string]string)
	switch {
	case p.Mode == tokenizer.OneWay:
		const why = "the mode one-way has no tokens"
		for name, kind := range Actions() {
			if kind != policy.PlainAction && name != "tokenize" {
				vain[name] = why
			}
		}
		return vain
	case p.Mode == tokenizer.FPE:
		const why = "the mode fpe stores nothing"
		for name, kind := range Actions() {
			if kind == policy.ProfileAction && name != "tokenize" && name != "lookup-token" {
				vain[name] = why
			}
		}
		return vain
	}
	if !p.Lookup {
		vain["lookup-token"] = "lookup is not declared"
	}
	if p.Ephemeral() {
		const why = "card verification values must not be kept elsewhere, or come from there"
		vain["export-tokens"], vain["import-tokens"] = why, why
	}
	return vain
}

// checkMethods compares the method table with what is registered.
func checkMethods(services map[string]grpc.ServiceInfo) error {
	missing := maps.Clone(methods)
	for service, info := range services {
		for _, m := range info.Methods {
			name := "/" + service + "/" + m.Name
			row, ok := methods[name]
			if !ok {
				return fmt.Errorf("server: %s has no row in the method table", name)
			}
			if (m.IsClientStream || m.IsServerStream) && !row.endless && !row.stream {
				// The chain commits a call's event once its handler is done,
				// which for a stream is after its messages have gone out.
				return fmt.Errorf("server: %s is a stream: nothing would record it before its messages leave", name)
			}
			delete(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("server: the method table has rows for methods that are not registered: %v",
			slices.Sorted(maps.Keys(missing)))
	}
	return nil
}

// Methods returns the full names of all RPCs, in order.
func Methods() []string { return slices.Sorted(maps.Keys(methods)) }
