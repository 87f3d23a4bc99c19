package types

import (
	"math/rand"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/stretchr/testify/require"
)

func TestParseTime(t *testing.T) {
	for _, c := range []struct {
		in    string
		fsp   int
		want  string // "" when it is refused
		trunc bool
	}{
		{"2024-01-31 10:20:30", 0, "2024-01-31 10:20:30", false},
		{"2024-01-31", 0, "2024-01-31 00:00:00", false},
		{"2024-1-2", 0, "2024-01-02 00:00:00", false},
		{"24-01-02", 0, "2024-01-02 00:00:00", false},
		{"70-01-02", 0, "1970-01-02 00:00:00", false},
		{"69-1-2", 0, "2069-01-02 00:00:00", false},
		{"2024-01-31T10:20:30", 0, "2024-01-31 10:20:30", false},
		{"20240131", 0, "2024-01-31 00:00:00", false},
		{"240131", 0, "2024-01-31 00:00:00", false},
		{"20240131102030", 0, "2024-01-31 10:20:30", false},
		{"240131102030", 0, "2024-01-31 10:20:30", false},
		{"20240131T102030", 0, "2024-01-31 10:20:30", false},
		{"20240131102030.5", 1, "2024-01-31 10:20:30.5", false},
		{"2024^01^31 10*20*30", 0, "2024-01-31 10:20:30", false},
		{"2024/01/31", 0, "2024-01-31 00:00:00", false},
		{"2024.01.31", 0, "2024-01-31 00:00:00", false},
		{" 2024-01-31 10:20 ", 0, "2024-01-31 10:20:00", false},
		{"2024-01-31 10", 0, "2024-01-31 10:00:00", false},
		{"2024-01-31 10:20:30.123456", 6, "2024-01-31 10:20:30.123456", false},
		{"2024-01-31 10:20:30.1234567", 6, "2024-01-31 10:20:30.123457", false},
		{"2024-01-31 10:20:30.5", 0, "2024-01-31 10:20:31", false},
		{"2024-01-31 10:20:30.4999", 0, "2024-01-31 10:20:30", false},
		{"2024-12-31 23:59:59.9", 0, "2025-01-01 00:00:00", false},
		{"9999-12-31 23:59:59.9", 0, "", false},
		{"2024-01-31 10:20:30.15", 1, "2024-01-31 10:20:30.2", false},
		{"2024-01-31 10:20:30+02:00", 0, "2024-01-31 08:20:30", false},
		{"2024-01-31 10:20:30-05:30", 0, "2024-01-31 15:50:30", false},
		{"2024-01-31 10:20:30+15:00", 0, "2024-01-31 10:20:30", true},
		{"2024-01-31abc", 0, "2024-01-31 00:00:00", true},
		{"2024-01-31 10:20:30xyz", 0, "2024-01-31 10:20:30", true},
		{"0000-00-00", 0, "0000-00-00 00:00:00", false},
		{"2024-00-10", 0, "2024-00-10 00:00:00", false},
		{"2024-01-00", 0, "2024-01-00 00:00:00", false},
		{"2024-02-30", 0, "", false},
		{"2023-02-29", 0, "", false},
		{"2024-13-01", 0, "", false},
		{"2024-01-31 24:00:00", 0, "", false},
		{"2024-01-31 10:60:00", 0, "", false},
		{"abc", 0, "", false},
		{"", 0, "", false},
		{"2024", 0, "", false},
		{"2024-01", 0, "", false},
	} {
		got, trunc, ok := ParseTime([]byte(c.in), c.fsp, 0, time.UTC)
		if c.want == "" {
			require.False(t, ok, "%q -> %s", c.in, got)
			continue
		}
		require.True(t, ok, c.in)
		require.Equal(t, c.want, got.Format(c.fsp), c.in)
		require.Equal(t, c.trunc, trunc, c.in)
	}
}

func TestTimeFlags(t *testing.T) {
	try := func(s string, f TimeFlags) bool {
		_, _, ok := ParseTime([]byte(s), 0, f, nil)
		return ok
	}
	require.False(t, try("0000-00-00", NoZeroDate))
	require.True(t, try("0000-00-00", NoZeroInDate))
	require.False(t, try("2024-00-01", NoZeroInDate))
	require.True(t, try("2024-00-01", NoZeroDate))
	require.True(t, try("2024-02-31", AllowInvalidDates))
	require.False(t, try("2024-02-32", AllowInvalidDates))
}

