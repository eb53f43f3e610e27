"""Write spec/schemas: `python -m spec.generate_schemas`.

Documents and signaling messages come from the structs that decode them, so that a schema cannot say something else;
decoded p2psa/1 messages and vector files are described in `spec.vector_schemas`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec

from protocol.envelope import Envelope
from protocol.manifest import DatasetSchema, PlanManifest
from protocol.signaling import FromPeer, FromServer
from protocol.terms import RunTerms
from spec.vector_schemas import message_schema, vector_schemas

__all__ = ["all_schemas"]

FOLDER = Path(__file__).resolve().parent / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
BASE64 = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"

Schema = dict[str, Any]

DOCUMENTS: dict[str, tuple[Any, str]] = {
    "plan-manifest": (PlanManifest, "Plan manifest (spec 05)"),
    "run-terms": (RunTerms, "Run terms (spec 06 §1)"),
    "dsse-envelope": (Envelope, "DSSE envelope with one signature (spec 02 §2)"),
    "dataset": (DatasetSchema, "What a node advertises of one dataset (spec 03)"),
}


def _struct_schema(kind: Any, title: str) -> Schema:
    generated: Schema = _with_base64(msgspec.json.schema(kind))
    return {"$schema": DIALECT, "title": title} | generated


def _with_base64(node: Any) -> Any:
    """Say as a pattern what `contentEncoding` only hints at."""
    if isinstance(node, list):
        return [_with_base64(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {key: _with_base64(value) for key, value in node.items()}
    return out | {"pattern": BASE64} if out.get("contentEncoding") == "base64" else out


def all_schemas() -> Iterator[tuple[str, Schema]]:
    """Every schema with its path under spec/schemas/."""
    for name, (kind, title) in DOCUMENTS.items():
        yield f"{name}.schema.json", _struct_schema(kind, title)
    for union in (FromPeer, FromServer):
        for kind in get_args(union):
            tag = kind.__struct_config__.tag
            yield f"signaling/{tag}.schema.json", _struct_schema(kind, f"Signaling message {tag} (spec 03)")
    yield "p2psa-message.schema.json", {"$schema": DIALECT} | message_schema()
    for op, schema in vector_schemas().items():
        yield f"vectors/{op}.schema.json", {"$schema": DIALECT} | schema


def encode(schema: Schema) -> str:
    """The bytes of a schema file as text."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write every file."""
    for name, schema in all_schemas():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(encode(schema), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
