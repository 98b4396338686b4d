// Package wipe overwrites keys in memory, those inside ciphers and hashes of the
// standard library included, which have no means of being wiped.
package wipe

import (
	"reflect"
	"unsafe"
)

// Regions returns the memory of all numbers in arrays and slices that can be
// reached from v: key schedules, pads and states of hashes. Single numbers,
// such as a count of rounds, are left out.
//
// It looks into types of the standard library that have no means of being
// wiped. Whatever v points to must belong to v alone.
func Regions(v any) [][]byte { return appendRegions(nil, reflect.ValueOf(v)) }

func appendRegions(found [][]byte, v reflect.Value) [][]byte {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return appendRegions(found, v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			found = appendRegions(found, v.Field(i))
		}
	case reflect.Array, reflect.Slice:
		if v.Len() == 0 || !v.Index(0).CanAddr() {
			break
		}
		switch v.Type().Elem().Kind() {
		case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uint:
			size := uintptr(v.Len()) * v.Type().Elem().Size()
			return append(found, unsafe.Slice((*byte)(unsafe.Pointer(v.Index(0).UnsafeAddr())), size))
		}
		for i := range v.Len() {
			found = appendRegions(found, v.Index(i))
		}
	}
	return found
}

// Value overwrites all that Regions finds in the values.
func Value(values ...any) {
	for _, v := range values {
		All(Regions(v))
	}
}

// All overwrites regions with zeros.
func All(regions [][]byte) {
	for _, r := range regions {
		clear(r)
	}
}
