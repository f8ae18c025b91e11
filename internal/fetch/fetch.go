// Package fetch brings releases to this machine: the signed metadata of a
// repository, and one artefact that they list, from the first of several
// sources that has both.
//
// It trusts the root of trust that it is given, and no byte that comes from a
// source: metadata are verified before they are kept, and an artefact is read
// back from the disk and held against its signed digest before it has its name.
// Whoever installs releases verifies all of it again. It writes into one
// directory, its own:
//
//	repository/metadata, repository/targets   what it brought, laid out as a source is
//	trust/                                    what it trusted last, so that no source takes it back
//	result.json                               how it went, always there and whole
//	lock
//
// A transfer that broke off leaves targets/NAME.part, with which the next run
// goes on; the size of that file is how far it is.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/trust"
)

// Fetcher carries out requests. The zero values of all fields but Dir and Root
// are defaults.
type Fetcher struct {
	Dir  string // see the package's comment
	Root []byte // the root of trust, TUF metadata

	Agent  string                                                       // User-Agent; "" = "whisper-appliance-fetch"
	Client *http.Client                                                 // nil = NewClient(); its CheckRedirect is replaced by this package's
	Log    *slog.Logger                                                 // nil = none
	Free   func(dir string) (bytes int64, _ error)                      // nil = durable.Free
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error) // nil = the system's resolver
	Now    func() time.Time                                             // nil = time.Now

	Pause time.Duration // before the second attempt, doubled for each after it; 0 = 1 s
	Stall time.Duration // without a byte before an attempt is given up; 0 = 60 s
	Limit time.Duration // for all that is asked of one source; 0 = 4 h

	// MetadataLimit is for the metadata of one source, which are small: whoever
	// waits for them keeps everybody else from changing the appliance. 0 = 2 min.
	MetadataLimit time.Duration
}

// MetadataLimit is how long a source may take for its metadata.
const MetadataLimit = 2 * time.Minute

