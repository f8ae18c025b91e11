package machine

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	"whisper-appliance/tests/vm/disk"
)

// Cut pulls the plug: qemu is killed, and of what the machine has not flushed
// chance decides what is left.
func (m *Machine) Cut() (disk.Cuts, error) {
	cuts, err := m.disk.Cut() // nothing is written any more from here on
	m.cmd.Process.Kill()      //nolint:errcheck // it has gone already
	<-m.ended
	return cuts, err
}

// CutWhen has the plug pulled by the machine's own wish, when a file of it has a
// content that matches the pattern, and a while after that. It returns when the
// machine looks; Pulled waits.
func (m *Machine) CutWhen(ctx context.Context, path, pattern string, after time.Duration) error {
	query := url.Values{"path": {path}, "pattern": {pattern}, "after": {after.String()}}
	res, err := m.ask(ctx, http.MethodPost, "/cut?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusNoContent {
		return fmt.Errorf("ask the machine for a cut: %s", res.Status)
	}
	return nil
}

// Pulled waits until the plug was pulled as CutWhen asked.
func (m *Machine) Pulled(ctx context.Context) (disk.Cuts, error) {
	select {
	case <-m.pulled:
		<-m.ended
		return m.disk.Cut() // done already: it tells the sums
	case <-ctx.Done():
		return disk.Cuts{}, fmt.Errorf("the moment of the cut has not come: %w", ctx.Err())
	}
}

// holdPlug pulls the plug when a byte comes from the machine's second serial
// line, until qemu has gone.
func (m *Machine) holdPlug(process *os.Process, ended, pulled chan struct{}) {
	conn, err := m.plug.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	go func() {
		<-ended
		conn.Close()
	}()
	var wish [1]byte
	for {
		if n, err := conn.Read(wish[:]); n == 0 || err != nil {
			return
		}
		if wish[0] == '!' {
			break
		}
	}
	m.disk.Cut()   //nolint:errcheck // Pulled asks again
	process.Kill() //nolint:errcheck // it has gone already
	close(pulled)
}
