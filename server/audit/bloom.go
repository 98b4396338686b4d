package audit

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"math/bits"
)

// The terms of a block of the index are in a Bloom filter, which is made of buckets: a
// term sets bits of one of them, so one read finds out about it. A bucket is
//
//	bits(60) checksum(4)
//
// where the checksum is CRC-32C over the number of the block's first event (8 bytes, big
// endian), the number of the bucket (4) and the bits: a bucket that was changed, or that
// stands in the wrong place, is not believed.
const (
	bucketSize = 64
	bucketBits = 8 * (bucketSize - 4)
	termBits   = 16 // of all buckets, for each term
	termProbes = 8  // bits that a term sets
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// bucketsFor returns how many buckets terms take.
func bucketsFor(terms int) uint32 { return max(uint32((termBits*terms+bucketBits-1)/bucketBits), 1) }

// bucketOf returns in which of the buckets a term is.
func bucketOf(t term, buckets uint32) uint32 {
	high, _ := bits.Mul64(uint64(t), uint64(buckets))
	return uint32(high)
}

// eachBit goes through the bits of a term in its bucket, until do returns false.
func eachBit(t term, do func(at, mask byte) bool) bool {
	h := mix64(uint64(t))
	a, b := uint32(h), uint32(h>>32)|1
	for i := range uint32(termProbes) {
		bit := (a + i*b) % bucketBits
		if !do(byte(bit/8), 1<<(bit%8)) {
			return false
		}
	}
	return true
}

// makeBuckets returns the buckets of the block that begins with the event.
func makeBuckets(first uint64, terms map[term]struct{}) []byte {
	buckets := bucketsFor(len(terms))
	b := make([]byte, int(buckets)*bucketSize)
	for t := range terms {
		bucket := b[int(bucketOf(t, buckets))*bucketSize:]
		eachBit(t, func(at, mask byte) bool {
			bucket[at] |= mask
			return true
		})
	}
	for i := range buckets {
		bucket := b[int(i)*bucketSize : int(i+1)*bucketSize]
		binary.BigEndian.PutUint32(bucket[bucketSize-4:], bucketSum(first, i, bucket))
	}
	return b
}

// bucketSum returns the checksum that a bucket should have.
func bucketSum(first uint64, number uint32, bucket []byte) uint32 {
	var place [12]byte
	binary.BigEndian.PutUint64(place[:8], first)
	binary.BigEndian.PutUint32(place[8:], number)
	return crc32.Update(crc32.Checksum(place[:], castagnoli), castagnoli, bucket[:bucketSize-4])
}

// mayHold says whether a block may have one of the terms. It is known only if the buckets
// could be read and have their checksums.
func (b *indexBlock) mayHold(r io.ReaderAt, terms []term) (may, known bool) {
	for _, t := range terms {
		var bucket [bucketSize]byte
		number := bucketOf(t, b.buckets)
		if _, err := r.ReadAt(bucket[:], b.offset+int64(number)*bucketSize); err != nil ||
			binary.BigEndian.Uint32(bucket[bucketSize-4:]) != bucketSum(b.first, number, bucket[:]) {
			return true, false
		}
		if eachBit(t, func(at, mask byte) bool { return bucket[at]&mask != 0 }) {
			may = true
		}
	}
	return may, true
}
