package audit

// What packs and unpacks frames is made when it is first used, and has channels. Were that
// in a bubble of synctest, no test outside could use it.
func init() {
	packed := frameEncoder().EncodeAll([]byte("x"), nil)
	if _, err := frameDecoder().DecodeAll(packed, nil); err != nil {
		panic(err)
	}
}
