package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Resources is what the server uses and what the machine has left. What could
// not be read is absent, with the reason in NotAvailable.
type Resources struct {
	Memory       Memory              `json:"memory"`
	CPU          CPU                 `json:"cpu"`
	OpenFiles    OpenFiles           `json:"open_files"`
	Disk         []Disk              `json:"disk" doc:"The file system of each of the appliance's directories."`
	Pressure     map[string]Pressure `json:"pressure" doc:"Of cpu, io and memory: the share of time in which work waited for it."`
	NotAvailable map[string]string   `json:"not_available,omitempty" doc:"What could not be read, and why."`
}

// Memory is in bytes.
type Memory struct {
	Resident  *int64 `json:"resident_bytes,omitempty" doc:"Of the server's process."`
	Group     *int64 `json:"group_bytes,omitempty" doc:"Of its control group."`
	Limit     *int64 `json:"limit_bytes,omitempty" doc:"Of its control group; absent where there is none."`
	Total     *int64 `json:"machine_total_bytes,omitempty"`
	Available *int64 `json:"machine_available_bytes,omitempty"`
}

// CPU is processor time.
type CPU struct {
	Cores   int      `json:"cores"`
	Seconds *float64 `json:"seconds,omitempty" doc:"Processor time of the server since its start."`
}

// OpenFiles counts descriptors.
type OpenFiles struct {
	Open  *int64 `json:"open,omitempty"`
	Limit *int64 `json:"limit,omitempty"`
}

// Disk is the file system of a directory, in bytes.
type Disk struct {
	Name      string `json:"name"`
	Directory string `json:"directory"`
	Total     int64  `json:"total_bytes"`
	Free      int64  `json:"free_bytes" doc:"Left to the appliance."`
	Error     string `json:"error,omitempty"`
}

// Pressure is the share of the last 10 and 60 s, in percent, in which some or
// all work waited for a resource.
type Pressure struct {
	Some10 float64 `json:"some_avg10"`
	Some60 float64 `json:"some_avg60"`
	Full10 float64 `json:"full_avg10"`
	Full60 float64 `json:"full_avg60"`
}

// Directory is a directory whose file system is watched.
type Directory struct{ Name, Path string }

// look reads what there is to read. It has no error: what is missing is said
// in the result.
func (s *Server) look(context.Context) (Resources, error) {
	p := probe{proc: s.Proc, cgroup: s.Cgroup}
	res := Resources{CPU: CPU{Cores: runtime.NumCPU()}, Disk: []Disk{}, Pressure: map[string]Pressure{}}
	p.memory(&res.Memory)
	p.usage(&res)
	for _, what := range []string{"cpu", "io", "memory"} {
		if v, err := p.pressure(what); err != nil {
			p.miss("pressure."+what, err)
		} else {
			res.Pressure[what] = v
		}
	}
	for _, d := range s.Directories {
		res.Disk = append(res.Disk, diskOf(d))
	}
	res.NotAvailable = p.missing
	return res, nil
}

// probe reads the kernel's file systems.
type probe struct {
	proc, cgroup string
	missing      map[string]string
}

// miss notes what could not be read. The path that an error names is the
// kernel's and says where one may look.
func (p *probe) miss(name string, err error) {
	if p.missing == nil {
		p.missing = map[string]string{}
	}
	p.missing[name] = err.Error()
}

// put stores a number that was read, or why it was not.
func put[T any](p *probe, name string, to **T, v T, err error) {
	if err != nil {
		p.miss(name, err)
		return
	}
	*to = &v
}

func (p *probe) memory(m *Memory) {
	resident, err := field(filepath.Join(p.proc, "self", "status"), "VmRSS:")
	put(p, "memory.resident_bytes", &m.Resident, resident*1024, err)
	total, err := field(filepath.Join(p.proc, "meminfo"), "MemTotal:")
	put(p, "memory.machine_total_bytes", &m.Total, total*1024, err)
	available, err := field(filepath.Join(p.proc, "meminfo"), "MemAvailable:")
	put(p, "memory.machine_available_bytes", &m.Available, available*1024, err)
	group, err := p.group()
	if err != nil {
		p.miss("memory.group_bytes", err)
		return
	}
	used, err := number(filepath.Join(group, "memory.current"))
	put(p, "memory.group_bytes", &m.Group, used, err)
	limit, err := number(filepath.Join(group, "memory.max"))
	if !errors.Is(err, strconv.ErrSyntax) { // "max": there is none
		put(p, "memory.limit_bytes", &m.Limit, limit, err)
	}
}

// usage reads processor time and descriptors.
func (p *probe) usage(res *Resources) {
	var use unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_SELF, &use)
	spent := time.Duration(use.Utime.Nano() + use.Stime.Nano())
	put(p, "cpu.seconds", &res.CPU.Seconds, spent.Seconds(), err)
	open, err := os.ReadDir(filepath.Join(p.proc, "self", "fd"))
	put(p, "open_files.open", &res.OpenFiles.Open, int64(len(open)), err)
	var limit unix.Rlimit
	err = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	put(p, "open_files.limit", &res.OpenFiles.Limit, int64(limit.Cur), err)
}

// group is the directory of our control group, of cgroup v2.
func (p *probe) group() (string, error) {
	data, err := os.ReadFile(filepath.Join(p.proc, "self", "cgroup"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return filepath.Join(p.cgroup, rest), nil
		}
	}
	return "", errors.New("this machine has no cgroup v2")
}

// pressure is our control group's, and the machine's where that has none.
func (p *probe) pressure(what string) (Pressure, error) {
	if group, err := p.group(); err == nil {
		if data, err := os.ReadFile(filepath.Join(group, what+".pressure")); err == nil {
			return parsePressure(string(data))
		}
	}
	data, err := os.ReadFile(filepath.Join(p.proc, "pressure", what))
	if err != nil {
		return Pressure{}, err
	}
	return parsePressure(string(data))
}

// parsePressure reads the kernel's lines "some avg10=0.00 avg60=0.00 …" and "full …".
func parsePressure(text string) (v Pressure, err error) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 3 {
			return v, fmt.Errorf("the pressure line %q", line)
		}
		ten, err := strconv.ParseFloat(strings.TrimPrefix(words[1], "avg10="), 64)
		if err != nil {
			return v, fmt.Errorf("the pressure line %q: %w", line, err)
		}
		sixty, err := strconv.ParseFloat(strings.TrimPrefix(words[2], "avg60="), 64)
		if err != nil {
			return v, fmt.Errorf("the pressure line %q: %w", line, err)
		}
		switch words[0] {
		case "some":
			v.Some10, v.Some60 = ten, sixty
		case "full":
			v.Full10, v.Full60 = ten, sixty
		}
	}
	return v, nil
}

// field is the number after key in a file of lines "key number unit".
func field(file, key string) (int64, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			if words := strings.Fields(rest); len(words) > 0 {
				return strconv.ParseInt(words[0], 10, 64)
			}
		}
	}
	return 0, fmt.Errorf("%s has no %s", file, strings.TrimSuffix(key, ":"))
}

// number is a file that holds one.
func number(file string) (int64, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
}

func diskOf(d Directory) Disk {
	disk := Disk{Name: d.Name, Directory: d.Path}
	var st unix.Statfs_t
	if err := unix.Statfs(d.Path, &st); err != nil {
		disk.Error = err.Error()
		return disk
	}
	disk.Total, disk.Free = int64(st.Blocks)*st.Bsize, int64(st.Bavail)*st.Bsize
	return disk
}
