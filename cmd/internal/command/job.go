package command

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/coatcheck/coatcheck/cmd/internal/rows"
)

// begin opens the files, at the beginning or where an earlier run stopped. done
// says that there is nothing left to do.
func (j *job) begin(src source) (done bool, err error) {
	j.source = src
	if j.state, err = openState(j.statePath); err != nil {
		return false, errors.Join(err, src.close())
	}
	if err := j.former(); err != nil {
		if !j.state.found {
			err = errors.Join(err, j.state.remove())
		}
		return false, errors.Join(err, j.close())
	}
	if j.state.Done {
		return true, nil
	}
	if err := j.openInput(); err != nil {
		return false, errors.Join(err, j.undo(), j.close())
	}
	// What keys begin with is known before the first is used.
	if err := j.state.write(); err != nil {
		return false, errors.Join(err, j.undo(), j.close())
	}
	if err := j.openOutputs(); err != nil {
		return false, errors.Join(err, j.undo(), j.close())
	}
	quiet := j.sink != nil && j.sink.file == nil && isTerminal(j.env.Stdout)
	j.bar = newRowsBar(j.env, "rows", src.size(), j.state.Rows, j.state.Position.Offset, quiet)
	j.saved = time.Now()
	return false, nil
}

// former has the state be that of the run that is gone on with, or a new one.
func (j *job) former() error {
	next := jobState{Version: stateVersion, Command: j.command, Run: j.run, Settings: j.settings, Input: j.source.state()}
	if next.Run == "" {
		next.Run = newRun()
	}
	if next.Settings == nil {
		next.Settings = make(map[string]string)
	}
	next.Settings["format"], next.Settings["delimiter"] = string(j.options.Format), string(rune(j.options.Comma))
	next.Settings["no-header"], next.Settings["from-rejects"] = strconv.FormatBool(j.noHeader), strconv.FormatBool(j.fromRejects)
	next.Settings["address"] = j.server.Address
	for name, path := range map[string]string{"in": j.in, "out": j.out, "rejects": j.rejectsPath} {
		if path != "" && path != "-" {
			full, err := filepath.Abs(path)
			if err != nil {
				return err
			}
			path = full
		}
		next.Settings[name] = path
	}
	switch old := j.state; {
	case old.found && j.resume:
		if err := old.continues(&next); err != nil {
			return fmt.Errorf("%s can't be resumed: %w", old.path, err)
		}
		if j.run != "" && j.run != old.Run {
			return fmt.Errorf("%s can't be resumed: another --idempotency-prefix was given", old.path)
		}
		if old.Done {
			return j.checkDone()
		}
		return nil
	case old.found && !old.Done:
		return fmt.Errorf("%s is from a run that did not end: --resume goes on with it; to begin anew, remove it and what that run wrote", old.path)
	}
	j.fresh, j.state.jobState = true, next
	return j.refuseOld()
}

// checkDone says why what a run that is done has written isn't there any more.
func (j *job) checkDone() error {
	for _, f := range []struct {
		path string
		size int64
	}{{j.out, j.state.Output}, {j.rejectsPath, j.state.Rejects}} {
		if f.path == "" || f.path == j.rejectsPath && j.state.Rejected == 0 {
			continue
		}
		info, err := os.Stat(f.path)
		if err == nil && info.Size() == f.size {
			continue
		}
		return fmt.Errorf("%s says that the run is done, but %s is not there as that run wrote it, with %s; remove the state to begin anew",
			j.state.path, f.path, counted(f.size, "byte"))
	}
	return nil
}

// refuseOld refuses to write over what there is.
func (j *job) refuseOld() error {
	for _, path := range []string{j.out, j.rejectsPath} {
		if path == "" || path == "-" {
			continue
		}
		if there, err := exists(path); err != nil || there {
			return errors.Join(err, errThere(path))
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
		if j.sink, err = openSink(j.out, j.fresh, j.state.Output); err != nil {
			return err
		}
	}
	if j.rejectsPath != "" {
		if j.rejects, err = openSink(j.rejectsPath, j.fresh, j.state.Rejects); err != nil {
			return err
		}
	}
	if j.state.Position.Offset > 0 {
		return nil
	}
	if j.sink != nil && j.state.Output == 0 {
		if _, err := j.sink.Write(j.reader.Header()); err != nil {
			return err
		}
	}
	if j.rejects != nil && j.state.Rejects == 0 {
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
	return errors.Join(append(errs, j.state.remove())...)
}
