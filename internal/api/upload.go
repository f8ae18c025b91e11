package api

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"whisper-appliance/internal/fault"
)

// Upload is a recording that arrives in pieces.
type Upload struct {
	ID      string            `json:"id"`
	Bytes   int64             `json:"bytes" doc:"Of the whole recording."`
	Offset  int64             `json:"offset" doc:"Bytes that are here: where the next piece begins."`
	Fields  map[string]string `json:"fields" doc:"As Upload-Metadata had them."`
	Created time.Time         `json:"created"`
	Expires time.Time         `json:"expires" doc:"When it is removed unless more comes."`
	Job     string            `json:"job,omitempty" doc:"Id of the job that it has become, once all of it is here."`
}

// uploadsPath is where uploads are, each behind a slash and its id.
const uploadsPath = "/api/v1/uploads"

// standardPiece is how much goes into one request, in bytes: what is lost at most
// where a proxy keeps a request until it is whole.
const standardPiece = 32 << 20

// CreateUpload begins an upload of size bytes, of which nothing is sent yet. What
// is wanted of it is looked at now.
func (c *Client) CreateUpload(ctx context.Context, q NewJob, size int64) (u Upload, err error) {
	req, err := c.tus(ctx, http.MethodPost, "", nil)
	if err != nil {
		return u, err
	}
	var meta []string
	for _, field := range append(q.fields(), [2]string{"filename", q.name()}) {
		if field[1] != "" {
			meta = append(meta, field[0]+" "+base64.StdEncoding.EncodeToString([]byte(field[1])))
		}
	}
	req.Header.Set("Upload-Length", strconv.FormatInt(size, 10))
	req.Header.Set("Upload-Metadata", strings.Join(meta, ","))
	if q.Key != "" {
		req.Header.Set(idempotencyHeader, q.Key)
	}
	return u, c.decode(req, &u)
}

// Upload tells where an upload is. Fault: unknown_upload (NotFound), where it
// has been removed.
func (c *Client) Upload(ctx context.Context, id string) (u Upload, err error) {
	req, err := c.tus(ctx, http.MethodGet, id, nil)
	if err != nil {
		return u, err
	}
	return u, c.decode(req, &u)
}

// Sending is how an upload is sent.
type Sending struct {
	From  io.ReaderAt
	Piece int64                                // bytes in one request; 0 = 32 MiB
	Sent  func(done, size int64)               // is told how much has been sent
	Away  func(why error, again time.Duration) // the connection broke; it is tried again
	Retry Retry
}

// Send sends what an upload lacks, and goes on where it was when the connection
// breaks. It gives the id of the job that the upload has become.
func (c *Client) Send(ctx context.Context, id string, s Sending) (job string, err error) {
	if s.Piece == 0 {
		s.Piece = standardPiece
	}
	retry := s.Retry.begin()
	before := int64(-1)
	for {
		u, err := c.Upload(ctx, id)
		if err == nil && u.Job != "" {
			return u.Job, nil
		}
		if err == nil && u.Offset > before {
			retry.well()
		}
		if err == nil {
			before = u.Offset
			if err = c.piece(ctx, u, s); err == nil {
				continue
			}
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		pause, more := retry.after(err)
		if !more {
			return "", err
		}
		if s.Away != nil {
			s.Away(err, pause)
		}
		if !rest(ctx, pause) {
			return "", context.Cause(ctx)
		}
	}
}

// piece sends the next piece of an upload.
func (c *Client) piece(ctx context.Context, u Upload, s Sending) error {
	n := min(s.Piece, u.Bytes-u.Offset)
	body := &counter{r: io.NewSectionReader(s.From, u.Offset, n), sent: func(done int64) { s.Sent(u.Offset+done, u.Bytes) }}
	req, err := c.tus(ctx, http.MethodPatch, u.ID, body)
	if err != nil {
		return err
	}
	req.ContentLength = n
	req.Header.Set("Content-Type", "application/offset+octet-stream")
	req.Header.Set("Upload-Offset", strconv.FormatInt(u.Offset, 10))
	req.Header.Set("Expect", "100-continue")
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// tus is a request of the protocol for an upload, or with no id for all of them.
func (c *Client) tus(ctx context.Context, method, id string, body io.Reader) (*http.Request, error) {
	path := uploadsPath
	if id != "" {
		if strings.ContainsAny(id, "/?#%") {
			return nil, fault.New(fault.Internal, "bad_upload_id", "the server's id of the upload is %s", fault.Short(id))
		}
		path += "/" + id
	}
	req, err := http.NewRequestWithContext(ctx, method, c.Base+path, body)
	if err == nil {
		req.Header.Set("Tus-Resumable", "1.0.0")
	}
	return req, err
}
