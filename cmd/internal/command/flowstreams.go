package command

import (
	"context"
	"encoding/base64"
	"strconv"

	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// maxAnswer is the largest message that is received.
const maxAnswer = 64 << 20

// noAnswer stands for a result that has neither answer nor error.
var noAnswer = &rpcstatus.Status{}

// tokenizeFields asks StreamTokenize.
type tokenizeFields struct {
	request func(*question) *coatcheckv1.TokenizeRequest
	stream  grpc.BidiStreamingClient[coatcheckv1.StreamTokenizeRequest, coatcheckv1.StreamTokenizeResponse]
}

func (t *tokenizeFields) open(ctx context.Context, conn *grpc.ClientConn) (asker, error) {
	stream, err := coatcheckv1.NewTokenizationServiceClient(conn).StreamTokenize(ctx)
	return &tokenizeFields{t.request, stream}, err
}

func (t *tokenizeFields) large(q *question) bool { return proto.Size(t.request(q)) > maxMessage }

func (t *tokenizeFields) send(q *question) error {
	return t.stream.Send(&coatcheckv1.StreamTokenizeRequest{CorrelationId: strconv.FormatUint(q.id, 10), Request: t.request(q)})
}

func (t *tokenizeFields) end() error { return t.stream.CloseSend() }

// receive returns the token; of a profile that makes none, the masked form.
func (t *tokenizeFields) receive() (answer, error) {
	m, err := t.stream.Recv()
	if err != nil {
		return answer{}, err
	}
	a := answer{correlation: m.GetCorrelationId(), refused: m.GetResult().GetError()}
	resp := m.GetResult().GetResponse()
	switch {
	case a.refused != nil:
	case resp == nil:
		a.refused = noAnswer
	case resp.GetToken() != "":
		a.text = resp.GetToken()
	default:
		a.text = resp.GetMasked()
	}
	return a, nil
}

// detokenizeFields asks StreamDetokenize.
type detokenizeFields struct {
	request func(*question) *coatcheckv1.DetokenizeRequest
	stream  grpc.BidiStreamingClient[coatcheckv1.StreamDetokenizeRequest, coatcheckv1.StreamDetokenizeResponse]
}

func (d *detokenizeFields) open(ctx context.Context, conn *grpc.ClientConn) (asker, error) {
	stream, err := coatcheckv1.NewTokenizationServiceClient(conn).StreamDetokenize(ctx, grpc.MaxCallRecvMsgSize(maxAnswer))
	return &detokenizeFields{d.request, stream}, err
}

func (d *detokenizeFields) large(q *question) bool { return proto.Size(d.request(q)) > maxMessage }

func (d *detokenizeFields) send(q *question) error {
	return d.stream.Send(&coatcheckv1.StreamDetokenizeRequest{CorrelationId: strconv.FormatUint(q.id, 10), Request: d.request(q)})
}

func (d *detokenizeFields) end() error { return d.stream.CloseSend() }

// receive returns the value; bytes in base64.
func (d *detokenizeFields) receive() (answer, error) {
	m, err := d.stream.Recv()
	if err != nil {
		return answer{}, err
	}
	a := answer{correlation: m.GetCorrelationId(), refused: m.GetResult().GetError()}
	resp := m.GetResult().GetResponse()
	switch {
	case a.refused != nil:
	case resp == nil:
		a.refused = noAnswer
	case len(resp.GetData()) > 0:
		a.text = base64.StdEncoding.EncodeToString(resp.GetData())
	default:
		a.text = resp.GetValue()
	}
	return a, nil
}
