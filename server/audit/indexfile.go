package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// Files of the index are named by their first event, as segments are, and are blocks one
// behind the other:
//
//	first(8) count(4) buckets(4) earliest(30) latest(30) hash(32) checksum(4) bucket(64)…
//
// of the number of the first event, how many there are, how many buckets follow, the
// times between which they are, as events have them, and the hash of the last. Integers
// are big endian; the checksum is CRC-32C over the name of the form, the id of the log and
// the fields before it.
const (
	indexSuffix     = ".idx"
	indexForm       = "coatcheck audit index v1\n"
	indexFileBlocks = 256 // blocks in a file
	blockHeaderSize = 8 + 4 + 4 + 2*len(timeForm) + 32 + 4
	maxBuckets      = 1 << 22 // in a block, that is believed
)

// indexBlock is what the index knows of events that follow each other.
type indexBlock struct {
	first            uint64
	count, buckets   uint32
	earliest, latest string         // as events have their times
	head             tokenizer.Hash // of the last event
	file             *os.File
	offset           int64 // of its buckets
}

// last returns the number of its last event.
func (b *indexBlock) last() uint64 { return b.first + uint64(b.count) - 1 }

// end returns where it ends in its file.
func (b *indexBlock) end() int64 { return b.offset + int64(b.buckets)*bucketSize }

// appendHeader appends what stands before the buckets.
func (b *indexBlock) appendHeader(dst []byte, log tokenizer.LogID) []byte {
	from := len(dst)
	dst = binary.BigEndian.AppendUint64(dst, b.first)
	dst = binary.BigEndian.AppendUint32(dst, b.count)
	dst = binary.BigEndian.AppendUint32(dst, b.buckets)
	dst = append(append(append(dst, b.earliest...), b.latest...), b.head[:]...)
	return binary.BigEndian.AppendUint32(dst, headerSum(log, dst[from:]))
}

func headerSum(log tokenizer.LogID, fields []byte) uint32 {
	return crc32.Update(crc32.Checksum(append([]byte(indexForm), log[:]...), castagnoli), castagnoli, fields)
}

// parseHeader reads what appendHeader makes. It is ok only if the header is whole.
func parseHeader(h []byte, log tokenizer.LogID) (b indexBlock, ok bool) {
	fields, sum := h[:blockHeaderSize-4], h[blockHeaderSize-4:]
	if binary.BigEndian.Uint32(sum) != headerSum(log, fields) {
		return b, false
	}
	b.first = binary.BigEndian.Uint64(fields)
	b.count, b.buckets = binary.BigEndian.Uint32(fields[8:]), binary.BigEndian.Uint32(fields[12:])
	times := string(fields[16 : 16+2*len(timeForm)])
	b.earliest, b.latest = times[:len(timeForm)], times[len(timeForm):]
	copy(b.head[:], fields[16+2*len(timeForm):])
	return b, b.first > 0 && b.count > 0 && b.buckets > 0 && b.buckets <= maxBuckets
}

// indexFile is an open file of the index.
type indexFile struct {
	*os.File
	path   string
	blocks int
	size   int64
}

// readBlocks returns the blocks of a file that follow from the event before, and how many
// bytes they are; what is behind them is not of the index.
func readBlocks(f *os.File, size int64, log tokenizer.LogID, last uint64) (blocks []indexBlock, end int64, err error) {
	var h [blockHeaderSize]byte
	for len(blocks) < indexFileBlocks {
		if _, err := f.ReadAt(h[:], end); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, 0, err
		}
		b, ok := parseHeader(h[:], log)
		b.file, b.offset = f, end+int64(len(h))
		if !ok || b.first != last+1 || b.end() > size {
			break
		}
		blocks, last, end = append(blocks, b), b.last(), b.end()
	}
	return blocks, end, nil
}

// indexFileName returns the name of the file whose first event has the number.
func indexFileName(first uint64) string {
	return strings.TrimSuffix(segmentName(first), segmentSuffix) + indexSuffix
}

// listIndexFiles returns the names of the files of the index in a directory, in the order
// of the log.
func listIndexFiles(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		digits := strings.TrimSuffix(strings.TrimPrefix(entry.Name(), segmentPrefix), indexSuffix)
		first, err := strconv.ParseUint(digits, 10, 64)
		if err == nil && entry.Name() == indexFileName(first) {
			names = append(names, entry.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// openIndexFiles opens the files of the index, and returns their blocks as far as they
// follow from each other. The first place at which they don't is where the index ends:
// what is behind it is taken away.
func openIndexFiles(dir string, log tokenizer.LogID) (files []*indexFile, blocks []indexBlock, err error) {
	names, err := listIndexFiles(dir)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			closeIndexFiles(files)
		}
	}()
	last := uint64(0)
	for i, name := range names {
		path := filepath.Join(dir, name)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return files, nil, err
		}
		files = append(files, &indexFile{File: f, path: path})
		info, err := f.Stat()
		if err != nil {
			return files, nil, err
		}
		found, end, err := readBlocks(f, info.Size(), log, last)
		if err != nil {
			return files, nil, err
		}
		if name != indexFileName(last+1) || len(found) == 0 {
			_ = f.Close()
			return files[:i], blocks, removeFiles(dir, names[i:])
		}
		blocks = append(blocks, found...)
		last = blocks[len(blocks)-1].last()
		files[i].blocks, files[i].size = len(found), end
		if end < info.Size() {
			return files, blocks, errors.Join(f.Truncate(end), removeFiles(dir, names[i+1:]))
		}
	}
	return files, blocks, nil
}

func removeFiles(dir string, names []string) (err error) {
	for _, name := range names {
		err = errors.Join(err, os.Remove(filepath.Join(dir, name)))
	}
	return err
}

func closeIndexFiles(files []*indexFile) {
	for _, f := range files {
		_ = f.Close()
	}
}

// createIndexFile makes the file whose first event has the number.
func createIndexFile(dir string, first uint64) (*indexFile, error) {
	path := filepath.Join(dir, indexFileName(first))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &indexFile{File: f, path: path}, nil
}

// add appends a block, whose place it sets.
func (f *indexFile) add(b *indexBlock, buckets []byte, log tokenizer.LogID) error {
	head := b.appendHeader(make([]byte, 0, blockHeaderSize+len(buckets)), log)
	if _, err := f.WriteAt(append(head, buckets...), f.size); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	b.file, b.offset = f.File, f.size+int64(len(head))
	f.size, f.blocks = b.end(), f.blocks+1
	return nil
}
