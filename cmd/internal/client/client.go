// Package client connects commands to a running server.
package client

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// Options say which server, and as whom.
type Options struct {
	Address    string
	ServerName string
	CA         string // PEM files
	Cert, Key  string
}

// flagSet is what of a set of flags is needed here.
type flagSet interface {
	StringVar(p *string, name, value, usage string)
}

// Flags adds the flags of a connection. Those that are left out come from the
// environment: COATCHECK_ADDRESS, COATCHECK_CA, COATCHECK_CERT, COATCHECK_KEY
// and COATCHECK_SERVER_NAME.
func (o *Options) Flags(flags flagSet, getenv func(string) string) {
	add := func(value *string, name, env, fallback, usage string) {
		if v := getenv(env); v != "" {
			fallback = v
		}
		flags.StringVar(value, name, fallback, fmt.Sprintf("%s ($%s)", usage, env))
	}
	add(&o.Address, "address", "COATCHECK_ADDRESS", "127.0.0.1:7443", "host:port of the server")
	add(&o.CA, "ca", "COATCHECK_CA", "", "PEM file with the authorities of the server's certificate")
	add(&o.Cert, "cert", "COATCHECK_CERT", "", "PEM file with our certificate")
	add(&o.Key, "key", "COATCHECK_KEY", "", "PEM file with its key")
	add(&o.ServerName, "server-name", "COATCHECK_SERVER_NAME", "", "the name in the server's certificate, if it is not that of the address")
}

// Missing returns the names of the flags that are needed and not given.
func (o *Options) Missing() (flags []string) {
	for _, f := range []struct{ name, value string }{{"--ca", o.CA}, {"--cert", o.Cert}, {"--key", o.Key}} {
		if f.value == "" {
			flags = append(flags, f.name)
		}
	}
	return flags
}

// Dial reads the files. It doesn't connect yet: the first call does.
func (o *Options) Dial() (*grpc.ClientConn, error) {
	if _, _, err := net.SplitHostPort(o.Address); err != nil {
		return nil, fmt.Errorf("--address %s: is not of the form host:port", o.Address)
	}
	pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
	if err != nil {
		return nil, fmt.Errorf("--cert %s, --key %s: %w", o.Cert, o.Key, err)
	}
	pem, err := os.ReadFile(o.CA)
	if err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--ca %s: has no certificate", o.CA)
	}
	conn, err := grpc.NewClient(o.Address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: pool, ServerName: o.ServerName,
	})), grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 20 * time.Second})) // or a peer that is gone would be waited for
	if err != nil {
		return nil, fmt.Errorf("--address %s: %w", o.Address, err)
	}
	return conn, nil
}

// Error is how a server refused a call.
type Error struct {
	Code    code.Code
	Reason  string // from its ErrorInfo; "" if there is none
	Message string
}

// Error has the code, the reason and the message.
func (e *Error) Error() string {
	return strings.Join(strings.Fields(e.Code.String()+" "+e.Reason), " ") + ": " + e.Message
}

// Explain makes an *Error of the error of a call.
func Explain(err error) error {
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	e := &Error{Code: code.Code(st.Code()), Message: st.Message()} // the same numbers
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == "coatcheck" {
			e.Reason = info.GetReason()
		}
	}
	return e
}
