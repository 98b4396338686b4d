package format

// Brand is the scheme whose sign is on a card. Brands are a closed set, fit to
// label a metric.
type Brand string

// Brands.
const (
	UnknownBrand    Brand = "unknown"
	Visa            Brand = "visa"
	Mastercard      Brand = "mastercard"
	AmericanExpress Brand = "american-express"
	Discover        Brand = "discover"
	DinersClub      Brand = "diners-club"
	JCB             Brand = "jcb"
	UnionPay        Brand = "unionpay"
	Maestro         Brand = "maestro"
)

// brandRanges says which brand the first four digits of a card number belong
// to. It is in ascending order and no two ranges meet.
//
// ISO/IEC 7812-1 gives issuer identification numbers to issuers and has no
// notion of a brand; the register is not public. These are the ranges that the
// schemes tell merchants and acquirers of: Mastercard 51–55 and, since 2017,
// 2221–2720; Discover 6011, 644–649 and 65; Diners Club 300–305, 3095, 36, 38
// and 39; JCB 3528–3589 and, in the United States on Discover's network, 3088–3094,
// 3096–3102, 3112–3120, 3158–3159 and 3337–3349; UnionPay 62 and 8100–8171.
// Numbers from 622126 to 622925 are UnionPay's, which Discover's network carries
// in the United States. Numbers may have an issuer of eight digits; four are
// enough to tell these brands apart.
//
// Maestro has none to itself but 67 and a few more; what it shares with Elo,
// RuPay, Verve and others (50, 56–58, 63) is left unknown, since no brand is
// better than a wrong one. So are brands of one country.
var brandRanges = [...]struct {
	first, last int
	brand       Brand
}{
	{2221, 2720, Mastercard},
	{3000, 3059, DinersClub},
	{3088, 3094, JCB},
	{3095, 3095, DinersClub},
	{3096, 3102, JCB},
	{3112, 3120, JCB},
	{3158, 3159, JCB},
	{3337, 3349, JCB},
	{3400, 3499, AmericanExpress},
	{3528, 3589, JCB},
	{3600, 3699, DinersClub},
	{3700, 3799, AmericanExpress},
	{3800, 3999, DinersClub},
	{4000, 4999, Visa},
	{5018, 5018, Maestro},
	{5020, 5020, Maestro},
	{5038, 5038, Maestro},
	{5100, 5599, Mastercard},
	{5893, 5893, Maestro},
	{6011, 6011, Discover},
	{6200, 6299, UnionPay},
	{6304, 6304, Maestro},
	{6440, 6599, Discover},
	{6700, 6799, Maestro},
	{8100, 8171, UnionPay},
}

// BrandOf returns the brand of a card number in its normal form, judged by its
// first four digits alone. It says what a number claims to be: whether the
// brand has cards of this length, or the issuer this card, is not looked at.
func BrandOf(number []byte) Brand {
	if len(number) < minCardDigits {
		return UnknownBrand
	}
	prefix := 0
	for _, c := range number[:4] {
		if c < '0' || c > '9' {
			return UnknownBrand
		}
		prefix = prefix*10 + int(c-'0')
	}
	for _, r := range brandRanges {
		if r.first <= prefix && prefix <= r.last {
			return r.brand
		}
	}
	return UnknownBrand
}
