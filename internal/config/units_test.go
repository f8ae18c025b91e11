package config

import (
	"testing"
	"time"
)

func TestParseBytes(t *testing.T) {
	tests := []struct {
		in   string
		want Bytes
		out  string // "" where it is refused
	}{
		{"4GiB", 4 << 30, "4GiB"}, {"100MB", 100e6, "100MB"}, {"100 mb", 100e6, "100MB"}, {" 1 KiB ", 1024, "1KiB"},
		{"2000", 2000, "2KB"}, {"0", 0, "0"}, {"7B", 7, "7"}, {"3TB", 3e12, "3TB"}, {"1024kib", 1 << 20, "1MiB"}, {"1536", 1536, "1536"},
		{"9223372036854775807", 1<<63 - 1, "9223372036854775807"}, {"8388607TiB", 8388607 << 40, "8388607TiB"},
		{"8388608TiB", 0, ""}, {"9223372036854775808", 0, ""}, {"", 0, ""}, {"GiB", 0, ""}, {"-1", 0, ""}, {"1.5GiB", 0, ""},
		{"4G", 0, ""}, {"4 gigs", 0, ""}, {"4GiBB", 0, ""}, {"0x10", 0, ""}, {"4 4GiB", 0, ""}, {"1e3", 0, ""},
	}
	for _, tt := range tests {
		got, ok := ParseBytes(tt.in)
		if ok != (tt.out != "") || ok && (got != tt.want || got.String() != tt.out) {
			t.Errorf("ParseBytes(%q) = %d (%s), %v; want %d (%s)", tt.in, got, got, ok, tt.want, tt.out)
		}
		if again, _ := ParseBytes(got.String()); again != got {
			t.Errorf("%s does not read back", got)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for in, want := range map[time.Duration]string{
		0: "0s", 15 * time.Second: "15s", 10 * time.Minute: "10m", 24 * time.Hour: "24h", 90 * time.Minute: "1h30m",
		time.Hour + time.Second: "1h0m1s", 500 * time.Millisecond: "500ms", 20 * time.Second: "20s", 70 * time.Second: "1m10s",
	} {
		got := formatDuration(in)
		if back, err := time.ParseDuration(got); got != want || err != nil || back != in {
			t.Errorf("formatDuration(%v) = %s, want %s", in, got, want)
		}
	}
}
