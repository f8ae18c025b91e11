package cut

import (
	"errors"
	"runtime"
	"testing"
)

// TestStarts: what starts a command waits for nobody, whatever else this process
// does meanwhile.
func TestStarts(t *testing.T) {
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		var keep []byte
		for {
			select {
			case <-stop:
				runtime.KeepAlive(keep)
				return
			default:
				keep = make([]byte, 1<<20) // for the collector
			}
		}
	}()
	dir := t.TempDir()
	for i := range 40 {
		r, err := Run(t.Context(), Command{Args: []string{"/bin/true"}, Watch: []string{dir}})
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		if err != nil || r.ExitCode != 0 || r.Calls != 0 {
			t.Fatalf("run %d: %v, %+v", i, err, r)
		}
	}
	close(stop)
	<-ended
}
