package portmux

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

func TestCloseBeforeAccept(t *testing.T) {
	noLeak(t)
	mux := New(listen(t), nil)
	mux.Close()
	mux.Close()
	if _, err := mux.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v, want net.ErrClosed", err)
	}
}

// Taken, silent at Close, then speaking within the drain: delivered.
func TestPendingIsDeliveredAfterClose(t *testing.T) {
	noLeak(t)
	mux := New(listen(t), nil)
	defer mux.Close()
	client := dial(t, mux)
	stop := serve(t, mux, proto)
	eventually(t, "the connection taken", func() bool { return mux.Stats().Pending == 1 })
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	eventually(t, "the socket closed", func() bool { return closed(mux) })
	io.WriteString(client, "GET / HTTP/1.0\r\n\r\n")
	if got := readAll(t, client); len(got) == 0 {
		t.Error("no answer on a connection that was taken before Close")
	}
	<-stopped
}

func closed(l *Listener) bool {
	select {
	case <-l.closing:
		return true
	default:
		return false
	}
}

// Silent for all of the drain: closed, and the drain ends.
func TestDrainIsBounded(t *testing.T) {
	noLeak(t)
	for _, c := range []struct {
		name string
		send string
	}{
		{"silent client", ""},
		{"nobody accepts", "x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mux := New(listen(t), nil)
			mux.DrainTimeout = 50 * time.Millisecond
			probe := dial(t, mux)
			io.WriteString(probe, "x")
			if first, err := mux.Accept(); err != nil { // starts it
				t.Fatal(err)
			} else {
				first.Close()
			}
			client := dial(t, mux)
			io.WriteString(client, c.send)
			eventually(t, "the connection taken", func() bool { return mux.Stats().Open == 1 })
			start := time.Now()
			mux.Close()
			client.SetReadDeadline(time.Now().Add(5 * time.Second))
			var timeout net.Error
			if _, err := client.Read(make([]byte, 1)); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
				t.Errorf("read: %v, want the connection closed", err)
			}
			if _, err := mux.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept: %v, want net.ErrClosed", err)
			}
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("the drain took %v", took)
			}
		})
	}
}

// witness records which clients were taken from the kernel.
type witness struct {
	net.Listener
	mu    sync.Mutex
	taken map[string]bool
}

func (w *witness) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	if err == nil {
		w.mu.Lock()
		w.taken[c.RemoteAddr().String()] = true
		w.mu.Unlock()
	}
	return c, err
}

const request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

// ask makes one request on a connection of its own.
func ask(address string) (local string, answer []byte, err error) {
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return "", nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err = io.WriteString(c, request); err == nil {
		answer, err = io.ReadAll(c)
	}
	return c.LocalAddr().String(), answer, err
}

// hammer makes requests from eight sides at once, calling half when half of
// them are done, and gives each outcome to report, one at a time.
func hammer(address string, requests int, half func(), report func(local string, answer []byte, err error)) {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		done int
	)
	work := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			for range work {
				local, answer, err := ask(address)
				mu.Lock()
				report(local, answer, err)
				mu.Unlock()
			}
		})
	}
	for ; done < requests; done++ {
		if done == requests/2 {
			wg.Go(half)
		}
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
}

// Whatever was taken from the kernel when the listener closes gets its answer.
func TestCloseUnderLoadLosesNothingTaken(t *testing.T) {
	noLeak(t)
	inner := &witness{Listener: listen(t), taken: map[string]bool{}}
	mux := New(inner, nil)
	stop := serve(t, mux, proto)
	answered := map[string]bool{}
	hammer(mux.Addr().String(), 2000, stop, func(local string, answer []byte, err error) {
		if len(answer) > 0 && err == nil {
			answered[local] = true
		}
	})
	lost := 0
	for client := range inner.taken {
		if !answered[client] {
			lost++
		}
	}
	if lost > 0 || len(inner.taken) < 900 {
		t.Errorf("%d taken, %d of them without an answer", len(inner.taken), lost)
	}
	t.Logf("%d taken, %d answered", len(inner.taken), len(answered))
}

// A second server on the same socket takes over: no request fails at all.
func TestHandOverOnASharedSocketLosesNothing(t *testing.T) {
	noLeak(t)
	inner := listen(t)
	file, err := inner.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	copied, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	stopOld := serve(t, New(inner, nil), func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "old") })
	stopNew := serve(t, New(copied, nil), func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "new") })
	failed := 0
	hammer(inner.Addr().String(), 2000, stopOld, func(_ string, answer []byte, err error) {
		if len(answer) == 0 || err != nil {
			failed++
			t.Log(err)
		}
	})
	stopNew()
	if failed > 0 {
		t.Errorf("%d of 2000 requests failed", failed)
	}
}
