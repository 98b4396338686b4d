package config

import (
	"time"

	"github.com/coatcheck/coatcheck/server/audit"
)

// Audit says where the readable audit log goes, how long it stays there, when it is
// signed, and where else it is sent.
type Audit struct {
	Directory   string        `yaml:"directory"`    // made if it doesn't exist
	SegmentSize int64         `yaml:"segment_size"` // bytes
	SegmentAge  time.Duration `yaml:"segment_age"`
	Compress    *bool         `yaml:"compress"`
	Retention   time.Duration `yaml:"retention"`

	CheckpointEvents int           `yaml:"checkpoint_events"` // new events after which it is signed
	CheckpointPeriod time.Duration `yaml:"checkpoint_period"` // after which it is, if there are any

	// RetentionBelowAYear has to be set for a retention of less than a year, so that
	// nobody falls below what PCI DSS 10.5.1 asks for by a slip of the pen.
	RetentionBelowAYear bool `yaml:"retention_below_a_year"`

	Syslog *AuditSyslog `yaml:"syslog"`
	OTLP   *AuditOTLP   `yaml:"otlp"`
}

const year = 365 * 24 * time.Hour

func (a Audit) check(fault func(string, ...string), require func(string, ...string)) {
	require(a.Directory, "audit", "directory")
	if a.SegmentSize != 0 && (a.SegmentSize < 1<<20 || a.SegmentSize > 1<<34) {
		fault("segment_size must be from 1048576 to 17179869184", "audit", "segment_size")
	}
	if a.SegmentAge != 0 && (a.SegmentAge < time.Minute || a.SegmentAge > year) {
		fault("segment_age must be from 1m to 8760h", "audit", "segment_age")
	}
	if n := a.CheckpointEvents; n < 0 || n > 1e9 {
		fault("checkpoint_events must be from 1 to 1000000000", "audit", "checkpoint_events")
	}
	if d := a.CheckpointPeriod; d != 0 && (d < time.Second || d > 24*time.Hour) {
		fault("checkpoint_period must be from 1s to 24h", "audit", "checkpoint_period")
	}
	switch {
	case a.Retention != 0 && (a.Retention < time.Hour || a.Retention > 100*year):
		fault("retention must be from 1h to 876000h", "audit", "retention")
	case a.Retention != 0 && a.Retention < year && !a.RetentionBelowAYear:
		fault("retention is less than a year, 8760h: set retention_below_a_year to true if it has to be", "audit", "retention")
	}
	a.checkSinks(fault, require)
}

// Options returns the options for package audit.
func (a Audit) Options() audit.SegmentOptions {
	return audit.SegmentOptions{
		Size: a.SegmentSize, Age: a.SegmentAge, Plain: a.Compress != nil && !*a.Compress, Retention: a.Retention,
	}
}

// Checkpoints returns when the log is signed.
func (a Audit) Checkpoints() audit.CheckpointOptions {
	return audit.CheckpointOptions{Events: uint64(a.CheckpointEvents), Period: a.CheckpointPeriod}
}