func TestTimeFromNumber(t *testing.T) {
	for _, c := range []struct {
		n    int64
		want string
	}{
		{20240131, "2024-01-31 00:00:00"},
		{240131, "2024-01-31 00:00:00"},
		{700101, "1970-01-01 00:00:00"},
		{101, "2000-01-01 00:00:00"},
		{20240131102030, "2024-01-31 10:20:30"},
		{240131102030, "2024-01-31 10:20:30"},
		{0, "0000-00-00 00:00:00"},
		{100, ""}, {-1, ""}, {20241301, ""}, {991332, ""}, {99999999999999, ""},
	} {
		got, ok := TimeFromNumber(c.n, 0, 0, 0)
		require.Equal(t, c.want != "", ok, "%d", c.n)
		if ok {
			require.Equal(t, c.want, got.Format(0))
		}
	}
}

func TestParseDuration(t *testing.T) {
	for _, c := range []struct {
		in   string
		fsp  int
		want string
		st   Status
	}{
		{"10:20:30", 0, "10:20:30", 0},
		{"-10:20:30", 0, "-10:20:30", 0},
		{"10:20", 0, "10:20:00", 0},
		{"1 10:20:30", 0, "34:20:30", 0},
		{"1 10", 0, "34:00:00", 0},
		{"1 10:20", 0, "34:20:00", 0},
		{"102030", 0, "10:20:30", 0},
		{"2030", 0, "00:20:30", 0},
		{"30", 0, "00:00:30", 0},
		{"10:20:30.5", 0, "10:20:31", 0},
		{"10:20:30.123", 2, "10:20:30.12", 0},
		{"838:59:59", 0, "838:59:59", 0},
		{"839:00:00", 0, "838:59:59", Overflow},
		{"-900:00:00", 0, "-838:59:59", Overflow},
		{"2024-01-31 10:20:30", 0, "10:20:30", 0},
		{"20240131102030", 0, "10:20:30", 0},
		{"10:60:00", 0, "00:00:00", Invalid},
		{"1060", 0, "00:10:60", Invalid},
		{"abc", 0, "00:00:00", Invalid | Truncated},
		{"10:20:30abc", 0, "10:20:30", Truncated},
		{"2024-01-31", 0, "00:20:24", Truncated},
		{"", 0, "00:00:00", Invalid | Truncated},
	} {
		d, st := ParseDuration([]byte(c.in), c.fsp)
		require.Equal(t, c.st, st, c.in)
		if st&Invalid == 0 {
			require.Equal(t, c.want, d.Format(c.fsp), c.in)
		}
	}
	d, st := DurationFromNumber(-102030, 500_000_000, 1)
	require.Zero(t, st)
	require.Equal(t, "-10:20:30.5", d.Format(1))
	_, st = DurationFromNumber(9000000, 0, 0)
	require.Equal(t, Overflow, st)
	_, st = DurationFromNumber(6099, 0, 0)
	require.Equal(t, Invalid, st)
}

func TestDayNumbers(t *testing.T) {
	require.Equal(t, 1, DayNumber(0, 1, 1))
	require.Equal(t, 719528, DayNumber(1970, 1, 1))
	require.Equal(t, 733321, DayNumber(2007, 10, 7))
	require.Equal(t, 3652424, DayNumber(9999, 12, 31))
	for n := 1; n <= 3652424; n += 1 + n%97 {
		d, ok := DateOfDay(n)
		require.True(t, ok)
		y, m, day := d.Date()
		require.Equal(t, n, DayNumber(y, m, day), d)
	}
	_, ok := DateOfDay(3652425)
	require.False(t, ok)
	require.Equal(t, 2, MakeDate(2024, 1, 31).Weekday(), "a Wednesday")
	require.Equal(t, 366, MakeDate(2024, 12, 31).YearDay())
}

func TestTwinAddMicros(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	base := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	for range 5000 {
		g := base.Add(time.Duration(r.Int63n(int64(250 * 365 * 24 * time.Hour)))).Add(time.Duration(r.Int63n(1 << 62))).Truncate(time.Microsecond)
		us := r.Int63n(1<<52) - 1<<51
		got, ok := TimeOf(g).AddMicros(us)
		want := g.Add(time.Duration(us/1000) * time.Millisecond).Add(time.Duration(us%1000) * time.Microsecond)
		if want.Year() < 1 {
			continue
		}
		require.True(t, ok, "%s + %d", g, us)
		require.Equal(t, TimeOf(want), got, "%s + %d", g, us)
		require.Equal(t, us, got.Sub(TimeOf(g)))
	}
}

