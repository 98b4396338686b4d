package command

import (
	"cmp"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// jsonApproval is what --json prints. Names and meanings are a promise: fields may be
// added.
type jsonApproval struct {
	ID           string     `json:"id"`
	State        string     `json:"state"` // pending, granted, denied or ended
	Requester    string     `json:"requester"`
	Rule         string     `json:"rule"`
	Action       string     `json:"action"`
	Profile      string     `json:"profile,omitempty"`
	Purpose      string     `json:"purpose,omitempty"`
	Reason       string     `json:"reason,omitempty"`
	Items        uint64     `json:"items"`
	Created      time.Time  `json:"created"`
	Expires      time.Time  `json:"expires"`
	DecidedBy    string     `json:"decided_by,omitempty"`
	Decided      *time.Time `json:"decided,omitempty"`
	DecideReason string     `json:"decide_reason,omitempty"`
	GrantedItems uint64     `json:"granted_items"`
	UsedItems    uint64     `json:"used_items"`
	EndedBy      string     `json:"ended_by,omitempty"`
	Ended        *time.Time `json:"ended,omitempty"`
	EndReason    string     `json:"end_reason,omitempty"`
}

func approvalOf(a *coatcheckv1.Approval) jsonApproval {
	maybe := func(at *timestamppb.Timestamp) *time.Time {
		if at == nil {
			return nil
		}
		t := at.AsTime()
		return &t
	}
	return jsonApproval{
		ID: a.GetId(), State: strings.ToLower(strings.TrimPrefix(a.GetState().String(), "APPROVAL_STATE_")),
		Requester: a.GetRequester(), Rule: a.GetRule(), Action: a.GetAction(), Profile: a.GetProfile(), Purpose: a.GetPurpose(),
		Reason: a.GetReason(), Items: a.GetItems(), Created: a.GetCreateTime().AsTime(), Expires: a.GetExpireTime().AsTime(),
		DecidedBy: a.GetDecidedBy(), Decided: maybe(a.GetDecideTime()), DecideReason: a.GetDecideReason(),
		GrantedItems: a.GetGrantedItems(), UsedItems: a.GetUsedItems(),
		EndedBy: a.GetEndedBy(), Ended: maybe(a.GetEndTime()), EndReason: a.GetEndReason(),
	}
}

// printOne prints all that is known of an approval.
func (a *approvalCommands) printOne(m *coatcheckv1.Approval) error {
	j := approvalOf(m)
	if a.json {
		return printJSON(a.env.Stdout, j)
	}
	t := tabwriter.NewWriter(a.env.Stdout, 0, 0, 2, ' ', 0)
	line := func(name, form string, args ...any) {
		fmt.Fprintf(t, "%s:\t%s\n", name, printable(fmt.Sprintf(form, args...)))
	}
	line("id", "%s", j.ID)
	line("state", "%s", j.State)
	line("requester", "%s", j.Requester)
	line("rule", "%s", j.Rule)
	line("for", "%s", j.what())
	line("items", "%s asked for, %s granted, %s used", grouped(j.Items), grouped(j.GrantedItems), grouped(j.UsedItems))
	line("asked", "%s%s", j.Created.Format(time.RFC3339), because(j.Reason))
	line("expires", "%s", j.Expires.Format(time.RFC3339))
	if j.Decided != nil {
		line("decided", "%s by %s%s", j.Decided.Format(time.RFC3339), j.DecidedBy, because(j.DecideReason))
	}
	if j.Ended != nil {
		line("ended", "%s by %s%s", j.Ended.Format(time.RFC3339), j.EndedBy, because(j.EndReason))
	}
	return t.Flush()
}

// because is a reason at the end of a line.
func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// what says what an approval is for.
func (j *jsonApproval) what() string {
	what := j.Action + " " + cmp.Or(j.Profile, "of any profile of the rule")
	if j.Purpose != "" {
		what += " for " + j.Purpose
	}
	return what
}

// printAll prints a table of approvals.
func (a *approvalCommands) printAll(all []*coatcheckv1.Approval) error {
	list := make([]jsonApproval, 0, len(all)) // not null
	for _, m := range all {
		list = append(list, approvalOf(m))
	}
	if a.json {
		return printJSON(a.env.Stdout, list)
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(a.env.Stdout, "None.")
		return err
	}
	t := tabwriter.NewWriter(a.env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tSTATE\tREQUESTER\tRULE\tFOR\tITEMS\tUSED\tEXPIRES\tREASON")
	for _, j := range list {
		items := j.Items
		if j.GrantedItems > 0 {
			items = j.GrantedItems
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", printable(j.ID), j.State, printable(j.Requester), printable(j.Rule), printable(j.what()),
			grouped(items), grouped(j.UsedItems), j.Expires.Format(time.RFC3339), printable(j.Reason))
	}
	return t.Flush()
}
