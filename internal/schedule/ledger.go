package schedule

import "time"

// ledger keeps how much of the engine's time each of several has had, as far
// as that matters: who comes anew starts where those stand who are being
// served, and neither owes nor is owed anything for the time before.
type ledger struct {
	accounts map[string]*account
	clock    time.Duration // what the one whose turn began last had had by then
	open     int
}

// account is that of an owner, with those of the owner's jobs, or of a job.
type account struct {
	served time.Duration
	open   int // turns and who waits for one
	jobs   ledger
}

func (l *ledger) enter(name string) *account {
	if l.accounts == nil {
		l.accounts = map[string]*account{}
	}
	a := l.accounts[name]
	if a == nil {
		a = &account{}
		l.accounts[name] = a
	}
	if a.open == 0 {
		a.served = max(a.served, l.clock)
	}
	a.open++
	l.open++
	return a
}

func (l *ledger) began(name string) *account {
	a := l.accounts[name]
	l.clock = max(l.clock, a.served)
	return a
}

// leave closes what enter opened. An account outlives that, as a job is out of
// line between two of its windows, until those who are served have come as far.
func (l *ledger) leave(name string) *account {
	a := l.accounts[name]
	a.open--
	l.open--
	if l.open == 0 {
		*l = ledger{}
		return a
	}
	for other, a := range l.accounts {
		if a.open == 0 && a.served <= l.clock {
			delete(l.accounts, other)
		}
	}
	return a
}

// enter, began, charge and leave are those of an ask's owner and job.
func (q *Queue) enter(ask Ask) { q.owners.enter(ask.Owner).jobs.enter(ask.Job) }

func (q *Queue) began(ask Ask) { q.owners.began(ask.Owner).jobs.began(ask.Job) }

func (q *Queue) charge(ask Ask, took time.Duration) {
	owner := q.owners.accounts[ask.Owner]
	owner.served += took
	job := owner.jobs.accounts[ask.Job]
	job.served += took
	// New jobs begin where this one ends: each short recording is one, and in
	// all they have had as much as the long one beside them.
	owner.jobs.clock = max(owner.jobs.clock, job.served)
}

func (q *Queue) leave(ask Ask) { q.owners.leave(ask.Owner).jobs.leave(ask.Job) }

// shares are the engine's time that the owner and the job have had, that of the
// turns under way included.
func (q *Queue) shares(ask Ask, now time.Time) (owner, job time.Duration) {
	account := q.owners.accounts[ask.Owner]
	owner, job = account.served, account.jobs.accounts[ask.Job].served
	for _, t := range q.running {
		if t == nil || t.ask.Owner != ask.Owner {
			continue
		}
		owner += now.Sub(t.began)
		if t.ask.Job == ask.Job {
			job += now.Sub(t.began)
		}
	}
	return owner, job
}
