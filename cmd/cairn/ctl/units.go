package ctl

import (
	"fmt"
	"strconv"
	"time"
)

// bytesText is a size for people: 1.5 GiB. 0 is "0".
func bytesText(n uint64) string {
	const unit = 1024
	if n < unit {
		return strconv.FormatUint(n, 10)
	}
	value, suffix := float64(n)/unit, 0
	for value >= unit && suffix < 3 {
		value, suffix = value/unit, suffix+1
	}
	return fmt.Sprintf("%.1f %s", value, []string{"KiB", "MiB", "GiB", "TiB"}[suffix])
}

// rateText is a rate per second for people; nothing when it is nothing.
func rateText(r float64) string {
	switch {
	case r < 0.05:
		return ""
	case r < 100:
		return fmt.Sprintf("%.1f", r)
	}
	return fmt.Sprintf("%.0f", r)
}

// byteRateText is a rate of bytes per second for people.
func byteRateText(r float64) string {
	if r < 1 {
		return ""
	}
	return bytesText(uint64(r)) + "/s"
}

// span is a number of milliseconds for people.
func span(ms uint64) string {
	d := time.Duration(ms) * time.Millisecond
	switch {
	case d < time.Second:
		return d.String()
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// clock is a moment for people.
func clock(unixMS int64) string {
	if unixMS == 0 {
		return ""
	}
	return time.UnixMilli(unixMS).Format(time.DateTime)
}
