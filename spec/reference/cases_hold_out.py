"""Vectors of the hold-out: hold-out.json."""

from __future__ import annotations

from spec.reference.judge import bad, good
from spec.reference.output import Case, vector_file

__all__ = ["hold_out_files"]


def _given(examples: int, fraction: float) -> Case:
    return {"examples": examples, "fraction": fraction}


def hold_out_files() -> dict[str, Case]:
    """Files by name."""
    op = "hold-out"
    cases = [
        good(op, "20", "a quarter of twenty", _given(20, 0.25), "check-value"),
        good(op, "none", "nothing is held out", _given(20, 0.0)),
        good(op, "37", "7.4 examples are seven", _given(37, 0.2)),
        good(op, "tie-down", "2.5 examples are two, the even one", _given(5, 0.5)),
        good(op, "tie-up", "3.5 examples are four, the even one", _given(7, 0.5)),
        good(op, "tie-binary64", "0.1 of 35 is 3.5 in binary64, though the binary64 0.1 is more", _given(35, 0.1)),
        good(op, "below-tie", "0.7 of 45 is less than 31.5 in binary64", _given(45, 0.7)),
        good(op, "least", "never less than one", _given(2, 0.001)),
        good(op, "most", "one is left to train on", _given(9, 0.9)),
        good(op, "1797", "as many as scikit-learn's digits", _given(1797, 0.2)),
        good(op, "70000", "more than 16 bits of index", _given(70000, 0.005)),
        bad(op, "negative", "less than nothing", _given(20, -0.1), "hold-out-fraction"),
        bad(op, "whole", "a fraction of one", _given(20, 1.0), "hold-out-fraction"),
        bad(op, "all", "of two examples, 0.9 are both", _given(2, 0.9), "hold-out-all"),
        bad(op, "only-one", "the only example", _given(1, 0.5), "hold-out-all"),
    ]
    return {
        "hold-out.json": vector_file(op, "05 §6", "Number of examples and fraction to the indexes held out", cases)
    }
