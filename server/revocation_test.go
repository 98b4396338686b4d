package server_test

import (
	"crypto/x509"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/crl"
	"github.com/coatcheck/coatcheck/server/servertest"
)

// revocations parses the lists of one authority.
func revocations(t *testing.T, a *servertest.Authority, lists ...[]byte) *crl.Set {
	t.Helper()
	var files []crl.File
	for _, list := range lists {
		files = append(files, crl.File{Name: "list", Data: list})
	}
	set, err := crl.Parse(files, []*x509.Certificate{a.Certificate()})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// refusedAs says whether an error is UNAUTHENTICATED with the reason.
func refusedAs(err error, want string) bool {
	return status.Code(err) == codes.Unauthenticated && reason(err) == want
}

// A certificate that is revoked while its connection is open isn't served any longer, by
// no method, and neither is one whose revocation nobody can know of. Others are.
func TestRevokedWhileOpen(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	bad := in.Authority.Caller(t, "checkout")
	open := in.Dial(t, &bad)
	other := coatcheckv1.NewTokenizationServiceClient(in.As(t, "checkout"))
	client := coatcheckv1.NewTokenizationServiceClient(open)
	req := &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"}
	calls := map[string]func() error{
		"Tokenize": func() error {
			_, err := client.Tokenize(deadline(t), req)
			return err
		},
		"BatchTokenize": func() error {
			_, err := client.BatchTokenize(deadline(t), &coatcheckv1.BatchTokenizeRequest{Items: []*coatcheckv1.TokenizeRequest{req}})
			return err
		},
		"Health": func() error {
			_, err := grpc_health_v1.NewHealthClient(open).Check(deadline(t), &grpc_health_v1.HealthCheckRequest{})
			return err
		},
	}
	expect := func(when, want string) {
		t.Helper()
		for name, call := range calls {
			if err := call(); want == "" && err != nil || want != "" && !refusedAs(err, want) {
				t.Errorf("%s, %s: %v, want %q", name, when, err, want)
			}
		}
		if _, err := other.Tokenize(deadline(t), req); err != nil && want == "CERTIFICATE_REVOKED" {
			t.Errorf("another certificate, %s: %v", when, err)
		}
	}
	stream, err := client.StreamTokenize(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	talk := func() error {
		if err := stream.Send(&coatcheckv1.StreamTokenizeRequest{Request: req}); err != nil {
			t.Fatal(err)
		}
		_, err := stream.Recv()
		return err
	}
	if err := talk(); err != nil {
		t.Fatal(err)
	}
	config := in.TLS(t, in.Authority.Pool())
	expect("before", "")
	in.ReplaceTLS(t, config, revocations(t, in.Authority, in.Authority.Revoke(t, time.Now())))
	expect("with an empty list", "")
	in.ReplaceTLS(t, config, revocations(t, in.Authority, in.Authority.Revoke(t, time.Now(), bad.Leaf)))
	expect("revoked", "CERTIFICATE_REVOKED")
	if err := talk(); !refusedAs(err, "CERTIFICATE_REVOKED") {
		t.Errorf("a stream that is open: %v", err)
	}
	if _, err := coatcheckv1.NewTokenizationServiceClient(in.Dial(t, &bad)).Tokenize(deadline(t), req); status.Code(err) != codes.Unavailable {
		t.Errorf("a new connection: %v", err)
	}
	in.ReplaceTLS(t, config, revocations(t, in.Authority, in.Authority.Revoke(t, time.Now().Add(-2*time.Hour))))
	expect("with a list that is out of date", "REVOCATION_UNKNOWN")
	in.ReplaceTLS(t, in.TLS(t, servertest.NewAuthority(t).Pool()), nil)
	expect("with another authority", "CERTIFICATE_UNTRUSTED")
	in.ReplaceTLS(t, config, nil)
	expect("after", "")

	seen := make(map[any]int)
	for _, e := range events(t, in) {
		if e["reason"] != nil {
			seen[e["reason"]]++
			if e["code"] != "UNAUTHENTICATED" || e["decision"] == "allow" || e["certificate"] == nil {
				t.Errorf("event %v", e)
			}
		}
	}
	// Health isn't recorded; the other certificate is refused too where all are.
	if seen["CERTIFICATE_REVOKED"] < 3 || seen["REVOCATION_UNKNOWN"] != 3 || seen["CERTIFICATE_UNTRUSTED"] != 3 {
		t.Errorf("recorded: %v", seen)
	}
}

// A list goes out of date by itself.
func TestListGoesOutOfDateWhileOpen(t *testing.T) {
	a := servertest.NewAuthority(t)
	due := time.Now().Add(3 * time.Second)
	in := servertest.Start(t, servertest.Options{Authority: a, Revoked: revocations(t, a, a.Revoke(t, due.Add(-time.Hour)))})
	client := coatcheckv1.NewTokenizationServiceClient(in.As(t, "checkout"))
	req := &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"}
	if _, err := client.Tokenize(deadline(t), req); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(due))
	if _, err := client.Tokenize(deadline(t), req); !refusedAs(err, "REVOCATION_UNKNOWN") {
		t.Errorf("out of date: %v", err)
	}
}

// Streams that would never end do, soon after the certificate is revoked.
func TestEndlessStreamsEndWhenRevoked(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	cert := in.Authority.Caller(t, "admin")
	conn := in.Dial(t, &cert)
	watch, err := grpc_health_v1.NewHealthClient(conn).Watch(deadline(t), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	reflect, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	ask := &grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}
	if err := reflect.Send(ask); err != nil {
		t.Fatal(err)
	}
	if _, err := reflect.Recv(); err != nil {
		t.Fatal(err)
	}
	in.ReplaceTLS(t, in.TLS(t, in.Authority.Pool()), revocations(t, in.Authority, in.Authority.Revoke(t, time.Now(), cert.Leaf)))
	for name, stream := range map[string]grpc.ClientStream{"Watch": watch, "ServerReflectionInfo": reflect} {
		if err := stream.RecvMsg(new(grpc_health_v1.HealthCheckResponse)); !refusedAs(err, "CERTIFICATE_REVOKED") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What the server shows of itself is replaced for the connections that come.
func TestServerCertificateIsReplaced(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	req := &coatcheckv1.TokenizeRequest{Profile: "note", Value: "x"}
	open := coatcheckv1.NewTokenizationServiceClient(in.As(t, "checkout"))
	if _, err := open.Tokenize(deadline(t), req); err != nil {
		t.Fatal(err)
	}
	next := servertest.NewAuthority(t)
	config := in.TLS(t, in.Authority.Pool())
	config.Certificates[0] = next.Server(t)
	in.ReplaceTLS(t, config, nil)
	if _, err := open.Tokenize(deadline(t), req); err != nil {
		t.Errorf("in the open connection: %v", err)
	}
	if _, err := coatcheckv1.NewTokenizationServiceClient(in.As(t, "checkout")).Tokenize(deadline(t), req); status.Code(err) != codes.Unavailable {
		t.Errorf("with a certificate that the client doesn't trust: %v", err)
	}
}
