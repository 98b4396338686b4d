package exposure

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"
)

// Sentinels of Read.
var (
	// ErrForm says that something is not a report.
	ErrForm = errors.New("exposure: not an exposure report")

	// ErrSignature says that a report is not what was signed.
	ErrSignature = errors.New("exposure: the signature of the report is not good")
)

// A document is one JSON object, of lines:
//
//	{…, "subjects":[
//	{…}
//	,{…}
//	],"public_key":"…","signature":"…"}
//
// The first has the fields of Report, each but the last those of a Person. The signature,
// in base64, is the Ed25519 signature (RFC 8032) of
//
//	"coatcheck exposure report v1\n" SHA-256(all lines but the last)(32)
const (
	endOfHead = ",\"subjects\":[\n"
	lastLine  = "],"
)

// seal is the last line.
type seal struct {
	PublicKey []byte `json:"public_key"`
	Signature []byte `json:"signature"`
}

// signedMessage is what the signature is over.
func signedMessage(sum hash.Hash) []byte {
	return sum.Sum([]byte("coatcheck exposure report v1\n"))
}

// Signer signs a report, as tokenizer.Signer does.
type Signer interface {
	Sign(message []byte) []byte
	Public() []byte
}

// Asked is who has asked for a report, and how.
type Asked struct {
	By, RequestID string
	At            time.Time
	KnownSince    time.Time // zero if it isn't known

	// Names has people named by their customer ids.
	Names bool

	// Checkpoint is that of Evidence.
	Checkpoint string
}

// Write writes the report of what was found. Whatever it writes is JSON in lines.
//
// Errors: ErrScratch, those of tokenizer.Tokenizer.SubjectNames, or that of the writer.
func (f *Finder) Write(ctx context.Context, w io.Writer, found *Found, asked Asked, signer Signer) (*Report, error) {
	r := &Report{
		Version: Version, Created: asked.At.UTC(), CreatedBy: asked.By, RequestID: asked.RequestID, Namespace: f.Namespace,
		Since: found.query.Since.UTC(), Until: found.query.Until.UTC(), Caller: found.query.Caller, Certificate: found.query.Certificate,
		Profile: found.query.Profile, OneSubject: found.query.Subject != "",
		Addresses: []string{}, MoreAddresses: found.peers.more, Evidence: found.evidence, Damaged: found.damaged,
	}
	r.Evidence.Checkpoint = asked.Checkpoint
	if asked.Names {
		r.Subject = found.query.Subject
	}
	if known := asked.KnownSince.UTC(); !known.IsZero() {
		by := known.Add(NotifyWithin)
		r.KnownSince, r.NotifyBy = &known, &by
	}
	for _, a := range found.peers.known {
		r.Addresses = append(r.Addresses, a.String())
	}
	if err := found.totals(r, f.Tokenizer.Profile); err != nil {
		return nil, err
	}
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(sum, w), 1<<16)
	head, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("exposure: %w", err)
	}
	_, _ = out.Write(append(head[:len(head)-1], endOfHead...)) // its error comes with Flush
	between := ""
	err = found.people(ctx, f, asked.Names, func(p *Person) error {
		line, err := json.Marshal(p)
		if err != nil {
			return fmt.Errorf("exposure: %w", err)
		}
		_, _ = out.WriteString(between)
		_, err = out.Write(append(line, '\n'))
		between = ","
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := out.Flush(); err != nil {
		return nil, err
	}
	last, err := json.Marshal(seal{signer.Public(), signer.Sign(signedMessage(sum))})
	if err != nil {
		return nil, fmt.Errorf("exposure: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s%s\n", lastLine, last[1:])
	return r, err
}

// Read reads a report, hands on each person, if do isn't nil, and checks the signature.
// What is handed on is to be trusted only once Read has returned without an error, and
// only if the public key is that of the store which the report is said to be of.
//
// Errors: ErrForm, ErrSignature, that of do or of the reader.
func Read(from io.Reader, do func(*Person) error) (*Report, ed25519.PublicKey, error) {
	lines := bufio.NewReaderSize(from, 1<<16)
	sum := sha256.New()
	head, err := lines.ReadBytes('\n')
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	report := new(Report)
	begin, ok := bytes.CutSuffix(head, []byte(endOfHead))
	if !ok || json.Unmarshal(append(begin[:len(begin):len(begin)], '}'), report) != nil || report.Version != Version {
		return nil, nil, ErrForm
	}
	sum.Write(head)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return nil, nil, err
		}
		if rest, ok := bytes.CutPrefix(line, []byte(lastLine)); ok {
			key, err := checkSeal(rest, sum)
			if err == nil {
				if _, err = lines.ReadByte(); err != io.EOF {
					return nil, nil, ErrForm // there is more behind it
				}
				return report, key, nil
			}
			return nil, nil, err
		}
		sum.Write(line)
		p := new(Person)
		if err := json.Unmarshal(bytes.TrimPrefix(line, []byte(",")), p); err != nil {
			return nil, nil, ErrForm
		}
		if do != nil {
			if err := do(p); err != nil {
				return nil, nil, err
			}
		}
	}
}

// checkSeal checks the last line of a report.
func checkSeal(rest []byte, sum hash.Hash) (ed25519.PublicKey, error) {
	var s seal
	if err := json.Unmarshal(append([]byte("{"), rest...), &s); err != nil || len(s.PublicKey) != ed25519.PublicKeySize {
		return nil, ErrForm
	}
	if !ed25519.Verify(s.PublicKey, signedMessage(sum), s.Signature) {
		return nil, ErrSignature
	}
	return s.PublicKey, nil
}
