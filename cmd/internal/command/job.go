package command

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/coatcheck/coatcheck/cmd/internal/rows"
)

// begin opens the files, at the beginning or where an earlier run stopped. done
// says that there is nothing left to do.
func (j *job) begin(src source) (done bool, err error) {
	j.source = src
	next := jobState{Version: stateVersion, Command: j.command, Run: j.run, Settings: j.settings, Input: src.state()}
	if next.Run == "" {
		next.Run = newRun()
	}
	if next.Settings == nil {
		next.Settings = make(map[string]string)
	}
	next.Settings["format"], next.Settings["delimiter"] = string(j.options.Format), string(rune(j.options.Comma))
	next.Settings["no-header"], next.Settings["rejects"] = strconv.FormatBool(j.noHeader), j.rejectsPath
	if j.state, err = j.former(next); err != nil || j.state.Done {
		return j.state.Done, err
	}
	if err := j.openInput(); err != nil {
		return false, errors.Join(err, j.close())
	}
	if j.statePath != "" {
		// What keys begin with is known before the first is used.
		if err := j.state.write(j.statePath); err != nil {
			return false, errors.Join(err, j.close())
		}
	}
	if err := j.openOutputs(); err != nil {
		return false, errors.Join(err, j.close(), j.undo())
	}
	quiet := j.sink != nil && j.sink.file == nil && isTerminal(j.env.Stdout)
	j.bar = newRowsBar(j.env, "rows", src.size(), j.state.Rows, j.state.Position.Offset, quiet)
	j.saved = time.Now()
	return false, nil
}

// former returns the state to begin with: that of an earlier run, or a new one.
func (j *job) former(next jobState) (jobState, error) {
	j.fresh = true
	if j.statePath == "" {
		return next, j.refuseOld()
	}
	old, err := readState(j.statePath)
	switch {
	case err != nil:
		return next, err
	case old == nil:
		return next, j.refuseOld()
	case j.resume:
		if err := old.continues(&next); err != nil {
			return next, fmt.Errorf("%s can't be resumed: %w", j.statePath, err)
		}
		if j.run != "" && j.run != old.Run {
			return next, fmt.Errorf("%s can't be resumed: another --idempotency-prefix was given", j.statePath)
		}
		j.fresh = false
		return *old, nil
	case !old.Done:
		return next, fmt.Errorf("%s is from a run that did not end: --resume goes on with it; to begin anew, remove it and what that run wrote", j.statePath)
	}
	return next, j.refuseOld()
}

// refuseOld refuses to write over what there is.
func (j *job) refuseOld() error {
	for _, path := range []string{j.out, j.rejectsPath} {
		if path == "" || path == "-" {
			continue
		}
		if there, err := exists(path); err != nil || there {
			return errors.Join(err, fmt.Errorf("%s is there already: nothing is written over it", path))
		}
	}
	return nil
}

// openInput opens the input.
func (j *job) openInput() error {
	input, err := j.source.open(0)
	if err != nil {
		return err
	}
	if j.reader, err = rows.NewReader(input, j.options); err != nil {
		return fmt.Errorf("%s: %w", j.source.name(), err)
	}
	if from := j.state.Position; from.Offset > 0 {
		if input, err = j.source.open(from.Offset); err != nil {
			return err
		}
		j.reader.SeekTo(input, from)
	}
	return nil
}

// openOutputs opens the output and the file of rejected rows.
func (j *job) openOutputs() (err error) {
	if j.output && j.out == "-" {
		j.sink = pipeSink(j.env.Stdout)
	} else if j.output {
		if j.sink, err = openSink(j.out, j.state.Output); err != nil {
			return err
		}
	}
	if j.rejectsPath != "" {
		if j.rejects, err = openSink(j.rejectsPath, j.state.Rejects); err != nil {
			return err
		}
	}
	if j.state.Position.Offset > 0 {
		return nil
	}
	if j.sink != nil {
		if _, err := j.sink.Write(j.reader.Header()); err != nil {
			return err
		}
	}
	if j.rejects != nil {
		if _, err := j.rejects.Write(j.reader.RejectsHeader()); err != nil {
			return err
		}
	}
	j.state.Position = j.reader.Position()
	return nil
}

// undo removes what a run has made that did nothing.
func (j *job) undo() error {
	if !j.fresh || j.state.Rows > 0 {
		return nil
	}
	var errs []error
	for _, s := range []*sink{j.sink, j.rejects} {
		if s != nil && s.file != nil {
			errs = append(errs, os.Remove(s.path))
		}
	}
	if j.statePath != "" {
		errs = append(errs, os.Remove(j.statePath))
	}
	return errors.Join(errs...)
}
