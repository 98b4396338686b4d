package command

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/coatcheck/coatcheck/cmd/internal/rows"
	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// importFields are the fields of a row. What else a row has is left.
var importFields = []string{"token", "value", "data", "profile", "subject", "expire_time", "max_uses", "uses", "state", "metadata"}

// item makes an item of a row, nil if that is blank.
func (i *importTokens) item(row *rows.Row, now time.Time) (*coatcheckv1.ImportedToken, *rows.Refusal) {
	field := make(map[string]string, len(importFields))
	blank := true
	for k, name := range importFields {
		field[name] = row.Fields[k].Value
		blank = blank && row.Fields[k].Empty()
	}
	if blank {
		return nil, nil
	}
	req := &coatcheckv1.TokenizeRequest{Profile: field["profile"], Value: field["value"], Subject: field["subject"]}
	if i.profile != "" {
		req.Profile = i.profile
	}
	item := &coatcheckv1.ImportedToken{Request: req, Token: field["token"]}
	var err error
	if req.Data, err = base64.StdEncoding.DecodeString(field["data"]); err != nil {
		return nil, malformed("data", "is not base64")
	}
	if field["metadata"] != "" && json.Unmarshal([]byte(field["metadata"]), &req.Metadata) != nil {
		return nil, malformed("metadata", "is not an object of strings")
	}
	if refused := importLife(req, field, now); refused != nil {
		return nil, refused
	}
	if proto.Size(item) > maxMessage {
		return nil, malformed("value", "is longer than any value can be")
	}
	return item, nil
}

// importLife takes over what is left of the life of a token. One that can't be
// used any more, or not now, is refused: imported, it could be used.
func importLife(req *coatcheckv1.TokenizeRequest, field map[string]string, now time.Time) *rows.Refusal {
	over := func(name, reason, message string) *rows.Refusal {
		return &rows.Refusal{Field: name, Code: "FAILED_PRECONDITION", Reason: reason, Message: message}
	}
	if state := field["state"]; state != "" && state != "active" {
		if state == "revoked" {
			return over("state", "TOKEN_REVOKED", "the token has been revoked, and would be restored by an import")
		}
		return malformed("state", "is neither active nor revoked")
	}
	if text := field["expire_time"]; text != "" {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return malformed("expire_time", "is not a time of RFC 3339")
		}
		left := at.Sub(now).Truncate(time.Second)
		if left < time.Second {
			return over("expire_time", "TOKEN_EXPIRED", "the token has expired")
		}
		req.Ttl = durationpb.New(left)
	}
	if text := field["max_uses"]; text != "" {
		most, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return malformed("max_uses", "is not a number")
		}
		used := uint64(0)
		if text := field["uses"]; text != "" {
			if used, err = strconv.ParseUint(text, 10, 32); err != nil {
				return malformed("uses", "is not a number")
			}
		}
		if most == 0 {
			return nil // no bound
		}
		if used >= most {
			return over("uses", "TOKEN_SPENT", "the token has been used as often as it may be")
		}
		req.MaxUses = uint32(most - used)
	}
	return nil
}

// refusedField returns the field that the server names, if it names one.
func refusedField(st *rpcstatus.Status) string {
	for _, d := range status.FromProto(st).Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok && len(bad.GetFieldViolations()) > 0 {
			return bad.GetFieldViolations()[0].GetField()
		}
	}
	return ""
}
