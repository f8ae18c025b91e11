-- Jobs and the windows of them that are done. Times are milliseconds since
-- 1970, UTC, and 0 where there is none; durations are nanoseconds. What is
-- opaque to the store is JSON in TEXT, empty where there is none.

-- +goose Up
CREATE TABLE jobs (
	id              TEXT   NOT NULL PRIMARY KEY,
	owner           TEXT   NOT NULL DEFAULT '',
	class           BIGINT NOT NULL DEFAULT 0,
	state           TEXT   NOT NULL,
	created         BIGINT NOT NULL,
	queued          BIGINT NOT NULL,
	started         BIGINT NOT NULL DEFAULT 0,
	ended           BIGINT NOT NULL DEFAULT 0,
	deadline        BIGINT NOT NULL DEFAULT 0,
	idempotency_key TEXT   NOT NULL DEFAULT '',
	digest          TEXT   NOT NULL DEFAULT '',
	name            TEXT   NOT NULL DEFAULT '',
	model           TEXT   NOT NULL DEFAULT '',
	media           TEXT   NOT NULL DEFAULT '',
	media_sha256    TEXT   NOT NULL DEFAULT '',
	bytes           BIGINT NOT NULL DEFAULT 0,
	duration_ns     BIGINT NOT NULL DEFAULT 0,
	request         TEXT   NOT NULL DEFAULT '',
	plan            TEXT   NOT NULL DEFAULT '',
	language        TEXT   NOT NULL DEFAULT '',
	windows_done    BIGINT NOT NULL DEFAULT 0,
	windows_total   BIGINT NOT NULL DEFAULT 0,
	done_ns         BIGINT NOT NULL DEFAULT 0,
	attempts        BIGINT NOT NULL DEFAULT 0,
	crashes         BIGINT NOT NULL DEFAULT 0,
	cancel_asked    BIGINT NOT NULL DEFAULT 0,
	instance        TEXT   NOT NULL DEFAULT '',
	worker          TEXT   NOT NULL DEFAULT '',
	lease_until     BIGINT NOT NULL DEFAULT 0,
	result          TEXT   NOT NULL DEFAULT '',
	failure         TEXT   NOT NULL DEFAULT ''
);

CREATE TABLE windows (
	job_id   TEXT   NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
	idx      BIGINT NOT NULL,
	start_ns BIGINT NOT NULL,
	end_ns   BIGINT NOT NULL,
	result   TEXT   NOT NULL DEFAULT '',
	stored   BIGINT NOT NULL,
	PRIMARY KEY (job_id, idx)
);

-- A key belongs to one job of its owner, until that job fails or is canceled.
CREATE UNIQUE INDEX jobs_key ON jobs (owner, idempotency_key)
	WHERE idempotency_key <> '' AND state IN ('queued', 'running', 'done');

CREATE INDEX jobs_state ON jobs (state, ended);
CREATE INDEX jobs_owner ON jobs (owner, id);
