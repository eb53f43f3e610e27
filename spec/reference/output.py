"""Write vector files: JSON that people can read and that never differs between two runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spec.reference.refused import Refused

__all__ = ["Case", "dump", "invalid", "valid", "vector_file", "write"]

Case = dict[str, Any]


def valid(case_id: str, comment: str, given: Case, output: object, *, flags: tuple[str, ...] = ()) -> Case:
    """A case that a peer must answer with `output`."""
    return _case(case_id, comment, flags) | {"result": "valid", "input": given, "output": output}


def invalid(case_id: str, comment: str, given: Case, refusal: Refused, *, flags: tuple[str, ...] = ()) -> Case:
    """A case with exactly one fault, which a peer must refuse for the reason of `refusal`."""
    head = _case(case_id, comment, flags)
    return head | {"result": "invalid", "rule": refusal.rule, "clause": refusal.clause, "input": given}


def _case(case_id: str, comment: str, flags: tuple[str, ...]) -> Case:
    return {"id": case_id, "comment": comment, "flags": list(flags)}


def vector_file(op: str, clause: str, comment: str, cases: list[Case]) -> Case:
    """A whole file; `op` is the operation of peer-under-test that its cases are given to."""
    ids = [case["id"] for case in cases]
    repeated = {i for i in ids if ids.count(i) > 1}
    if repeated:
        raise ValueError(f"{op}: case ids repeat: {sorted(repeated)}")
    schema = f"../schemas/vectors/{op}.schema.json"
    return {"schema": schema, "op": op, "clause": clause, "comment": comment, "cases": cases}


def dump(value: object, indent: int = 0) -> str:
    """JSON with one space per level; lists of plain values stay on one line."""
    pad = "\n" + " " * (indent + 1)
    end = "\n" + " " * indent
    if isinstance(value, dict) and value:
        parts = [f"{json.dumps(key)}: {dump(item, indent + 1)}" for key, item in value.items()]
        return "{" + pad + ("," + pad).join(parts) + end + "}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return "[" + pad + ("," + pad).join(dump(item, indent + 1) for item in value) + end + "]"
    return json.dumps(value, allow_nan=False)


def write(folder: Path, files: dict[str, Case]) -> None:
    """Write every file under `folder` by name."""
    for name, content in files.items():
        (folder / name).write_text(dump(content) + "\n", encoding="ascii", newline="\n")
