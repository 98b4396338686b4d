// Package format is what Coatcheck knows of the shapes of data: how a value is
// checked, brought to one normal form and masked, and how a token is written
// and read. It is pure: it knows no store and no key, reads no clock and draws
// no random numbers, and everything in it is safe for concurrent use.
//
// # Values
//
// A Type is got by its name and options, once, and then used for every value:
//
//	card, _ := format.NewType("card-number", format.TypeOptions{})
//	value, err := card.Normalize(nil, "4111 1111 1111 1111") // 4111111111111111
//	masked := card.Mask(nil, value)                          // ************1111
//
// A value that is less than all and more than its mask is a Part, as the last four
// digits of a card number or the domain of an e-mail address. What is stored,
// compared and given back is the normal form. Normalize is
// idempotent: a normal form is its own normal form. Its errors are fixed texts
// that hold no part of a value, so they may be shown to a caller and logged.
//
// # Opaque tokens
//
// An opaque token is a 16-byte block, which only the key ring can tell apart
// from random, in a form that survives mail, URLs, CSV files and a double
// click:
//
//	cc_<profile>_<version><block><crc>
//
//	profile   [a-z][a-z0-9-]{0,30}
//	version   1 to 4,294,967,295: the version of the token key, in base62 of 1 to
//	          6 digits without leading zeros
//	block     16 bytes as a big-endian number, in base62 of 22 digits
//	crc       CRC-32 (IEEE 802.3) of all that stands before it, in base62 of 6
//	          digits
//
// The digits of base62 are 0-9, A-Z, a-z, in this order, which is that of
// ASCII. A token is 34 to 69 bytes long, and it has exactly one spelling: what
// ParseOpaque accepts AppendOpaque writes again byte for byte. The CRC is there
// for typing errors, not for forgers: it catches every change of one character,
// every change within four neighbouring ones before it, and all but one in 2³²
// of the rest.
//
// A secret scanner finds tokens by OpaquePattern:
//
//	\bcc_[a-z][a-z0-9-]{0,30}_[1-9A-Za-z][0-9A-Za-z]{28,33}\b
//
// and rules out what only looks like one by the CRC (ParseOpaque).
//
// The form of opaque tokens will not change: clients keep them for as long as
// they keep their customers. Another form would get another prefix.
package format
