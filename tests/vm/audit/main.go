// Command audit looks at an appliance's database in a virtual machine, where
// there is no other program that could: is the file whole, and is of each job
// every window there, once. It says what is wrong, a line for each, and exits
// with 1 then; else how much there is.
//
// It trusts its one argument, the file, and is to be run as the user whose file
// that is. It writes nothing but SQLite's own files beside it.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// limit is for all of it.
const limit = time.Minute

// check is a query of which each row is something wrong.
type check struct{ wrong, query string }

func checks() []check {
	return []check{
		{"the file is damaged", "SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'"},
		{"a row points nowhere", `SELECT "table" FROM pragma_foreign_key_check`},
		{"job with another number of windows than it counts", "SELECT id FROM jobs WHERE windows_done <> (SELECT count(*) FROM windows WHERE job_id = id)"},
		{"job of which a window is missing", "SELECT job_id FROM windows GROUP BY job_id HAVING max(idx) + 1 <> count(*)"},
		{"job with a stretch of sound in two windows", `SELECT DISTINCT one.job_id FROM windows AS one JOIN windows AS two
		ON two.job_id = one.job_id AND two.idx > one.idx AND two.start_ns < one.end_ns`},
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "audit:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return errors.New("usage: audit FILE")
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	sums, err := audit(ctx, os.Args[1])
	if sums != "" {
		fmt.Println(sums)
	}
	return err
}

// audit gives how much there is, and an error with all that is wrong.
func audit(ctx context.Context, file string) (sums string, err error) {
	if _, err := os.Stat(file); err != nil { // it would be made
		return "", err
	}
	where := url.URL{Scheme: "file", Path: file, RawQuery: "_pragma=busy_timeout(5000)&_pragma=query_only(1)"}
	db, err := sql.Open("sqlite", where.String())
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var found error
	for _, c := range checks() {
		found = errors.Join(found, list(ctx, db, c.wrong, c.query))
	}
	var jobs, windows int
	const all = "SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM windows)"
	if err := db.QueryRowContext(ctx, all).Scan(&jobs, &windows); err != nil {
		return "", errors.Join(found, err)
	}
	return fmt.Sprintf("%d jobs, %d windows", jobs, windows), found
}

// list is an error with what a query finds.
func list(ctx context.Context, db *sql.DB, wrong, query string) (found error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return fmt.Errorf("%s: %w", wrong, err)
	}
	defer rows.Close()
	for rows.Next() {
		var what string
		if err := rows.Scan(&what); err != nil {
			return errors.Join(found, err)
		}
		found = errors.Join(found, fmt.Errorf("%s: %s", wrong, what))
	}
	return errors.Join(found, rows.Err())
}
