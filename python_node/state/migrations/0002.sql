-- A node's own parameters of a run (spec 05 §2): part of no model, and never sent.
CREATE TABLE local_values (
    run TEXT PRIMARY KEY,
    vector BLOB NOT NULL
);
