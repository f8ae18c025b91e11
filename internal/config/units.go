package config

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Bytes is a number of bytes. People write it as "4GiB", "100MB" or 4096.
type Bytes int64

// unit is a suffix and what it stands for.
type unit struct {
	name string
	size int64
}

// byteUnits are the suffixes of a size, the one to print first in front.
func byteUnits() []unit {
	return []unit{
		{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9},
		{"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"KB", 1e3}, {"B", 1},
	}
}

// ParseBytes reads a size: a whole number and, unless it counts bytes, a unit.
// KB, MB, GB and TB are powers of 1000, KiB to TiB of 1024; case is free.
func ParseBytes(s string) (Bytes, bool) {
	s = strings.TrimSpace(s)
	digits := strings.TrimRight(s, "bBiIkKmMgGtT ")
	size := int64(1)
	if suffix := strings.TrimSpace(s[len(digits):]); suffix != "" {
		size = 0
		for _, u := range byteUnits() {
			if strings.EqualFold(suffix, u.name) {
				size = u.size
			}
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || size == 0 || n < 0 || n > math.MaxInt64/size {
		return 0, false
	}
	return Bytes(n * size), true
}

// String writes the size in the largest unit that loses nothing, "4GiB".
func (b Bytes) String() string {
	for _, u := range byteUnits() {
		if b > 0 && int64(b)%u.size == 0 && u.size > 1 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// formatDuration is d without the zero parts that time.Duration prints: "10m".
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
