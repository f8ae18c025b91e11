package measure

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// waiting is for how long, since some moment, work has waited for a processor:
// other programs' or, under a hypervisor, other machines'. Differences of it
// tell how much slower a run may have been for that. It is 0 where the kernel
// does not say.
func waiting(proc string) time.Duration {
	if proc == "" {
		return 0
	}
	return pressure(filepath.Join(proc, "pressure", "cpu")) + stolen(filepath.Join(proc, "stat"))
}

// pressure is the time in which some task was ready to run and did not, from a
// line such as "some avg10=0.00 avg60=0.00 avg300=0.00 total=17", in
// microseconds.
func pressure(file string) time.Duration {
	data, _ := os.ReadFile(file) // nothing is not known
	line, _, _ := strings.Cut(string(data), "\n")
	_, total, ok := strings.Cut(line, "total=")
	if !ok || !strings.HasPrefix(line, "some ") {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(total), 10, 64) // 0 = not known
	return time.Duration(n) * time.Microsecond
}

// stolen is the time that a hypervisor kept each processor for others, on
// average: the eighth number of the line "cpu", in hundredths of a second.
func stolen(file string) time.Duration {
	const steal = 8
	data, _ := os.ReadFile(file) // nothing is not known
	line, _, _ := strings.Cut(string(data), "\n")
	words := strings.Fields(line)
	if len(words) <= steal || words[0] != "cpu" {
		return 0
	}
	n, _ := strconv.ParseInt(words[steal], 10, 64) // 0 = not known
	return time.Duration(n) * 10 * time.Millisecond / time.Duration(runtime.NumCPU())
}
