package format

import (
	"slices"
	"strings"
	"testing"
)

// testCards are numbers that processors publish for tests; none is a card.
var testCards = []struct {
	number string
	brand  Brand
	source string
}{
	{"4111111111111111", Visa, "Adyen, Braintree, PayPal"},
	{"4242424242424242", Visa, "Stripe"},
	{"4012888888881881", Visa, "PayPal"},
	{"4000056655665556", Visa, "Stripe"},
	{"4917610000000000", Visa, "Adyen"},
	{"4222222222222", Visa, "PayPal, 13 digits"},
	{"4007000000027", Visa, "Authorize.Net, 13 digits"},
	{"4988438843884305", Visa, "Adyen"},
	{"4166676667666746", Visa, "Adyen"},
	{"4646464646464644", Visa, "Adyen"},
	{"4444333322221111", Visa, "Adyen"},
	{"4012000033330026", Visa, "Braintree"},
	{"4012000077777777", Visa, "Braintree"},
	{"4217651111111119", Visa, "Braintree"},
	{"4500600000000061", Visa, "Braintree"},
	{"4005519200000004", Visa, "Braintree"},
	{"4009348888881881", Visa, "Braintree"},
	{"4012000033330620", Visa, "PayPal"},
	{"5555555555554444", Mastercard, "Adyen, PayPal, Stripe"},
	{"5105105105105100", Mastercard, "PayPal, Stripe"},
	{"5200828282828210", Mastercard, "Stripe"},
	{"5123450000000008", Mastercard, "Mastercard Gateway"},
	{"2223003122003222", Mastercard, "Stripe, 2-series"},
	{"2223000048400011", Mastercard, "Braintree, 2-series"},
	{"2222400070000005", Mastercard, "Adyen, 2-series"},
	{"5136333333333335", Mastercard, "Adyen"},
	{"5585558555855583", Mastercard, "Adyen"},
	{"5555444433331111", Mastercard, "Adyen"},
	{"2222410740360010", Mastercard, "Adyen, 2-series"},
	{"2222400010000008", Mastercard, "Adyen, 2-series"},
	{"2222400030000004", Mastercard, "Adyen, 2-series"},
	{"2223520443560010", Mastercard, "Adyen, 2-series"},
	{"5577000055770004", Mastercard, "Adyen"},
	{"5103221911199245", Mastercard, "Adyen"},
	{"5424000000000015", Mastercard, "Authorize.Net"},
	{"2223000010309703", Mastercard, "Authorize.Net, 2-series"},
	{"2223000010309711", Mastercard, "Authorize.Net, 2-series"},
	{"378282246310005", AmericanExpress, "PayPal, Stripe"},
	{"371449635398431", AmericanExpress, "PayPal, Stripe"},
	{"370000000000002", AmericanExpress, "Adyen, Authorize.Net"},
	{"374251018720018", AmericanExpress, "Adyen"},
	{"378734493671000", AmericanExpress, "PayPal"},
	{"6011111111111117", Discover, "PayPal, Stripe"},
	{"6011000990139424", Discover, "PayPal, Stripe"},
	{"6011601160116611", Discover, "Adyen"},
	{"6555900000604105", Discover, "Stripe"},
	{"6011000000000012", Discover, "Authorize.Net"},
	{"6011981111111113", Discover, "Stripe, debit"},
	{"6445644564456445", Discover, "Adyen"},
	{"3056930009020004", DinersClub, "Stripe, 16 digits"},
	{"36227206271667", DinersClub, "Stripe, 14 digits"},
	{"30569309025904", DinersClub, "PayPal"},
	{"38520000023237", DinersClub, "PayPal"},
	{"36006666333344", DinersClub, "Adyen, 14 digits"},
	{"36259600000004", DinersClub, "Braintree, 14 digits"},
	{"38000000000006", DinersClub, "Authorize.Net, 14 digits"},
	{"3530111333300000", JCB, "PayPal, Braintree"},
	{"3566002020360505", JCB, "PayPal, Stripe"},
	{"3569990010095841", JCB, "Adyen"},
	{"3088000000000017", JCB, "Authorize.Net"},
	{"6200000000000005", UnionPay, "Stripe"},
	{"6205500000000000004", UnionPay, "Stripe, 19 digits"},
	{"6221261111117766", UnionPay, "Braintree, in Discover's range"},
	{"6243030000000001", UnionPay, "Braintree"},
	{"8171999900000000021", UnionPay, "UnionPay International, 19 digits"},
	{"8163999900010", UnionPay, "UnionPay International, 13 digits"},
	{"6200000000000047", UnionPay, "Stripe, debit"},
	{"6304000000000000", Maestro, "Braintree"},
	{"6759649826438453", Maestro, "PayPal"},
	{"6771798021000008", Maestro, "Adyen"},
	{"6799990100000000019", Maestro, "19 digits"},
	{"6759411100000008", Maestro, "Worldpay"},
	{"6771798025000004", Maestro, "Adyen"},
	{"676770000005", Maestro, "made up, 12 digits"},
	{"5019717010103742", UnknownBrand, "PayPal, Dankort"},
	{"5066991111111118", UnknownBrand, "Adyen, Elo"},
	{"6062828888666688", UnknownBrand, "Adyen, Hipercard"},
	{"560000000011", UnknownBrand, "made up, 12 digits"},
}

