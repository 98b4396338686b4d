package sink

import (
	"net"
	"strconv"
	"strings"
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
)

// What log records say of where they come from.
const (
	eventName   = "coatcheck.audit"
	serviceName = "coatcheck"
	scopeName   = "github.com/coatcheck/coatcheck/server/sink"
)

// encode returns the request for events, of which it says how many lost a part. The
// message is on the wire what an ExportLogsServiceRequest is.
func (o *OTLP) encode(events []Event, now time.Time) (message *logs.LogsData, reduced int) {
	from := &resource.Resource{Attributes: attributes("service.name", serviceName, "service.instance.id", events[0].Log.String(), "host.name", o.Host)}
	records := make([]*logs.LogRecord, len(events))
	for i := range events {
		var cut bool
		if records[i], cut = o.record(&events[i], now); cut {
			reduced++
		}
	}
	return &logs.LogsData{ResourceLogs: []*logs.ResourceLogs{{
		Resource:  from,
		ScopeLogs: []*logs.ScopeLogs{{Scope: &common.InstrumentationScope{Name: scopeName}, LogRecords: records}},
	}}}, reduced
}

// record returns the log record of an event.
func (o *OTLP) record(e *Event, now time.Time) (r *logs.LogRecord, reduced bool) {
	body, reduced := e.message(o.maxSize())
	address, port := e.Peer, ""
	if host, number, err := net.SplitHostPort(e.Peer); err == nil {
		address, port = host, number
	}
	r = &logs.LogRecord{
		TimeUnixNano:         unixNano(e.Time),
		ObservedTimeUnixNano: unixNano(now),
		SeverityNumber:       severityNumber(e.Severity),
		SeverityText:         e.Severity.String(),
		EventName:            eventName,
		Body:                 text(string(body)),
		Attributes: attributes(
			"coatcheck.log", e.Log.String(), "coatcheck.hash", e.Hash.String(), "coatcheck.request_id", e.RequestID,
			"coatcheck.caller", e.Caller, "coatcheck.action", e.Action, "coatcheck.namespace", e.Namespace, "coatcheck.profile", e.Profile,
			"coatcheck.purpose", e.Purpose, "coatcheck.reveal", e.Reveal, "coatcheck.decision", e.Decision, "coatcheck.rule", e.Rule,
			"coatcheck.code", e.Code, "coatcheck.reason", e.Reason, "client.address", address, "rpc.method", strings.TrimPrefix(e.Method, "/"),
		),
	}
	r.Attributes = append(r.Attributes, number("coatcheck.seq", int64(min(e.Sequence, 1<<63-1))))
	if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		r.Attributes = append(r.Attributes, number("client.port", int64(n)))
	}
	if e.Method != "" {
		r.Attributes = append(r.Attributes, attributes("rpc.system.name", "grpc")...)
	}
	if len(e.Alerts) > 0 {
		list := new(common.ArrayValue)
		for _, alert := range e.Alerts {
			list.Values = append(list.Values, text(alert))
		}
		r.Attributes = append(r.Attributes, &common.KeyValue{Key: "coatcheck.alerts", Value: &common.AnyValue{Value: &common.AnyValue_ArrayValue{ArrayValue: list}}})
	}
	if reduced {
		r.Attributes = append(r.Attributes, &common.KeyValue{Key: "coatcheck.reduced", Value: &common.AnyValue{Value: &common.AnyValue_BoolValue{BoolValue: true}}})
	}
	return r, reduced
}

// severityNumber is what the data model of OpenTelemetry has for a severity of syslog.
func severityNumber(s Severity) logs.SeverityNumber {
	switch s {
	case Alert:
		return logs.SeverityNumber_SEVERITY_NUMBER_ERROR3
	case Notice:
		return logs.SeverityNumber_SEVERITY_NUMBER_INFO2
	}
	return logs.SeverityNumber_SEVERITY_NUMBER_INFO
}

// attributes returns those of pairs of name and value whose value isn't empty.
func attributes(pairs ...string) (list []*common.KeyValue) {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			list = append(list, &common.KeyValue{Key: pairs[i], Value: text(pairs[i+1])})
		}
	}
	return list
}

func text(s string) *common.AnyValue {
	return &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: s}}
}

func number(name string, n int64) *common.KeyValue {
	return &common.KeyValue{Key: name, Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: n}}}
}

// unixNano is a time as OTLP has it.
func unixNano(t time.Time) uint64 { return uint64(max(t.UnixNano(), 0)) }
