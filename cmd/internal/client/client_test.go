package client

import (
	"errors"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestExplain(t *testing.T) {
	refused := func(code codes.Code, message, domain, reason string) error {
		st, err := status.New(code, message).WithDetails(&errdetails.ErrorInfo{Domain: domain, Reason: reason})
		if err != nil {
			t.Fatal(err)
		}
		return st.Err()
	}
	for name, row := range map[string]struct {
		err  error
		want string
	}{
		"a refusal":              {refused(codes.FailedPrecondition, "the key is active", "coatcheck", "KEY_IN_USE"), "FAILED_PRECONDITION KEY_IN_USE: the key is active"},
		"somebody else's reason": {refused(codes.Unavailable, "gone", "example.com", "X"), "UNAVAILABLE: gone"},
		"no reason":              {status.Error(codes.DeadlineExceeded, "late"), "DEADLINE_EXCEEDED: late"},
		"no status":              {errors.New("a file is missing"), "a file is missing"},
	} {
		if got := Explain(row.err); got.Error() != row.want {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
	if Explain(nil) != nil {
		t.Error("no error became one")
	}
}