func TestCards(t *testing.T) {
	typ := mustLookup(t, "card-number")
	for _, c := range testCards {
		t.Run(c.number, func(t *testing.T) {
			normalizeCase{raw: c.number, want: c.number}.run(t, typ)
			if got := BrandOf([]byte(c.number)); got != c.brand {
				t.Errorf("brand %s, want %s (%s)", got, c.brand, c.source)
			}
			// Luhn catches any wrong digit.
			for i := range len(c.number) {
				for d := byte('0'); d <= '9'; d++ {
					wrong := []byte(c.number)
					if wrong[i] == d {
						continue
					}
					wrong[i] = d
					wantErr := errCardLuhn
					if len(wrong) == minCardDigits && !maybeMaestro(wrong) {
						wantErr = errCardLength
					}
					normalizeCase{raw: string(wrong), wantErr: wantErr}.run(t, typ)
				}
			}
		})
	}
}

func TestCardNumber(t *testing.T) {
	const visa = "4111111111111111"
	typ := mustLookup(t, "card-number")
	for _, c := range []normalizeCase{
		{"groups of four", "4111 1111 1111 1111", visa, nil},
		{"dashes", "4111-1111-1111-1111", visa, nil},
		{"both", "4111 1111-1111 1111", visa, nil},
		{"groups of any length", "4-11111 111111111-1", visa, nil},
		{"a separator after each digit", strings.Join(strings.Split(visa, ""), " "), visa, nil},
		{"4-6-5 groups", "3782 822463 10005", "378282246310005", nil},
		{"19 digits, each separated", strings.Join(strings.Split("6205500000000000004", ""), "-"), "6205500000000000004", nil},
		{"12 digits of Visa", "411111111117", "", errCardLength},
		{"12 digits from 55", "550000000004", "", errCardLength},
		{"12 digits of Maestro", "6767 7000 0005", "676770000005", nil},
		{"12 digits of Maestro, wrong check digit", "676770000006", "", errCardLuhn},
		{"11 digits", "67677000001", "", errCardLength},
		{"20 digits", "41111111111111111110", "", errCardLength},
		{"20 digits and a letter", "41111111111111111110x", "", errCardLength},
		{"one digit", "0", "", errCardLength},
		{"wrong check digit", "4111 1111 1111 1112", "", errCardLuhn},
		{"two digits swapped", "4242424242424224", "", errCardLuhn},
		{"letter O", "4111 1111 1111 111O", "", errCardCharacter},
		{"letters", "card", "", errCardCharacter},
		{"masked", "************1111", "", errCardCharacter},
		{"full-width digits", "４１１１１１１１１１１１１１１１", "", errCardCharacter},
		{"Arabic-Indic digits", "٤١١١١١١١١١١١١١١١", "", errCardCharacter},
		{"no-break spaces", "4111\u00a01111\u00a01111\u00a01111", "", errCardCharacter},
		{"en dashes", "4111–1111–1111–1111", "", errCardCharacter},
		{"tab", "4111\t111111111111", "", errCardCharacter},
		{"trailing newline", visa + "\n", "", errCardCharacter},
		{"NUL", visa + "\x00", "", errCardCharacter},
		{"broken UTF-8", "4111\xff11111111111", "", errCardCharacter},
		{"plus sign", "+" + visa, "", errCardCharacter},
		{"two numbers", visa + "," + visa, "", errCardCharacter},
		{"leading space", " " + visa, "", errCardSeparator},
		{"trailing space", visa + " ", "", errCardSeparator},
		{"trailing dash", visa + "-", "", errCardSeparator},
		{"two spaces", "4111  111111111111", "", errCardSeparator},
		{"space and dash", "4111 -111111111111", "", errCardSeparator},
		{"one space", " ", "", errCardSeparator},
		{"1 MiB of spaces", strings.Repeat(" ", 1<<20), "", errCardSeparator},
		{"1 MiB of digits", strings.Repeat("4", 1<<20), "", errCardLength},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, typ) })
	}
}

