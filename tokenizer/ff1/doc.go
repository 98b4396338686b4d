// Package ff1 is format-preserving encryption by the method FF1 of NIST SP
// 800-38G: it turns a string of numerals into another string of as many
// numerals of the same radix, so that sixteen digits become sixteen digits.
//
// # Use
//
// A Cipher takes a block cipher, which has to be AES, and a radix:
//
//	block, err := aes.NewCipher(key) // 32 bytes from a key store
//	c, err := ff1.New(block, 10)
//	token := make([]byte, 16)
//	err = c.EncryptDigits(token, []byte("4111111111111111"), tweak)
//	err = c.DecryptDigits(token, token, tweak) // in place
//
// EncryptDigits and DecryptDigits work on ASCII digits; Encrypt and Decrypt on
// numerals of any radix from 2 to 65536, each a number from 0 to radix-1, the
// most significant first. What numeral a letter stands for is for the caller to
// say. The standard's order of bytes and numerals is kept throughout, and the
// results are those of every other correct FF1.
//
// The tweak need not be secret. It separates uses of one key: under another
// tweak the same string has an unrelated ciphertext. Put into it what is known
// at both ends, like the name of a column; the more it varies, the less can be
// learned from one plaintext about another. Decrypting takes the same key,
// radix and tweak. A wrong one is not noticed: it yields a wrong plaintext.
//
// # Limits
//
//	radix   2 to 65536
//	length  2 to MaxLen numerals, and so many that radix^length >= 100
//	tweak   0 to MaxTweak bytes
//
// MaxLen and MaxTweak are this package's maxlen and maxTlen in the sense of SP
// 800-38G section 5.2.
//
// # Small domains
//
// The domain of a string is all strings of its radix and length. SP 800-38G of
// 2016 demands 100 strings or more (section 5.2: radix^minlen >= 100), and that
// is what this package enforces. Revision 1 (draft, 2019) raised it to
// 1,000,000 after attacks on small domains. Known answers for the smaller ones
// exist, and this package computes them; whoever decides what may be encrypted
// in production has to refuse domains below 1,000,000, as Coatcheck's profiles
// do.
//
// # What it is not
//
// It is not authenticated: every string of the format decrypts to something,
// and there is no room for a check. It is deterministic: equal strings under
// equal tweaks have equal ciphertexts, so it hides neither equality nor
// frequency. It is a permutation of a domain that can be enumerated: who may
// ask for encryptions at will can look up everything, so callers need a limit.
// It doesn't keep a check digit valid or invalid. And where the format need not
// be kept, AES-GCM is better in every respect.
//
// It is not constant-time at every length. Up to 18 decimal digits, which is
// cards and social security numbers, no branch, no look-up and no division
// depends on the content of a valid string. Longer strings and other radices
// take divisions, whose time depends on their operands on some processors, and
// halves beyond 64 bits a few branches. Where a half doesn't fit into 128 bits,
// the arithmetic is that of math/big, which is not made for secrets: its time
// depends on the values, and it leaves copies of them in freed memory. The
// shorter strings leave no copy on the heap.
//
// # Speed
//
// Halves that fit into 64 bits (up to 38 digits) or 128 bits (up to 76 digits)
// stay in machine words from the first round to the last, and nothing is
// allocated. What the pseudorandom function takes in is the same in all ten
// rounds but for its last block or two; the rest is enciphered once. So there is
// one call of AES a round for up to 56 digits, and one or two more a string,
// plus one for every 16 bytes of tweak beyond the first few.
package ff1
