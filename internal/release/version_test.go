package release

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"whisper-appliance/internal/fault"
)

// wantCode fails where err is no fault with the code, or gives no hint.
func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != code || f.Hint == "" {
		t.Errorf("%v, want a fault %q with a hint", err, code)
	}
}

func TestValidVersion(t *testing.T) {
	for _, v := range []string{"0.0.0", "1.4.0", "1.4.0-rc.1", "0.8.0+dev", "1.0.0-beta+exp.sha.5114f85", "10.20.30"} {
		if err := ValidVersion(v); err != nil {
			t.Errorf("%s: %v", v, err)
		}
	}
	for _, v := range []string{"", "v1.4.0", "1", "1.4", "1.4.0.0", "01.4.0", "1.4.0-", "1.4.0-01", "1.4.0+", "1.4.0_1", "1.4.0+a/b", "latest", "1.4.0\n", "1.4.0+" + strings.Repeat("x", 100)} {
		wantCode(t, ValidVersion(v), "bad_version")
	}
}

// TestCompare walks versions in their order, each against each.
func TestCompare(t *testing.T) {
	order := []string{"", "1.4", "nonsense", "v9.9.9", "0.8.0-alpha", "0.8.0-alpha.1", "0.8.0-beta.2", "0.8.0-beta.11", "0.8.0", "0.8.0+dev", "0.8.0+dev2",
		"0.8.1", "0.9.0-rc.1+z", "0.9.0", "0.10.0", "1.0.0", "10.0.0"}
	for i, a := range order {
		for j, b := range order {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := Compare(a, b); got != want {
				t.Errorf("Compare(%q, %q) = %d, want %d", a, b, got, want)
			}
		}
	}
}

func TestTargetName(t *testing.T) {
	for _, v := range []string{"1.4.0", "1.4.0-rc.1", "0.8.0+dev"} {
		name := TargetName(v, "amd64")
		version, arch, err := ParseTarget(name)
		if err != nil || version != v || arch != "amd64" {
			t.Errorf("%s is %q for %q, %v", name, version, arch, err)
		}
	}
	if name := TargetName("1.4.0", "arm64"); name != "whisper-appliance_1.4.0_arm64.tar.zst" {
		t.Errorf("the name is %s", name)
	}
	for _, name := range []string{"", "whisper-appliance_1.4.0_amd64.tar", "1.4.0_amd64.tar.zst", "whisper-appliance_1.4.0.tar.zst", "whisper-appliance_1.4_amd64.tar.zst",
		"whisper-appliance_1.4.0_AMD.tar.zst", "whisper-appliance_1.4.0_a_b.tar.zst", "whisper-appliance_../1.4.0_amd64.tar.zst", "x/whisper-appliance_1.4.0_amd64.tar.zst"} {
		_, _, err := ParseTarget(name)
		wantCode(t, err, "bad_target")
	}
}

func TestDraw(t *testing.T) {
	const machines = 20_000
	var lots [100]int
	same := 0
	for i := range machines {
		id := fmt.Sprintf("%032x", i)
		lot := Draw(id, "1.4.0")
		if lot < 0 || lot > 99 || lot != Draw(id, "1.4.0") {
			t.Fatalf("machine %s draws %d, then %d", id, lot, Draw(id, "1.4.0"))
		}
		if lots[lot]++; lot == Draw(id, "1.5.0") {
			same++
		}
	}
	if least, most := slices.Min(lots[:]), slices.Max(lots[:]); least < 140 || most > 260 {
		t.Errorf("of %d machines %d to %d have a lot, want about %d", machines, least, most, machines/100)
	}
	if same > machines/50 {
		t.Errorf("%d of %d machines draw the same for two versions", same, machines)
	}
	// Machines that updated yesterday must not draw anew.
	if got := Draw("0123456789abcdef0123456789abcdef", "1.4.0"); got != 34 {
		t.Errorf("the lot of a known machine is %d", got)
	}
}
