package server_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/servertest"
)

// purposesFile says for each method which fields of its request name a profile or a
// purpose, and for each profile and purpose whom policy lets through, or why it doesn't.
const purposesFile = "testdata/purposes.txt"

// values are values of the profiles.
var values = map[string]string{"card": "4111111111111111", "ssn": "536-22-1234", "note": "a note"}

// TestMethodsTimesCallersTimesProfilesTimesPurposes calls each method that the server has,
// found by its descriptor, as each caller, with each profile and purpose that there are in
// the fields that name such, and compares with what purposesFile expects.
func TestMethodsTimesCallersTimesProfilesTimesPurposes(t *testing.T) {
	expected, err := os.ReadFile(purposesFile)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]bool)
	for line := range strings.Lines(string(expected)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			want[line] = true
		}
	}
	in := servertest.Start(t, servertest.Options{})
	tokens := make(map[string]string)
	for profile, value := range values {
		tokens[profile] = tokenize(t, in, profile, value)
	}
	for _, name := range server.Methods() {
		method := descriptorOf(t, name)
		paths := pathsAbout(method.Input(), "")
		lines := []string{fmt.Sprintf("%s names %s", name[1:], orElse(paths, "neither"))}
		profiles, purposes := []string{"-"}, []string{"-"}
		if slices.ContainsFunc(paths, func(path string) bool { return strings.HasSuffix(path, "profile") }) {
			profiles = slices.Sorted(maps.Keys(values))
		}
		if slices.ContainsFunc(paths, func(path string) bool { return strings.HasSuffix(path, "purpose") }) {
			purposes = []string{"charge", "marketing", "refund", "support"}
		}
		for _, profile := range profiles {
			for _, purpose := range purposes {
				lines = append(lines, fmt.Sprintf("%s %s %s: %s", name[1:], profile, purpose, callAll(t, in, method, name, profile, purpose, tokens)))
			}
		}
		for _, line := range lines {
			if !want[line] {
				t.Errorf("%s doesn't expect\n%s", purposesFile, line)
			}
			delete(want, line)
		}
	}
	for _, line := range slices.Sorted(maps.Keys(want)) {
		t.Errorf("%s expects what isn't so:\n%s", purposesFile, line)
	}
}

// callAll calls a method as each caller and says whom policy lets through, and of those
// whom it doesn't, for which reason if that isn't NO_RULE.
func callAll(t *testing.T, in *servertest.Instance, method protoreflect.MethodDescriptor, name, profile, purpose string, tokens map[string]string) string {
	var through, refused []string
	for _, caller := range callers {
		request := dynamicpb.NewMessage(method.Input())
		fill(request, map[string]string{"profile": profile, "purpose": purpose, "token": tokens[profile], "value": values[profile], "action": "export-tokens"}, 0)
		switch err := invoke(deadline(t), in.As(t, caller), method, name, request); {
		case status.Code(err) != codes.PermissionDenied:
			through = append(through, caller)
		case reason(err) != "NO_RULE":
			refused = append(refused, caller+" "+reason(err))
		}
	}
	if _, ok := tokens[profile]; ok && len(through) > 0 { // it may be gone now
		tokens[profile] = tokenize(t, in, profile, values[profile])
	}
	if refused == nil {
		return orElse(through, "nobody")
	}
	return orElse(through, "nobody") + "; refused: " + strings.Join(refused, ", ")
}

func orElse(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	return strings.Join(list, ", ")
}

// descriptorOf returns the descriptor of a method of a registered service.
func descriptorOf(t *testing.T, name string) protoreflect.MethodDescriptor {
	t.Helper()
	full := protoreflect.FullName(strings.ReplaceAll(name[1:], "/", "."))
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(full)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return found.(protoreflect.MethodDescriptor)
}

// pathsAbout returns the fields of a message, and of those in it, whose names speak of a
// profile or a purpose.
func pathsAbout(m protoreflect.MessageDescriptor, above string) (paths []string) {
	if strings.Count(above, ".") > 8 {
		return nil
	}
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		name := string(f.Name())
		if strings.Contains(name, "profile") || strings.Contains(name, "purpose") {
			paths = append(paths, above+name)
		}
		if f.Message() != nil && !f.IsMap() {
			paths = append(paths, pathsAbout(f.Message(), above+name+".")...)
		}
	}
	return paths
}

// fill sets all strings of a message that are called as what is given, and what speaks of
// profiles or purposes in other words.
func fill(m protoreflect.Message, given map[string]string, depth int) {
	if depth > 4 {
		return
	}
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		text := given[string(f.Name())]
		for _, about := range []string{"profile", "purpose"} {
			if strings.HasSuffix(string(f.Name()), about) {
				text = given[about]
			}
		}
		switch {
		case f.IsMap() || f.ContainingOneof() != nil && f.Message() == nil && text == "":
		case f.Message() != nil && strings.HasPrefix(string(f.Message().FullName()), "google.protobuf."):
		case f.Message() != nil && f.IsList():
			item := m.Mutable(f).List().AppendMutable().Message()
			fill(item, given, depth+1)
		case f.Message() != nil:
			fill(m.Mutable(f).Message(), given, depth+1)
		case f.Kind() == protoreflect.StringKind && f.IsList() && text != "" && text != "-":
			m.Mutable(f).List().Append(protoreflect.ValueOfString(text))
		case f.Kind() == protoreflect.StringKind && !f.IsList() && text != "" && text != "-":
			m.Set(f, protoreflect.ValueOfString(text))
		}
	}
}

// invoke calls a method of any kind with one message and returns its error, or that of
// the first result in its answer that has one.
func invoke(ctx context.Context, conn *grpc.ClientConn, method protoreflect.MethodDescriptor, name string, request proto.Message) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: method.IsStreamingClient(), ServerStreams: method.IsStreamingServer()}, name)
	if err != nil {
		return err
	}
	_ = stream.SendMsg(request) // if it fails, RecvMsg says why
	if err := stream.CloseSend(); err != nil {
		return err
	}
	response := dynamicpb.NewMessage(method.Output())
	if err := stream.RecvMsg(response); err != nil {
		return err
	}
	return errorIn(response)
}

// errorIn returns the error of the first status in a message.
func errorIn(m protoreflect.Message) (err error) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		var messages []protoreflect.Message
		switch {
		case f.Message() == nil || f.IsMap():
		case f.IsList():
			for i := range v.List().Len() {
				messages = append(messages, v.List().Get(i).Message())
			}
		default:
			messages = append(messages, v.Message())
		}
		for _, inner := range messages {
			if inner.Descriptor().FullName() != "google.rpc.Status" {
				err = errorIn(inner)
			} else if wire, fault := proto.Marshal(inner.Interface()); fault == nil {
				var st statuspb.Status
				if err = proto.Unmarshal(wire, &st); err == nil {
					err = status.FromProto(&st).Err()
				}
			}
			if err != nil {
				return false
			}
		}
		return true
	})
	return err
}