func (f Fetcher) withDefaults() *Fetcher {
	if f.Agent == "" {
		f.Agent = "whisper-appliance-fetch"
	}
	if f.Client == nil {
		f.Client = NewClient()
	}
	client := *f.Client
	if f.Lookup == nil {
		f.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	client.CheckRedirect = redirects{f.Lookup}.check
	f.Client = &client
	if f.Log == nil {
		f.Log = slog.New(slog.DiscardHandler)
	}
	if f.Free == nil {
		f.Free = durable.Free
	}
	if f.Now == nil {
		f.Now = time.Now
	}
	for of, value := range map[*time.Duration]time.Duration{&f.Pause: time.Second, &f.Stall: time.Minute, &f.Limit: 4 * time.Hour, &f.MetadataLimit: MetadataLimit} {
		if *of == 0 {
			*of = value
		}
	}
	return &f
}

// RunFile is Run for the request in a file.
func (f *Fetcher) RunFile(ctx context.Context, path string) (Result, error) {
	return f.withDefaults().run(ctx, func() (Request, error) { return ReadRequest(path) })
}

// Fail keeps err as the result of a run that cannot begin, and gives it back.
func (f *Fetcher) Fail(err error) error {
	_, err = f.withDefaults().run(context.Background(), func() (Request, error) { return Request{}, err })
	return err
}

// Run carries out one request and keeps the result. The error says why the
// request was not fulfilled, and is in the result, too. It is a fault:
// "fetch_busy" (which alone leaves no result), "bad_request", "no_source",
// "bad_source", "source_unreachable", "source_refused", "bad_redirect",
// "too_slow", "artefact_missing", "artefact_damaged", "disk_full",
// "fetch_not_writable", "canceled", or one of trust.Store.Refresh.
func (f *Fetcher) Run(ctx context.Context, r Request) (Result, error) {
	return f.withDefaults().run(ctx, func() (Request, error) { return r, r.check() })
}

func (f *Fetcher) run(ctx context.Context, read func() (Request, error)) (Result, error) {
	unlock, err := f.lock()
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	req, err := read()
	res := Result{Target: req.Target, Tried: []Try{}}
	if err != nil {
		return f.ended(res, err)
	}
	// Who is killed must not leave the success of a run before as its own.
	broken := res
	broken.Error = &Failure{Code: "interrupted", Message: "the fetcher was ended before it was done", Hint: "start it again: it goes on where it was"}
	if err := f.keepResult(broken); err != nil {
		return res, err
	}
	err = f.fromSources(ctx, req, &res)
	if err != nil && ctx.Err() != nil {
		err = fault.New(fault.Canceled, "canceled", "the fetcher was told to stop").Try("start it again: it goes on where it was")
	}
	return f.ended(res, err)
}

// ended keeps how it went.
func (f *Fetcher) ended(res Result, err error) (Result, error) {
	if err != nil {
		res.Error = failure(err)
	}
	if kept := f.keepResult(res); kept != nil {
		return res, errors.Join(err, kept)
	}
	return res, err
}

// fromSources asks one source after the other. What a later one is told of
// the index by an earlier one counts, too: an artefact is known by its digest,
// wherever it comes from.
func (f *Fetcher) fromSources(ctx context.Context, req Request, res *Result) error {
	var known *trust.Index
	var reason error
	for _, address := range req.Sources {
		res.Source = fault.Address(address)
		from, err := f.origin(address)
		if err == nil {
			err = f.fromSource(ctx, from, req, res, &known)
		}
		if err == nil {
			f.Log.Info("fetched", "source", res.Source, "index", res.Index, "target", res.Target, "bytes", res.Bytes, "resumed", res.Resumed)
			return nil
		}
		if reason = moreTelling(reason, err); ctx.Err() != nil {
			break
		}
		why := failure(err)
		res.Tried = append(res.Tried, Try{Source: res.Source, Code: why.Code, Message: why.Message})
		f.Log.Warn("source of no use", "source", res.Source, "code", why.Code, "error", why.Message)
		if isLocal(err) {
			reason = err
			break
		}
	}
	res.Source = ""
	return reason
}

// isLocal tells a failure of this machine, which no other source mends.
func isLocal(err error) bool {
	switch fault.KindOf(err) {
	case fault.NoSpace, fault.Forbidden, fault.Internal, fault.Conflict:
		return true
	}
	return false
}

// moreTelling is the error of several sources that people have to know of: one
// that was reached and gave something wrong before one that was not reached.
func moreTelling(one, other error) error {
	if one == nil || fault.KindOf(one) == fault.Unavailable && fault.KindOf(other) != fault.Unavailable {
		return other
	}
	return one
}

// fromSource fulfils the request from one source, in bounded time.
func (f *Fetcher) fromSource(ctx context.Context, from origin, req Request, res *Result, known **trust.Index) error {
	ctx, cancel := within(ctx, f.Limit)
	defer cancel()
	soon, enough := within(ctx, f.MetadataLimit)
	index, err := f.mirror(soon, from)
	enough()
	if err != nil && (*known == nil || fault.KindOf(err) == fault.Unavailable || isLocal(err)) {
		return err
	}
	if err == nil {
		*known = index
	}
	index = *known
	res.Index = index.Version
	if req.Target == "" {
		return nil
	}
	for _, o := range index.Offers {
		if o.Target == req.Target {
			return f.artefact(ctx, from, o, req.Most, res)
		}
	}
	return missing(req.Target)
}

// within is ctx for something that a source may take so long for.
func within(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	slow := fault.New(fault.Unavailable, "too_slow", "the source took longer than %v", limit).Try("name a faster source, or allow more bytes a second")
	return context.WithTimeoutCause(ctx, limit, slow)
}

func missing(target string) error {
	return fault.New(fault.NotFound, "artefact_missing", "the source has no %s", target).On("target").
		Try("see what is on offer: `whisper-appliance update check`; a mirror may be incomplete")
}

// lock keeps a second fetcher out of the directory.
func (f *Fetcher) lock() (unlock func(), err error) {
	path := filepath.Join(f.Dir, "lock")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, f.cannotWrite(err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fault.New(fault.Busy, "fetch_busy", "another fetcher works in %s", f.Dir).Try("wait until it has ended")
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { file.Close() }, nil
}