func TestAddMonths(t *testing.T) {
	for _, c := range []struct {
		in   Time
		n    int64
		want string
	}{
		{MakeDate(2024, 1, 31), 1, "2024-02-29 00:00:00"},
		{MakeDate(2024, 3, 31), -1, "2024-02-29 00:00:00"},
		{MakeTime(2023, 12, 15, 1, 2, 3, 0), 13, "2025-01-15 01:02:03"},
	} {
		got, ok := c.in.AddMonths(c.n)
		require.True(t, ok)
		require.Equal(t, c.want, got.Format(0))
	}
	_, ok := MakeDate(9999, 12, 1).AddMonths(1)
	require.False(t, ok)
}

func TestTimestampZones(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	utc, ok := LocalToTimestamp(MakeTime(2024, 1, 31, 12, 0, 0, 5), berlin)
	require.True(t, ok)
	require.Equal(t, "2024-01-31 11:00:00.000005", utc.Format(6))
	require.Equal(t, "2024-01-31 12:00:00.000005", TimestampToLocal(utc, berlin).Format(6))
	_, ok = LocalToTimestamp(MakeTime(2024, 3, 31, 2, 30, 0, 0), berlin)
	require.False(t, ok, "the clocks skip it")
	utc, ok = LocalToTimestamp(MakeTime(2024, 10, 27, 2, 30, 0, 0), berlin)
	require.True(t, ok)
	require.Equal(t, "2024-10-27 00:30:00", utc.Format(0), "the first of two")
	_, ok = LocalToTimestamp(MakeTime(1970, 1, 1, 0, 0, 0, 0), time.UTC)
	require.False(t, ok)
	_, ok = LocalToTimestamp(MakeTime(2038, 1, 19, 3, 14, 8, 0), time.UTC)
	require.False(t, ok)
	utc, ok = LocalToTimestamp(0, berlin)
	require.True(t, ok)
	require.Zero(t, utc)
	v := TimeVal(MakeTime(2024, 7, 1, 12, 0, 0, 0))
	ts := NewTemporal(TypeTimestamp, 0)
	stored := ToStorage(v, ts, berlin)
	require.Equal(t, "2024-07-01 10:00:00", stored.Time().Format(0))
	require.Equal(t, v, FromStorage(stored, ts, berlin))
	require.Equal(t, v, ToStorage(v, NewTemporal(TypeDatetime, 0), berlin))
}

func TestPacking(t *testing.T) {
	v := MakeTime(9999, 12, 31, 23, 59, 59, 999999)
	y, m, d := v.Date()
	h, mi, s, us := v.Clock()
	require.Equal(t, []int{9999, 12, 31, 23, 59, 59, 999999}, []int{y, m, d, h, mi, s, us})
	require.Less(t, MakeTime(2023, 12, 31, 23, 59, 59, 999999), MakeDate(2024, 1, 1))
	require.Equal(t, MakeDate(9999, 12, 31), v.DateOnly())
	require.Equal(t, "23:59:59.999999", v.ClockDuration().String())
	require.Equal(t, "2024-01-31 10:20:30", MakeTime(2024, 1, 31, 10, 20, 30, 999).Truncate(0).Format(0))
	require.Equal(t, "-01:00:00", MakeDuration(true, 1, 0, 0, 0).String())
	require.Equal(t, "-838:59:59", (-MaxDuration).String())
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"2024-01-31 10:20:30.5", "240131", "1 10:20:30", "10:20:30+02:00", ":"} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, s []byte, fsp int) {
		fsp = int(uint(fsp) % 7)
		if v, _, ok := ParseTime(s, fsp, 0, time.UTC); ok {
			require.True(t, v.Valid(0), "%q -> %s", s, v)
			again, trunc, ok := ParseTime([]byte(v.Format(fsp)), fsp, 0, nil)
			require.True(t, ok && !trunc)
			require.Equal(t, v, again)
		}
		if d, st := ParseDuration(s, fsp); st == 0 {
			again, st := ParseDuration([]byte(d.Format(fsp)), fsp)
			require.Zero(t, st)
			require.Equal(t, d, again)
		}
	})
}

func BenchmarkParseTime(b *testing.B) {
	s := []byte("2024-01-31 10:20:30")
	for b.Loop() {
		_, _, _ = ParseTime(s, 0, 0, nil)
	}
}

func BenchmarkTimeAppendText(b *testing.B) {
	t := MakeTime(2024, 1, 31, 10, 20, 30, 0)
	var buf []byte
	for b.Loop() {
		buf = t.AppendText(buf[:0], 0)
	}
}
