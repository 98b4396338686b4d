package format

import (
	"slices"
	"strings"
	"testing"
)

func TestPhone(t *testing.T) {
	const us = "+12025550123"
	for region, cases := range map[string][]normalizeCase{
		"": {
			{"E.164", us, us, nil},
			{"spaces", "+1 202 555 0123", us, nil},
			{"parentheses", "+1 (202) 555-0123", us, nil},
			{"dots", "+1.202.555.0123", us, nil},
			{"slash", "+49 30/123456", "+4930123456", nil},
			{"trunk prefix", "+44 (0)20 7946 0958", "+442079460958", nil},
			{"zero of Italy", "+39 06 698 12345", "+390669812345", nil},
			{"shortest", "+683 4002", "+6834002", nil},
			{"15 digits", "+49 1234567890123", "+491234567890123", nil},
			{"free phone", "+800 1234 5678", "+80012345678", nil},
			{"no plus sign", "12025550123", "", errPhonePlus},
			{"prefix to dial abroad", "0012025550123", "", errPhonePlus},
			{"plus sign alone", "+", "", errPhoneLength},
			{"code of nothing", "+999 12345678", "", errPhoneCode},
			{"zero", "+0123456789", "", errPhoneCode},
			{"code cut short", "+35", "", errPhoneCode},
			{"code alone", "+44", "", errPhoneLength},
			{"a digit short", "+1 202 555 012", "", errPhoneLength},
			{"a digit more", "+1 202 555 01234", "", errPhoneLength},
			{"16 digits", "+49 12345678901234", "", errPhoneLength},
			{"two trunk prefixes", "+44 0020 7946 0958", "", errPhoneLength},
			{"zero behind the trunk prefix", "+44 00 7946 0958", "", errPhoneNumber},
			{"area code from 1", "+1 102 555 0123", "", errPhoneNumber},
			{"office code from 0", "+1 202 055 0123", "", errPhoneNumber},
			{"41 bytes", "+1" + strings.Repeat(" ", 30) + "2025550123", "", errPhoneLength},
			{"extension", "+1 202 555 0123 x4", "", errPhoneCharacter},
			{"letters", "+1 800 FLOWERS", "", errPhoneCharacter},
			{"leading space", " " + us, "", errPhoneCharacter},
			{"space behind the plus sign", "+ 12025550123", "", errPhoneCharacter},
			{"two plus signs", "+" + us, "", errPhoneCharacter},
			{"trailing newline", us + "\n", "", errPhoneCharacter},
			{"trailing dash", us + "-", "", errPhoneCharacter},
			{"scheme", "tel:" + us, "", errPhoneCharacter},
			{"full-width", "＋１２０２", "", errPhoneCharacter},
			{"no-break space", "+1\u00a0202 555 0123", "", errPhoneCharacter},
		},
		"US": {
			{"national", "(202) 555-0123", us, nil},
			{"with trunk prefix", "1-202-555-0123", us, nil},
			{"international", "+44 20 7946 0958", "+442079460958", nil},
			{"local", "555-0123", "", errPhoneLength},
			{"from 1 to 10 digits", "1 202 555 012", "", errPhoneNumber},
		},
		"CA": {{"national", "613 555 0123", "+16135550123", nil}},
		"GB": {
			{"national", "020 7946 0958", "+442079460958", nil},
			{"without trunk prefix", "20 7946 0958", "+442079460958", nil},
			{"prefix to dial abroad", "00 1 202 555 0123", "", errPhonePlus},
			{"0", "0", "", errPhoneLength},
		},
		"IT": {
			{"national", "06 698 12345", "+390669812345", nil},
			{"prefix to dial abroad", "0047 22 12 34 56", "", errPhonePlus},
		},
		"HU": {{"national", "06 1 234 5678", "+3612345678", nil}},
		"RU": {
			{"national", "8 (495) 123-45-67", "+74951234567", nil},
			{"without trunk prefix", "800 123-45-67", "+78001234567", nil},
		},
		"BY": {{"national", "8 029 123 45 67", "+375291234567", nil}},
		"ES": {{"national", "912 345 678", "+34912345678", nil}},
	} {
		typ := mustType(t, "phone", TypeOptions{Region: region})
		for _, c := range cases {
			t.Run(region+" "+c.name, func(t *testing.T) { c.run(t, typ) })
		}
	}
}

func TestCallingAreas(t *testing.T) {
	var codes, regions []string
	for _, a := range callingAreas {
		codes = append(codes, a.code)
		if a.least < 4 || a.most < a.least || len(a.code)+a.most > maxPhoneDigits || !allDigits([]byte(a.code+a.trunk)) {
			t.Errorf("%+v", a)
		}
		for region := range strings.FieldsSeq(a.regions) {
			regions = append(regions, region)
			if got := areaOfRegion(region); got == nil || got.code != a.code {
				t.Errorf("region %s is in %+v", region, got)
			}
		}
	}
	if !slices.IsSorted(codes) {
		t.Error("codes are not in order")
	}
	for i := range codes[1:] {
		if strings.HasPrefix(codes[i+1], codes[i]) {
			t.Errorf("%s begins with %s", codes[i+1], codes[i])
		}
	}
	slices.Sort(regions)
	if n := len(slices.Compact(slices.Clone(regions))); n != len(regions) || n < 240 {
		t.Errorf("%d regions, of which %d differ", len(regions), n)
	}
	for _, region := range []string{"", "U", "us", "USA", "S ", "ZZ", " U"} {
		if areaOfRegion(region) != nil {
			t.Errorf("there is a region %q", region)
		}
	}
}
