package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"whisper-appliance/internal/fault"
)

func TestTroubles(t *testing.T) {
	shared, local := &DB{where: "the database x"}, &DB{where: "f", file: "f"}
	state := func(code string) error { return fmt.Errorf("insert: %w", &pgconn.PgError{Code: code, Message: "says"}) }
	for _, k := range []struct {
		d    *DB
		err  error
		want string // code; "" = left as it is
		lost bool   // and is begun again
	}{
		{shared, state("57P01"), "database_unreachable", true},
		{shared, state("08006"), "database_unreachable", true},
		{shared, &commitError{state("57P01")}, "database_unreachable", false},
		{shared, &commitError{io.ErrUnexpectedEOF}, "database_unreachable", false},
		{shared, io.ErrUnexpectedEOF, "database_unreachable", true},
		{shared, driver.ErrBadConn, "database_unreachable", true},
		{shared, state("40001"), "database_busy", true},
		{shared, &commitError{state("40001")}, "database_busy", true},
		{shared, state("40003"), "database_busy", false},
		{shared, state("53300"), "database_busy", false},
		{shared, state("28P01"), "database_refused", false},
		{shared, state("42501"), "database_refused", false},
		{shared, state("53100"), "database_full", false},
		{shared, state("25006"), "database_not_writable", false},
		{shared, state("58030"), "database_disk_fails", false},
		{shared, state("XX001"), "database_damaged", false},
		{shared, state("42P01"), "", false},
		{shared, sql.ErrNoRows, "", false},
		{shared, fault.New(fault.Conflict, "mine", "mine"), "mine", false},
		{local, io.ErrUnexpectedEOF, "", false},
		{local, fmt.Errorf("write: %w", syscall.ENOSPC), "database_full", false},
		{local, &damaged{"row 3 missing"}, "database_damaged", false},
	} {
		err := k.d.fault(ctx, k.err)
		if code(err) != k.want || k.d.lost(k.err) != k.lost || !errors.Is(err, k.err) {
			t.Errorf("%v: %v, lost %v", k.err, err, k.d.lost(k.err))
		}
		if strings.HasPrefix(k.want, "database_") && (fault.Hint(err) == "" || !strings.Contains(err.Error(), k.d.where)) {
			t.Errorf("%v says too little: %s", err, fault.Hint(err))
		}
	}
	for result, want := range map[int]trouble{5: busy, 261: busy, 8: readOnly, 1032: readOnly, 14: readOnly, 10: failing, 778: failing, 11: corrupt, 26: corrupt, 13: full, 19: unknown} {
		if got := ofSQLite(result); got != want {
			t.Errorf("result code %d: %v, want %v", result, got, want)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := shared.fault(ended, io.ErrUnexpectedEOF); code(err) != "" {
		t.Errorf("what the caller ended: %v", err)
	}
}

// TestATransactionIsBegunAgain, from its beginning, and not for ever.
func TestATransactionIsBegunAgain(t *testing.T) {
	d := &DB{where: "the database x"}
	for _, k := range []struct{ fails, runs int }{{0, 1}, {2, 3}, {attempts - 1, attempts}, {99, attempts}} {
		runs := 0
		err := d.again(ctx, func() error {
			if runs++; runs <= k.fails {
				return io.ErrUnexpectedEOF
			}
			return nil
		})
		if runs != k.runs || (err != nil) != (k.fails >= attempts) {
			t.Errorf("%d failures: %d runs, %v", k.fails, runs, err)
		}
	}
}
