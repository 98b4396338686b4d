package ff1

import (
	"bytes"
	"crypto/cipher"
	"crypto/des"
	"errors"
	"strings"
	"testing"
)

func TestNewErrors(t *testing.T) {
	des, err := des.NewCipher(make([]byte, 8))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		block   cipher.Block
		radix   int
		wantErr error
	}{
		{"smallest radix", newBlock(t), 2, nil},
		{"largest radix", newBlock(t), MaxRadix, nil},
		{"no block cipher", nil, 10, ErrBlock},
		{"DES", des, 10, ErrBlock},
		{"negative radix", newBlock(t), -10, ErrRadix},
		{"radix 0", newBlock(t), 0, ErrRadix},
		{"radix 1", newBlock(t), 1, ErrRadix},
		{"radix too large", newBlock(t), MaxRadix + 1, ErrRadix},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := New(c.block, c.radix); !errors.Is(err, c.wantErr) {
				t.Errorf("%v, want %v", err, c.wantErr)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name    string
		radix   int
		dst     int
		src     []uint16
		tweak   int
		wantErr error
	}{
		{"empty", 10, 0, nil, 0, ErrLength},
		{"one numeral", 65536, 1, []uint16{7}, 0, ErrLength},
		{"99 strings or fewer: radix 9", 9, 2, make([]uint16, 2), 0, ErrLength},
		{"100 strings", 10, 2, make([]uint16, 2), 0, nil},
		{"64 strings", 2, 6, make([]uint16, 6), 0, ErrLength},
		{"128 strings", 2, 7, make([]uint16, 7), 0, nil},
		{"largest radix", 65536, 2, []uint16{65535, 65535}, 0, nil},
		{"longest", 10, MaxLen, make([]uint16, MaxLen), 0, nil},
		{"too long", 10, MaxLen + 1, make([]uint16, MaxLen+1), 0, ErrLength},
		{"destination too short", 10, 7, make([]uint16, 8), 0, ErrLength},
		{"destination too long", 10, 9, make([]uint16, 8), 0, ErrLength},
		{"longest tweak", 10, 8, make([]uint16, 8), MaxTweak, nil},
		{"tweak too long", 10, 8, make([]uint16, 8), MaxTweak + 1, ErrTweak},
		{"first numeral too large", 10, 8, []uint16{10, 0, 0, 0, 0, 0, 0, 0}, 0, ErrNumeral},
		{"last numeral too large", 10, 8, []uint16{0, 0, 0, 0, 0, 0, 0, 10}, 0, ErrNumeral},
		{"largest uint16", 65535, 3, []uint16{0, 65535, 0}, 0, ErrNumeral},
	} {
		t.Run(c.name, func(t *testing.T) {
			ff1, dst, tweak := newCipher(t, c.radix), make([]uint16, c.dst), make([]byte, c.tweak)
			if err := ff1.Encrypt(dst, c.src, tweak); !errors.Is(err, c.wantErr) {
				t.Errorf("encrypt: %v, want %v", err, c.wantErr)
			}
			if err := ff1.Decrypt(dst, c.src, tweak); !errors.Is(err, c.wantErr) {
				t.Errorf("decrypt: %v, want %v", err, c.wantErr)
			}
		})
	}
}

func TestDigitErrors(t *testing.T) {
	for _, c := range []struct {
		name    string
		radix   int
		src     string
		wantErr error
	}{
		{"before 0", 10, "7777777/", ErrNumeral},
		{"after 9", 10, ":7777777", ErrNumeral},
		{"numbers for digits", 10, "7777\x007777", ErrNumeral},
		{"largest byte", 10, "7777\xff7777", ErrNumeral},
		{"among 100 digits", 10, strings.Repeat("7", 99) + " ", ErrNumeral},
		{"full-width", 10, "７７７", ErrNumeral},
		{"empty", 10, "", ErrLength},
		{"one digit", 10, "7", ErrLength},
		{"radix 9", 9, "77777777", ErrRadix},
		{"radix 16", 16, "77777777", ErrRadix},
	} {
		t.Run(c.name, func(t *testing.T) {
			ff1 := newCipher(t, c.radix)
			dst := bytes.Repeat([]byte{'x'}, len(c.src))
			for name, crypt := range map[string]func(dst, src, tweak []byte) error{
				"encrypt": ff1.EncryptDigits, "decrypt": ff1.DecryptDigits,
			} {
				err := crypt(dst, []byte(c.src), nil)
				if !errors.Is(err, c.wantErr) {
					t.Errorf("%s: %v, want %v", name, err, c.wantErr)
				}
				if err != nil && strings.Contains(err.Error(), "77") {
					t.Errorf("%s: the error holds digits: %v", name, err)
				}
				if strings.Trim(string(dst), "x") != "" {
					t.Errorf("%s: an error changed dst", name)
				}
			}
		})
	}
}