func TestBrandRanges(t *testing.T) {
	before := -1
	for _, r := range brandRanges {
		if r.first <= before || r.last < r.first || r.last > 9999 {
			t.Errorf("%d–%d is out of order", r.first, r.last)
		}
		before = r.last
	}
	for _, c := range []struct {
		prefix string
		want   Brand
	}{
		{"2220", UnknownBrand}, {"2221", Mastercard}, {"2720", Mastercard}, {"2721", UnknownBrand},
		{"3059", DinersClub}, {"3060", UnknownBrand}, {"3087", UnknownBrand}, {"3088", JCB}, {"3094", JCB}, {"3095", DinersClub}, {"3096", JCB}, {"3102", JCB}, {"3103", UnknownBrand},
		{"3111", UnknownBrand}, {"3112", JCB}, {"3120", JCB}, {"3121", UnknownBrand}, {"3158", JCB}, {"3160", UnknownBrand},
		{"3336", UnknownBrand}, {"3337", JCB}, {"3349", JCB}, {"3350", UnknownBrand},
		{"3399", UnknownBrand}, {"3400", AmericanExpress}, {"3500", UnknownBrand},
		{"3527", UnknownBrand}, {"3528", JCB}, {"3589", JCB}, {"3590", UnknownBrand},
		{"3999", DinersClub}, {"4000", Visa}, {"4999", Visa}, {"5000", UnknownBrand},
		{"5099", UnknownBrand}, {"5100", Mastercard}, {"5599", Mastercard}, {"5600", UnknownBrand},
		{"6010", UnknownBrand}, {"6011", Discover}, {"6012", UnknownBrand},
		{"6199", UnknownBrand}, {"6200", UnionPay}, {"6299", UnionPay}, {"6300", UnknownBrand},
		{"6439", UnknownBrand}, {"6440", Discover}, {"6599", Discover}, {"6600", UnknownBrand},
		{"8171", UnionPay}, {"8172", UnknownBrand}, {"0000", UnknownBrand}, {"9999", UnknownBrand},
	} {
		if got := BrandOf([]byte(c.prefix + "000000000")); got != c.want {
			t.Errorf("%s: %s, want %s", c.prefix, got, c.want)
		}
	}
	for _, number := range []string{"", "4", "4111", "41111111111", "4x11111111111111", " 4111111111111111"} {
		if got := BrandOf([]byte(number)); got != UnknownBrand {
			t.Errorf("%q: %s", number, got)
		}
	}
}

func FuzzCardNumber(f *testing.F) {
	for _, c := range testCards {
		f.Add(c.number)
	}
	for _, raw := range []string{"", "4111 1111 1111 1111", "4111-1111-1111-1112", " 4", "４１１１", "000", "\xff"} {
		f.Add(raw)
	}
	brands := []Brand{UnknownBrand, Visa, Mastercard, AmericanExpress, Discover, DinersClub, JCB, UnionPay, Maestro}
	typ := mustLookup(f, "card-number")
	f.Fuzz(func(t *testing.T, raw string) {
		fuzzDigits(t, typ, raw)
		if brand := BrandOf([]byte(raw)); !slices.Contains(brands, brand) {
			t.Fatalf("brand %q", brand)
		}
	})
}
