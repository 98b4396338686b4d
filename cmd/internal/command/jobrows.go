package command

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/coatcheck/coatcheck/cmd/internal/client"
	"github.com/coatcheck/coatcheck/cmd/internal/rows"
)

// write puts a row that is done into the output, and remembers its place.
func (j *job) write(row *rows.Row, texts []string) error {
	if j.sink != nil {
		if _, err := j.sink.Write(row.With(texts)); err != nil {
			return err
		}
		for _, f := range row.Fields[:len(texts)] {
			if !f.Empty() {
				j.state.Values++
			}
		}
	}
	return j.passed(row)
}

// tolds is how many rejected rows are told of on standard error, where there is
// no file for them.
const tolds = 10

// errTooMany says that --max-rejects is passed.
var errTooMany = errors.New("more rows were rejected than --max-rejects allows")

// reject puts a row that is rejected where those go.
func (j *job) reject(row *rows.Row, why rows.Refusal) error {
	j.state.Rejected++
	if j.rejects != nil {
		if _, err := j.rejects.Write(row.Rejected(why)); err != nil {
			return err
		}
	} else if j.told++; j.told <= tolds {
		j.bar.above()
		fmt.Fprintf(j.env.Stderr, "coatcheck: line %d is rejected: %s\n", row.Line, printable(refusalText(why)))
	}
	if err := j.passed(row); err != nil {
		return err
	}
	if j.maxRejects >= 0 && j.state.Rejected > j.maxRejects {
		return errTooMany
	}
	return nil
}

// refusalText is a refusal as people read it.
func refusalText(why rows.Refusal) string {
	text := (&client.Error{Reason: why.Reason, Message: why.Message}).Error()
	if why.Code != "" {
		text = why.Code + " " + why.Reason + ": " + why.Message
	}
	if why.Field != "" {
		text = why.Field + ": " + text
	}
	return text
}

// saveEvery is how often it is made durable how far a job is.
const saveEvery = 2 * time.Second

// passed remembers that a row is done.
func (j *job) passed(row *rows.Row) error {
	j.state.Rows++
	j.state.Position = row.After
	now := time.Now()
	j.bar.at(j.state.Rows, j.state.Position.Offset, now, false)
	if now.Sub(j.saved) < saveEvery {
		return nil
	}
	return j.save()
}

// idle says that no row is on its way: who reads from a pipe need not wait.
func (j *job) idle() error {
	if j.sink != nil && j.sink.file == nil {
		return j.sink.Flush()
	}
	return nil
}

// save makes durable what is written, and then how far the job is.
func (j *job) save() error {
	for _, s := range []struct {
		sink *sink
		size *int64
	}{{j.sink, &j.state.Output}, {j.rejects, &j.state.Rejects}} {
		if s.sink == nil {
			continue
		}
		if err := s.sink.sync(); err != nil {
			return err
		}
		*s.size = s.sink.size
	}
	j.saved = time.Now()
	return j.state.write()
}

// close closes the files.
func (j *job) close() error {
	return errors.Join(j.sink.close(), j.rejects.close(), j.source.close(), j.state.close())
}

// end ends the job, which has failed if err is not nil, and tells of it.
func (j *job) end(err error) error {
	j.state.Done = err == nil
	saved := j.save()
	j.state.Done = j.state.Done && saved == nil
	j.bar.at(j.state.Rows, j.state.Position.Offset, time.Now(), true)
	j.bar.end()
	err = j.summary(errors.Join(err, saved))
	var undone error
	if !j.state.Done {
		undone = j.undo()
	} else if j.rejects != nil && j.state.Rejected == 0 {
		undone = os.Remove(j.rejects.path) // there is nothing in it
	}
	return errors.Join(err, undone, j.close())
}

// summary tells what became of the rows. Rows that were rejected are an error.
func (j *job) summary(err error) error {
	if j.json {
		if err := printJSON(j.env.Stdout, jsonSummary{j.state.Rows, j.state.Values, j.state.Rejected, j.state.Done}); err != nil {
			return err
		}
	}
	text := counted(j.state.Rows, "row")
	if j.output {
		text += ", " + counted(j.state.Values, "value") + " replaced"
	}
	if j.state.Rejected > 0 {
		text += ", " + counted(j.state.Rejected, "row") + " rejected and " + j.where()
	}
	if err != nil {
		switch {
		case j.state.Rows == 0:
			return err
		case j.state.path != "":
			return fmt.Errorf("%w\ncoatcheck: stopped after %s; --resume goes on", err, text)
		}
		return fmt.Errorf("%w\ncoatcheck: stopped after %s", err, text)
	}
	if j.state.Rejected > 0 {
		return errors.New(text)
	}
	fmt.Fprintf(j.env.Stderr, "coatcheck: %s\n", text)
	return nil
}

// counted is a number of things: "1 row", "2,000 rows".
func counted[N int | int64 | uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return grouped(uint64(n)) + " " + thing + "s"
}

// where says where rejected rows are.
func (j *job) where() string {
	if j.rejectsPath != "" {
		return "kept in " + j.rejectsPath
	}
	return "left out; --rejects FILE keeps them"
}

// jsonSummary is what --json prints.
type jsonSummary struct {
	Rows     int64 `json:"rows"`
	Values   int64 `json:"values"`
	Rejected int64 `json:"rejected"`
	Done     bool  `json:"done"`
}
