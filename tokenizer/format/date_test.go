package format

import (
	"testing"
	"time"
)

func TestDate(t *testing.T) {
	typ := mustLookup(t, "date-of-birth")
	for _, c := range []normalizeCase{
		{"a day", "1970-01-01", "1970-01-01", nil},
		{"first", "1900-01-01", "1900-01-01", nil},
		{"last", "2099-12-31", "2099-12-31", nil},
		{"day before the first", "1899-12-31", "", errDateRange},
		{"day after the last", "2100-01-01", "", errDateRange},
		{"month 0", "1970-00-01", "", errDateDay},
		{"month 13", "1970-13-01", "", errDateDay},
		{"day 0", "1970-01-00", "", errDateDay},
		{"31 April", "1970-04-31", "", errDateDay},
		{"29 February", "1900-02-29", "", errDateDay},
		{"American", "01/02/2003", "", errDateForm},
		{"without dashes", "19700101", "", errDateForm},
		{"short", "1970-1-1", "", errDateForm},
		{"with a time", "1970-01-01T00:00:00Z", "", errDateForm},
		{"slashes", "1970/01/01", "", errDateForm},
		{"letters", "197O-01-01", "", errDateForm},
		{"leading space", " 970-01-01", "", errDateForm},
		{"full-width", "１９７０", "", errDateForm},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, typ) })
	}
}

// The calendar is that of package time, day by day.
func TestDateCalendar(t *testing.T) {
	typ := mustLookup(t, "date-of-birth")
	for year := 1900; year < 2100; year++ {
		for month := time.January; month <= time.December; month++ {
			for day := 1; day <= 31; day++ {
				date := time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
				raw := date.Format("2006-01-") + string([]byte{'0' + byte(day/10), '0' + byte(day%10)})
				if exists := date.Month() == month; !exists {
					raw = time.Date(year, month, 1, 0, 0, 0, 0, time.UTC).Format("2006-01-") + raw[8:]
					if _, err := typ.Normalize(nil, raw); err != errDateDay {
						t.Fatalf("%s: %v", raw, err)
					}
				} else if _, err := typ.Normalize(nil, raw); err != nil {
					t.Fatalf("%s: %v", raw, err)
				}
			}
		}
	}
}
