-- Signed plans, the blobs they list, runs of them, cohorts of open rounds, and the round log.
CREATE TABLE plans (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    plan TEXT NOT NULL UNIQUE,
    author TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    envelope BLOB NOT NULL,
    published_at REAL NOT NULL
);
CREATE INDEX plans_by_author ON plans (author);

CREATE TABLE plan_blobs (
    plan TEXT NOT NULL REFERENCES plans (plan),
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (plan, digest)
) WITHOUT ROWID;
CREATE INDEX plan_blobs_by_digest ON plan_blobs (digest);

CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL UNIQUE,
    plan TEXT NOT NULL REFERENCES plans (plan),
    author TEXT NOT NULL,
    name TEXT NOT NULL,
    envelope BLOB NOT NULL,
    rounds INTEGER NOT NULL,
    everyone INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    round INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    model_digest TEXT NOT NULL,
    opened_at REAL NOT NULL
);
CREATE INDEX runs_by_state ON runs (state);
CREATE INDEX runs_by_plan ON runs (plan);

CREATE TABLE run_members (
    run TEXT NOT NULL REFERENCES runs (run),
    peer TEXT NOT NULL,
    PRIMARY KEY (run, peer)
) WITHOUT ROWID;

CREATE TABLE attempts (
    run TEXT NOT NULL REFERENCES runs (run),
    round INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    cohort TEXT NOT NULL,
    opened_at REAL NOT NULL,
    PRIMARY KEY (run, round, attempt)
) WITHOUT ROWID;

CREATE TABLE round_log (
    run TEXT NOT NULL REFERENCES runs (run),
    round INTEGER NOT NULL,
    entry BLOB NOT NULL,
    PRIMARY KEY (run, round)
) WITHOUT ROWID;
