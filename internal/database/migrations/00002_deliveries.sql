-- Jobs whose recording is fetched from a URL, and those whose end is told to one.
-- A delivery is one message about the end of a job; it is stored in the
-- transaction that ends the job, and leased to whoever sends it. announced is
-- which end of the job has its delivery: the value of ended at that time.

-- +goose Up
ALTER TABLE jobs ADD COLUMN source TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN webhook TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN announced BIGINT NOT NULL DEFAULT 0;

CREATE TABLE deliveries (
	id          TEXT   NOT NULL PRIMARY KEY,
	job_id      TEXT   NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
	event       TEXT   NOT NULL,
	url         TEXT   NOT NULL,
	state       TEXT   NOT NULL,
	created     BIGINT NOT NULL,
	due         BIGINT NOT NULL,
	ended       BIGINT NOT NULL DEFAULT 0,
	attempts    BIGINT NOT NULL DEFAULT 0,
	error       TEXT   NOT NULL DEFAULT '',
	instance    TEXT   NOT NULL DEFAULT '',
	worker      TEXT   NOT NULL DEFAULT '',
	lease_until BIGINT NOT NULL DEFAULT 0
);

CREATE INDEX deliveries_due ON deliveries (state, due);
CREATE INDEX deliveries_job ON deliveries (job_id);
CREATE INDEX jobs_unannounced ON jobs (state) WHERE webhook <> '' AND announced <> ended;
