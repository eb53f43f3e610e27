-- Runs taken part in, their checkpoints (the bytes lie in models/), the journal of rounds, and signed receipts.
CREATE TABLE runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL UNIQUE,
    terms BLOB NOT NULL,
    plan BLOB NOT NULL,
    dataset TEXT NOT NULL
);

CREATE TABLE checkpoints (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL,
    round INTEGER NOT NULL,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    UNIQUE (run, round)
);
CREATE INDEX checkpoints_by_digest ON checkpoints (digest);

CREATE TABLE journal (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    round_id TEXT NOT NULL,
    entry TEXT NOT NULL,
    detail TEXT NOT NULL,
    written_at REAL NOT NULL
);
CREATE INDEX journal_by_round ON journal (round_id);

CREATE TABLE receipts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL,
    envelope BLOB NOT NULL UNIQUE
);
CREATE INDEX receipts_by_run ON receipts (run);
