package server

import (
	"context"
	"slices"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Messages are decoded at the end of the chain, right before their handler:
// nobody without a rule has the server decode anything, and a message that
// can't be decoded is judged, recorded and answered like any other call. By
// itself grpc decodes before the first interceptor. Two parts work together:
// services are registered with lateDecoder, whose handlers put messages into
// an envelope; and lateCodec, when it is to decode into an envelope, leaves the
// bytes there as they are.

// envelope holds a message and the bytes that are to be decoded into it.
type envelope struct {
	message any
	data    []byte
}

// lateCodec is grpc's protobuf codec, but for envelopes.
type lateCodec struct{ encoding.CodecV2 }

func newLateCodec() lateCodec { return lateCodec{encoding.GetCodecV2(proto.Name)} }

// Unmarshal decodes into a message, or into the message of an envelope.
func (c lateCodec) Unmarshal(data mem.BufferSlice, v any) error {
	late, ok := v.(*envelope)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	late.data = data.Materialize()
	return nil
}

// open decodes the message of an envelope.
func (c lateCodec) open(e *envelope) error {
	if err := c.CodecV2.Unmarshal(mem.BufferSlice{mem.SliceBuffer(e.data)}, e.message); err != nil {
		return newDecodeError(e.message, e.data)
	}
	return nil
}

// lateDecoder registers services whose handlers decode into envelopes.
type lateDecoder struct {
	grpc.ServiceRegistrar
	codec lateCodec
}

// RegisterService registers desc with its unary handlers wrapped.
func (r lateDecoder) RegisterService(desc *grpc.ServiceDesc, impl any) {
	late := *desc
	late.Methods = slices.Clone(desc.Methods)
	for i, m := range late.Methods {
		late.Methods[i].Handler = func(srv any, ctx context.Context, decode func(any) error, chain grpc.UnaryServerInterceptor) (any, error) {
			var sealed envelope
			seal := func(message any) error {
				sealed.message = message
				return decode(&sealed)
			}
			return m.Handler(srv, ctx, seal, func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
				return chain(ctx, req, info, func(ctx context.Context, req any) (any, error) {
					if err := r.codec.open(&sealed); err != nil {
						return nil, err
					}
					return handler(ctx, req)
				})
			})
		}
	}
	late.Streams = slices.Clone(desc.Streams)
	for i, m := range late.Streams {
		late.Streams[i].Handler = func(srv any, stream grpc.ServerStream) error {
			return m.Handler(srv, lateStream{stream, r.codec})
		}
	}
	r.ServiceRegistrar.RegisterService(&late, impl)
}

// lateStream decodes the messages of a stream by itself: grpc ends a stream at
// once, in its own words, if it can't decode.
type lateStream struct {
	grpc.ServerStream
	codec lateCodec
}

// RecvMsg receives a message and decodes it.
func (s lateStream) RecvMsg(m any) error {
	sealed := envelope{message: m}
	if err := s.ServerStream.RecvMsg(&sealed); err != nil {
		return err
	}
	return s.codec.open(&sealed)
}

// decodeError says that a message can't be decoded, and which of its fields is
// to blame, if it is a string that is not UTF-8.
type decodeError struct{ field string }

func newDecodeError(message any, data []byte) *decodeError {
	if m, ok := message.(protoreflect.ProtoMessage); ok {
		return &decodeError{field: brokenString(m.ProtoReflect().Descriptor(), data)}
	}
	return &decodeError{}
}

func (e *decodeError) Error() string { return errRequest.Error() }

func (e *decodeError) Unwrap() error { return errRequest }

// brokenString returns the name of the first field of an encoded message that
// is, or holds, a string that is not UTF-8; "" if there is none before the
// encoding itself breaks off.
func brokenString(desc protoreflect.MessageDescriptor, data []byte) string {
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return ""
		}
		size := protowire.ConsumeFieldValue(number, kind, data[n:])
		if size < 0 {
			return ""
		}
		field := desc.Fields().ByNumber(number)
		if field != nil && kind == protowire.BytesType {
			content, _ := protowire.ConsumeBytes(data[n:])
			switch field.Kind() {
			case protoreflect.StringKind:
				if !utf8.Valid(content) {
					return field.TextName()
				}
			case protoreflect.MessageKind:
				if brokenString(field.Message(), content) != "" {
					return field.TextName()
				}
			}
		}
		data = data[n+size:]
	}
	return ""
}
