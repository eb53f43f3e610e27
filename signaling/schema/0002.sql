CREATE TABLE placed_attempts (
    run TEXT NOT NULL REFERENCES runs (run),
    round INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    level INTEGER NOT NULL,
    place INTEGER NOT NULL,
    cohort TEXT NOT NULL,
    combining TEXT,
    opened_at REAL NOT NULL,
    PRIMARY KEY (run, round, attempt, level, place)
) WITHOUT ROWID;
INSERT INTO placed_attempts SELECT run, round, attempt, 0, 0, cohort, NULL, opened_at FROM attempts;
DROP TABLE attempts;
ALTER TABLE placed_attempts RENAME TO attempts;
