// Package quantity reads and writes sizes and times as people write them, for flags
// and configuration files.
package quantity

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written 96MiB, 512KiB, or as a plain number.
type Size int64

// units are the names of sizes, greatest first.
var units = []struct {
	name  string
	shift uint
}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}}

// String writes s so that Set reads it.
func (s *Size) String() string {
	for _, u := range units {
		if *s > 0 && int64(*s)&(1<<u.shift-1) == 0 {
			return strconv.FormatInt(int64(*s)>>u.shift, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(*s), 10)
}

// Set reads a size. KB, MB and plain K, M mean what KiB and MiB mean: nobody
// who writes 64MB for a region wants to argue about 5 percent.
func (s *Size) Set(text string) error {
	number, shift := strings.TrimSpace(text), uint(0)
	for _, u := range units {
		for _, suffix := range []string{u.name, u.name[:1] + "B", u.name[:1]} {
			if len(number) > len(suffix) && strings.EqualFold(number[len(number)-len(suffix):], suffix) {
				number, shift = strings.TrimSpace(number[:len(number)-len(suffix)]), u.shift
				break
			}
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > (1<<62)>>shift {
		return fmt.Errorf("%q is not a size; write it as 64MiB, 512KiB or a number of bytes", text)
	}
	*s = Size(n << shift)
	return nil
}

// Type implements pflag.Value: what --help shows for the value.
func (s *Size) Type() string { return "size" }

// MarshalText implements encoding.TextMarshaler.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalTOML takes a text and a plain number.
func (s *Size) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case int64:
		return s.Set(strconv.FormatInt(v, 10))
	case string:
		return s.Set(v)
	}
	return fmt.Errorf("%v is not a size; write it as \"64MiB\" or a number of bytes", v)
}

// Duration is a time span, written 100ms, 2s, 10m.
type Duration time.Duration

// String writes d so that Set reads it.
func (d *Duration) String() string {
	if *d == 0 {
		return "0"
	}
	return time.Duration(*d).String()
}

// Set reads a duration.
func (d *Duration) Set(text string) error {
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a time span; write it as 100ms, 2s or 10m", text)
	}
	*d = Duration(v)
	return nil
}

// Type implements pflag.Value: what --help shows for the value.
func (d *Duration) Type() string { return "time" }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error { return d.Set(string(text)) }
