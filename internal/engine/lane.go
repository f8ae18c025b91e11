package engine

import (
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// laneNice is added to the nice value of the threads that compute for the long
// lane: enough for the short one's to go first where both wake up, and no more. A
// clip of 3 s on two cores with tiny, 20 times, the least of them: 133 ms alone;
// beside windows of 30 s 226 to 242 ms at 0, 180 to 194 ms at 5, 178 ms at 10
// (BenchmarkShortBesideLong of package whisper). But the threads of a window wait
// for each other hundreds of times: at 5, beside a short lane that never rests
// and a busy server, a recording of 36 s took more than 30 s, at 10 more than 48.
const laneNice = 1

// nicest is the largest nice value there is.
const nicest = 19

// lane is one of the two ways through the engine: a thread, a state of the
// model and a speech detector of its own. What has no lock is for whoever has
// the lane's turn, or is alone.
type lane struct {
	name    Lane
	work    chan func()
	state   State // nil until its first window
	vad     LoadedVAD
	vadFile string
	pulse   pulse

	busy    atomic.Bool
	held    atomic.Bool // state is there
	windows atomic.Int64
	used    atomic.Int64 // UnixNano of the last turn's end
}

// lanes are the ways through the engine.
type lanes struct{ long, short *lane }

func newLanes() lanes {
	return lanes{
		long:  &lane{name: LaneLong, work: make(chan func())},
		short: &lane{name: LaneShort, work: make(chan func())},
	}
}

func (l lanes) all() []*lane { return []*lane{l.long, l.short} }

// of is the lane of that name. The error is a *Failure.
func (l lanes) of(name Lane) (*lane, error) {
	switch name {
	case LaneLong:
		return l.long, nil
	case LaneShort:
		return l.short, nil
	}
	return nil, &Failure{CodeBadRequest, fmt.Sprintf("there is no lane %q: short windows are for %q, all others name none", name, LaneShort)}
}

// start has each lane's work done on a thread of its own; stop ends them, and
// may be called when nobody can have a turn any more.
func (l lanes) start(log *slog.Logger) (stop func()) {
	var wg sync.WaitGroup
	for _, lane := range l.all() {
		wg.Go(func() { lane.run(log) })
	}
	return func() {
		for _, lane := range l.all() {
			close(lane.work)
		}
		wg.Wait()
	}
}

// run does the lane's work. The library that computes keeps a team of threads
// for each thread that asks for one, and they inherit its nice value.
func (l *lane) run(log *slog.Logger) {
	runtime.LockOSThread() // and never unlocked: a nice value cannot be taken back, so the thread ends with this
	if l.name == LaneLong {
		if err := giveWay(); err != nil {
			log.Debug("the long lane's threads do not give way to the short one's", "error", err)
		}
	}
	for f := range l.work {
		f()
	}
}

// giveWay raises the calling thread's nice value. A unit may forbid it.
func giveWay() error {
	inverse, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // the kernel gives 20 − nice
	if err != nil {
		return err
	}
	return unix.Setpriority(unix.PRIO_PROCESS, 0, min(20-inverse+laneNice, nicest))
}

// do calls f on the lane's thread; the caller has the turn, or is alone.
func (l *lane) do(f func()) {
	l.busy.Store(true)
	defer func() {
		l.used.Store(time.Now().UnixNano())
		l.busy.Store(false)
	}()
	done := make(chan struct{})
	l.work <- func() { defer close(done); f() }
	<-done
}

// drop gives the state's memory back.
func (l *lane) drop() {
	if l.state != nil {
		l.state.Close()
		l.state = nil
		l.held.Store(false)
	}
}

// dropVAD gives the detector's memory back.
func (l *lane) dropVAD() {
	if l.vad != nil {
		l.vad.Close()
		l.vad = nil
	}
}

// call is what the watchdog's log calls something that a lane does.
func (l *lane) call(what string) string {
	if l.name == LaneLong {
		return what
	}
	return what + " of the " + string(l.name) + " lane"
}
