package policy

import (
	"strings"
	"testing"
)

func TestValidateCaller(t *testing.T) {
	long := "spiffe://a/" + strings.Repeat("b", 2048-len("spiffe://a/"))
	for _, row := range []struct {
		caller string
		want   string // "" if it is one, else a part of the error
	}{
		{"spiffe://coatcheck.example/payments", ""},
		{"spiffe://a/b", ""},
		{"spiffe://prod_1-a.b/Ns/k8s-1/s_a/.../x.y", ""},
		{"spiffe://1.2.3.4/a", ""},
		{long, ""},
		{long + "b", "at most 2048 bytes"},
		{"spiffe://" + strings.Repeat("a", 255) + "/b", ""},
		{"spiffe://" + strings.Repeat("a", 256) + "/b", "at most 255 bytes"},
		{"spiffe://", "trust domain is missing"},
		{"spiffe:///a", "trust domain is missing"},
		{"spiffe://a", "path is missing"},
		{"spiffe://a/", "path is missing"},
		{"spiffe://a/b/", "no trailing slash"},
		{"spiffe://a//b", "empty segment"},
		{"spiffe://a/./b", `segment "." or ".."`},
		{"spiffe://a/../b", `segment "." or ".."`},
		{"spiffe://a/b/..", `segment "." or ".."`},
		{"spiffe://A.example/b", "lower-case"},
		{"spiffe://ä.example/b", "lower-case"},
		{"spiffe://a.example:443/b", "no port"},
		{"spiffe://user@a.example/b", "no user"},
		{"spiffe://user:pass@a.example/b", "no user"},
		{"spiffe://a/b?c", "no query"},
		{"spiffe://a/b?", "no query"},
		{"spiffe://a/b#c", "no fragment"},
		{"spiffe://a/b%2fc", "no percent-encoding"},
		{"spiffe://a%2eb/c", "no percent-encoding"},
		{"spiffe://a/b c", "path segment"},
		{"spiffe://a/b\n", "path segment"},
		{"spiffe://a/ü", "path segment"},
		{"spiffe://a/b\x00", "path segment"},
		{"spiffe://a/b/*", "patterns are not supported"},
		{"SPIFFE://a/b", "a caller is"},
		{"spiffe:/a/b", "a caller is"},
		{" spiffe://a/b", "a caller is"},

		{"dns:shop.example", ""},
		{"dns:a", ""},
		{"dns:xn--bcher-kva.example", ""},
		{"dns:1.example", ""},
		{"dns:" + strings.Repeat("a.", 126) + "a", ""},
		{"dns:" + strings.Repeat("a.", 126) + "aa", "at most 253 bytes"},
		{"dns:" + strings.Repeat("a", 63) + ".b", ""},
		{"dns:" + strings.Repeat("a", 64) + ".b", "a label"},
		{"dns:", "is missing"},
		{"dns:shop.example.", "trailing dot"},
		{"dns:Shop.example", "lower case"},
		{"dns:*.example", "patterns are not supported"},
		{"dns:shop..example", "a label"},
		{"dns:.example", "a label"},
		{"dns:-a.example", "a label"},
		{"dns:a-.example", "a label"},
		{"dns:a_b.example", "a label"},
		{"dns:bücher.example", "a label"},
		{"dns:shop.example:443", "a label"},
		{"dns:10.0.0.1", "IP address"},
		{"dns:::1", "a label"},
		{"DNS:a", "a caller is"},

		{"cn:checkout", ""},
		{"cn:Checkout Service, Köln (1)", ""},
		{"cn:spiffe://a/b", ""},
		{"cn:" + strings.Repeat("a", 255), ""},
		{"cn:" + strings.Repeat("a", 256), "at most 255 bytes"},
		{"cn:", "is missing"},
		{"cn: a", "a space"},
		{"cn:a ", "a space"},
		{"cn:a\nb", "printable"},
		{"cn:a\u200bb", "printable"}, // zero width space
		{"cn:a\u202eb", "printable"}, // right-to-left override
		{"cn:a\u00a0b", "printable"}, // no-break space
		{"cn:a\xff", "printable"},
		{"cn:*.example", "patterns are not supported"},

		{"", "a caller is"},
		{"*", "patterns are not supported"},
		{"shop.example", "a caller is"},
	} {
		err := ValidateCaller(row.caller)
		switch {
		case row.want == "" && err != nil:
			t.Errorf("%q: %v", row.caller, err)
		case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
			t.Errorf("%q: error %v, want one that says %q", row.caller, err, row.want)
		}
	}
}
