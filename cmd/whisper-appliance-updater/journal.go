package main

import (
	"errors"
	"sync"
	"time"
)

// journalLimit is how long the journal may take for one entry: the lock is held
// meanwhile, and apt waits.
const journalLimit = time.Second

var errJournalHangs = errors.New("the journal takes nothing")

// impatient is the journal as a change at a terminal writes to it. Its socket
// blocks where nobody reads it: an entry that takes too long is left to itself,
// and those after it are dropped until it has gone. What matters was printed, too.
type impatient struct {
	send  func(message string, priority int, fields map[string]string) error
	limit time.Duration

	mu   sync.Mutex
	left chan error // the end of the entry that was left to itself; nil = none was
}

// Send is that of logging.Options.
func (j *impatient) Send(message string, priority int, fields map[string]string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.left != nil {
		select {
		case <-j.left:
			j.left = nil
		default:
			return errJournalHangs
		}
	}
	sent := make(chan error, 1)
	go func() { sent <- j.send(message, priority, fields) }()
	limit := time.NewTimer(j.limit)
	defer limit.Stop()
	select {
	case err := <-sent:
		return err
	case <-limit.C:
		j.left = sent
		return errJournalHangs
	}
}
