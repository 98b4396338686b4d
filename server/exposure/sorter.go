package exposure

import (
	"bufio"
	"container/heap"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// runRows is how many rows a sorter has in memory.
const runRows = 1 << 17

// sorter sorts any number of rows in bounded memory: what doesn't fit lies in a temporary
// file that has no name any more. Rows are added first, and then gone through, as often as
// one likes. It is not safe for concurrent use.
type sorter struct {
	dir  string // of the file; "" is that of the system
	run  []row
	file *os.File
	runs []int64 // where each ends in the file
	size int     // of a run
}

func newSorter(dir string, size int) *sorter { return &sorter{dir: dir, size: size} }

// add adds a row.
func (s *sorter) add(r row) error {
	s.run = append(s.run, r)
	if len(s.run) < s.size {
		return nil
	}
	return s.spill()
}

// spill writes what is in memory to the file.
func (s *sorter) spill() error {
	if s.file == nil {
		file, err := os.CreateTemp(s.dir, "coatcheck-exposure-")
		if err != nil {
			return fmt.Errorf("%w: %w", ErrScratch, err)
		}
		s.file = file
		_ = os.Remove(file.Name()) // where open files can't be removed, close does it
	}
	slices.SortFunc(s.run, compareRows)
	w := bufio.NewWriterSize(s.file, 1<<16)
	for i := range s.run {
		if _, err := w.Write(s.run[i][:]); err != nil {
			return fmt.Errorf("%w: %w", ErrScratch, err)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("%w: %w", ErrScratch, err)
	}
	s.runs = append(s.runs, s.end()+int64(len(s.run)*len(row{})))
	s.run = s.run[:0]
	return nil
}

// end is where the last run ends.
func (s *sorter) end() int64 {
	if len(s.runs) == 0 {
		return 0
	}
	return s.runs[len(s.runs)-1]
}

// each goes through the rows in order.
func (s *sorter) each(do func(*row) error) error {
	slices.SortFunc(s.run, compareRows)
	merged := merge{{next: s.inMemory()}}
	begin := int64(0)
	for _, end := range s.runs {
		merged = append(merged, &source{next: inFile(io.NewSectionReader(s.file, begin, end-begin))})
		begin = end
	}
	for i := len(merged) - 1; i >= 0; i-- {
		if more, err := merged[i].advance(); err != nil {
			return err
		} else if !more {
			merged = slices.Delete(merged, i, i+1)
		}
	}
	heap.Init(&merged)
	for len(merged) > 0 {
		top := merged[0]
		r := top.row
		if more, err := top.advance(); err != nil {
			return err
		} else if more {
			heap.Fix(&merged, 0)
		} else {
			heap.Pop(&merged)
		}
		if err := do(&r); err != nil {
			return err
		}
	}
	return nil
}

// inMemory reads the rows that are in memory.
func (s *sorter) inMemory() func(*row) error {
	i := 0
	return func(r *row) error {
		if i == len(s.run) {
			return io.EOF
		}
		*r = s.run[i]
		i++
		return nil
	}
}

// inFile reads the rows of a run.
func inFile(run io.Reader) func(*row) error {
	buffered := bufio.NewReaderSize(run, 1<<16)
	return func(r *row) error {
		_, err := io.ReadFull(buffered, r[:])
		if err != nil && err != io.EOF {
			return fmt.Errorf("%w: %w", ErrScratch, err)
		}
		return err
	}
}

// close frees the memory and the file.
func (s *sorter) close() {
	s.run = nil
	if s.file != nil {
		_ = s.file.Close()
		_ = os.Remove(s.file.Name())
	}
}

// source is a run that is being merged.
type source struct {
	row  row
	next func(*row) error
}

// advance goes on to the next row, if there is one.
func (s *source) advance() (more bool, err error) {
	err = s.next(&s.row)
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	return err == nil, err
}

// merge is a heap of runs, by their rows.
type merge []*source

func (m merge) Len() int           { return len(m) }
func (m merge) Less(i, j int) bool { return compareRows(m[i].row, m[j].row) < 0 }
func (m merge) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }
func (m *merge) Push(x any)        { *m = append(*m, x.(*source)) }
func (m *merge) Pop() any {
	last := len(*m) - 1
	top := (*m)[last]
	*m = (*m)[:last]
	return top
}
