"""What the schemas of messages and of vector files are put together from."""

from __future__ import annotations

from typing import Any

__all__ = [
    "BOOLEAN",
    "COMBINING_PARAMETERS",
    "COUNT",
    "ELEMENTS",
    "HEX",
    "HEX32",
    "HEX64",
    "INDEX",
    "INTEGERS",
    "NUMBER",
    "PARAMETERS",
    "PLACE",
    "RING_BITS",
    "SET",
    "STRING",
    "U8",
    "Schema",
    "array",
    "const",
    "hexadecimal",
    "record",
]

Schema = dict[str, Any]

HEX: Schema = {"type": "string", "pattern": "^(?:[0-9a-f]{2})*$"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
U8: Schema = {"type": "integer", "minimum": 0, "maximum": 255}
INDEX: Schema = {"type": "integer", "minimum": 0, "maximum": 63}
RING_BITS: Schema = {"enum": [16, 20, 24, 32]}
BOOLEAN: Schema = {"type": "boolean"}
STRING: Schema = {"type": "string"}


def hexadecimal(size: int) -> Schema:
    """So many bytes in lower-case hexadecimal."""
    return {"type": "string", "pattern": f"^[0-9a-f]{{{2 * size}}}$"}


def array(items: Schema, **bounds: int) -> Schema:
    """A list of such items."""
    return {"type": "array", "items": items} | bounds


def record(**fields: Schema) -> Schema:
    """An object of exactly these members."""
    required = list(fields)
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


def const(value: object) -> Schema:
    """One value."""
    return {"const": value}


HEX32, HEX64 = hexadecimal(32), hexadecimal(64)
SET = array(INDEX, maxItems=64) | {"uniqueItems": True}
INTEGERS = array({"type": "integer"})
ELEMENTS = array({"type": "integer", "minimum": 0})
PLACE = record(level=COUNT, group=COUNT)
_PARAMETERS: dict[str, Schema] = {
    "min_survivors": COUNT,
    "ring_bits": RING_BITS,
    "value_bits": COUNT,
    "replicas": {"enum": [1, 2]},
    "elements": COUNT,
    "clip": NUMBER,
    "run_id": HEX32,
    "cohort": array(HEX32, minItems=3, maxItems=64),
}
PARAMETERS = record(**_PARAMETERS)
COMBINING_PARAMETERS = record(**_PARAMETERS, multiplicity=COUNT, sources=array(COUNT, maxItems=64))
