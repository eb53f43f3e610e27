"""JSON Schemas of decoded p2psa/1 messages (spec 07 §3) and of every vector file."""

from __future__ import annotations

from typing import Any

__all__ = ["message_schema", "vector_schemas"]

Schema = dict[str, Any]

HEX: Schema = {"type": "string", "pattern": "^(?:[0-9a-f]{2})*$"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
U8: Schema = {"type": "integer", "minimum": 0, "maximum": 255}
INDEX: Schema = {"type": "integer", "minimum": 0, "maximum": 63}
RING_BITS: Schema = {"enum": [16, 20, 24, 32]}
BOOLEAN: Schema = {"type": "boolean"}
STRING: Schema = {"type": "string"}


def _hex(size: int) -> Schema:
    return {"type": "string", "pattern": f"^[0-9a-f]{{{2 * size}}}$"}


def _list(items: Schema, **bounds: int) -> Schema:
    return {"type": "array", "items": items} | bounds


def _object(**fields: Schema) -> Schema:
    required = list(fields)
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


def _const(value: object) -> Schema:
    return {"const": value}


HEX32, HEX64 = _hex(32), _hex(64)
SET = _list(INDEX, maxItems=64) | {"uniqueItems": True}
DECIDED = _list(_hex(150), maxItems=255)

MESSAGES: dict[str, dict[str, Schema]] = {
    "advert": {
        "t0": HEX32,
        "mask_key": HEX32,
        "enc_key": HEX32,
        "seed_commitment": HEX32,
        "fingerprint": HEX32,
        "signature": HEX64,
    },
    "decide": {
        "kind": {"type": "integer", "minimum": 1, "maximum": 4},
        "view": U8,
        "base": HEX32,
        "set": SET,
        "root": HEX32,
        "signature": HEX64,
    },
    "share": {"box": _hex(81)},
    "ack": {"view": U8, "held": SET},
    "commit": {"t2": HEX32, "chunks": _list(HEX32, minItems=1, maxItems=64), "signature": HEX64},
    "have": {
        "view": U8,
        "commits": SET,
        "chunks": _list(_object(chunk=INDEX, contributors=SET), maxItems=64),
    },
    "vote": {"t2": HEX32, "survivors": SET, "root": HEX32, "signature": HEX64},
    "certificate": {
        "t2": HEX32,
        "survivors": SET,
        "root": HEX32,
        "voters": SET,
        "signatures": _list(HEX64, maxItems=64),
    },
    "reveal": {
        "b": {"anyOf": [HEX32, {"type": "null"}]},
        "shares": _list(_object(about=INDEX, kind={"enum": ["b", "sk"]}, share=HEX32), maxItems=64),
    },
    "result": {"model": HEX32, "tail": HEX32, "survivors": SET, "signature": HEX64},
    "status": {"view": U8, "decisions": DECIDED},
    "forward": {"message": HEX},
    "need": {"what": {"type": "integer", "minimum": 1, "maximum": 4}, "set": SET},
    "assign": {"view": U8, "chunk": INDEX, "owner": INDEX},
    "abort": {"reason": U8},
    "chunk": {"chunk": INDEX, "packed": HEX},
    "sum": {"chunk": INDEX, "signature": HEX64, "packed": HEX},
}


def message_schema() -> Schema:
    """Every message of p2psa/1 in the decoded form of the vectors."""
    kinds = [_object(type=_const(name), sender=INDEX, **fields) for name, fields in MESSAGES.items()]
    return {"title": "Decoded p2psa/1 message (spec 07 §3)", "oneOf": kinds}


CONTEXT = _object(peers=COUNT, round_id=HEX32, ring_bits=RING_BITS, elements=COUNT, masked=COUNT)
PARAMETERS = _object(
    min_survivors=COUNT,
    ring_bits=RING_BITS,
    value_bits=COUNT,
    replicas={"enum": [1, 2]},
    elements=COUNT,
    clip=NUMBER,
    run_id=HEX32,
    cohort=_list(HEX32, minItems=3, maxItems=64),
)
GROUPS = _list(_object(weight=COUNT, means=_list(NUMBER), bounds=_list(NUMBER)), maxItems=2)
RANDOMS = _list({"type": "integer", "minimum": 0, "maximum": 2**24 - 1})
RANGES = _list(_list(COUNT, minItems=2, maxItems=2), minItems=1)
INTEGERS = _list({"type": "integer"})
ELEMENTS = _list({"type": "integer", "minimum": 0})

ANNOUNCEMENT = _object(
    parameters=PARAMETERS,
    round={"type": "integer", "minimum": 1},
    attempt={"type": "integer", "minimum": 1},
    plan_digest=HEX32,
    theta=HEX,
    buffers=HEX,
    model_digest=HEX32,
    max_examples=COUNT,
)
PEER = _object(
    index=INDEX,
    identity_seed=HEX32,
    fingerprint=HEX32,
    mask_private=HEX32,
    enc_private=HEX32,
    seed=HEX32,
    coefficients=HEX,
    update=HEX,
    groups=GROUPS,
    randoms=RANDOMS,
    quantised=INTEGERS,
)
SENT = _object(
    **{"from": INDEX, "to": {"anyOf": [INDEX, _const("all")]}, "type": {"enum": [*MESSAGES]}, "bytes": HEX}
)
ROUND = _object(
    round_id=HEX32,
    t0=HEX32,
    leader=INDEX,
    t1=HEX32,
    masked=SET,
    t2=HEX32,
    chunks=RANGES,
    survivors=SET,
    t3=HEX32,
    lost=SET,
    aggregate=INTEGERS,
    theta=HEX,
    buffers=HEX,
    tail=INTEGERS,
    tail_digest=HEX32,
    model_digest=HEX32,
    messages=_list(SENT, minItems=1),
)

OPTIMIZER = _object(
    kind={"enum": ["fedavg", "fedavgm", "fedadam", "fedyogi"]},
    learning_rate=NUMBER,
    beta1=NUMBER,
    beta2=NUMBER,
    tau=NUMBER,
)
_MODEL = {"theta": HEX, "buffers": HEX}
_SHARE = _object(index=INDEX, share=HEX32)
_PAIR: dict[str, Schema] = {"t1": HEX32, "private": HEX32, "public": HEX32, "from": INDEX, "to": INDEX}

INPUTS: dict[str, list[Schema]] = {
    "keys": [
        _object(derive={"enum": ["mask", "share"]}, **_PAIR),
        _object(derive=_const("self"), t1=HEX32, seed=HEX32, index=INDEX),
        _object(derive=_const("public"), private=HEX32),
        _object(derive=_const("commitment"), seed=HEX32),
    ],
    "prg": [_object(key=HEX32, start=COUNT, count=COUNT, ring_bits=RING_BITS)],
    "packing": [
        _object(direction=_const("pack"), ring_bits=COUNT, elements=ELEMENTS),
        _object(direction=_const("unpack"), ring_bits=COUNT, count=COUNT, packed=HEX),
    ],
    "shamir": [
        _object(do=_const("share"), secret=HEX, threshold=COUNT, peers=COUNT, coefficients=HEX),
        _object(do=_const("recover"), threshold=COUNT, shares=_list(_SHARE)),
    ],
    "boxes": [_object(box=HEX, **_PAIR)],
    "quantise": [
        _object(update=HEX, groups=GROUPS, randoms=RANDOMS, max_examples=COUNT, clip=NUMBER, value_bits=COUNT)
    ],
    "transcript": [
        _object(
            parameters=PARAMETERS,
            round=COUNT,
            attempt=COUNT,
            plan_digest=HEX32,
            model_digest=HEX32,
            adverts=_list(HEX),
            masked=SET,
            commits=_list(_object(index=INDEX, message=HEX)),
        )
    ],
    "envelopes": [_object(payload_type=STRING, bytes=HEX)],
    "messages": [_object(context=CONTEXT, bytes=HEX)],
    "signatures": [_object(context=CONTEXT, t0=HEX32, t3=HEX32, identity=HEX32, bytes=HEX)],
    "adverts": [
        _object(
            context=CONTEXT,
            t0=HEX32,
            identity=HEX32,
            keys_seen=_list(HEX32),
            link_fingerprint=HEX32,
            bytes=HEX,
        )
    ],
    "certificates": [
        _object(
            context=CONTEXT,
            t0=HEX32,
            t2=HEX32,
            identities=_list(HEX32),
            masked=SET,
            threshold=COUNT,
            bound=COUNT,
            bytes=HEX,
        )
    ],
    "apply": [
        _object(
            **_MODEL,
            survivors=COUNT,
            weight_lost=BOOLEAN,
            clip=NUMBER,
            value_bits=COUNT,
            ring_bits=RING_BITS,
            sums=ELEMENTS,
            optimizer=OPTIMIZER,
            moments=HEX,
        )
    ],
    "rounds": [_object(announcement=ANNOUNCEMENT, peers=_list(PEER, minItems=3), gone=SET)],
}

OUTPUTS: dict[str, list[Schema]] = {
    "keys": [_object(key=HEX32), _object(public=HEX32), _object(commitment=HEX32)],
    "prg": [_object(elements=ELEMENTS)],
    "packing": [_object(packed=HEX), _object(elements=ELEMENTS)],
    "shamir": [_object(shares=_list(HEX32)), _object(secret=HEX32)],
    "boxes": [_object(share_of_b=HEX32, share_of_sk=HEX32)],
    "quantise": [_object(quantised=INTEGERS)],
    "transcript": [
        _object(
            round_id=HEX32,
            threshold=COUNT,
            bound=COUNT,
            parameters=HEX,
            t0=HEX32,
            leaders=_list(INDEX),
            t1=HEX32,
            t2=HEX32,
            chunks=RANGES,
            root=HEX32,
            t3=HEX32,
        )
    ],
    "envelopes": [_object(payload=HEX, digest=HEX32, signer=HEX32)],
    "messages": [message_schema()],
    "signatures": [_object(covered=HEX)],
    "adverts": [_object(accepted=_const(True))],
    "certificates": [_object(survivors=SET, root=HEX32, voters=SET)],
    "apply": [_object(**_MODEL, moments=HEX, tail=INTEGERS, tail_digest=HEX32, model_digest=HEX32)],
    "rounds": [ROUND],
}


def vector_schemas() -> dict[str, Schema]:
    """Schema of every vector file, by operation."""
    return {op: _file_schema(op) for op in INPUTS}


def _one_of(choices: list[Schema]) -> Schema:
    return choices[0] if len(choices) == 1 else {"oneOf": choices}


def _file_schema(op: str) -> Schema:
    head: dict[str, Schema] = {
        "id": {"type": "string", "pattern": f"^{op}-[a-z0-9-]+$"},
        "comment": {"type": "string", "minLength": 1},
        "flags": _list(STRING),
    }
    given = _one_of(INPUTS[op])
    taken = _object(**head, result=_const("valid"), input=given, output=_one_of(OUTPUTS[op]))
    refused = _object(**head, result=_const("invalid"), rule=STRING, clause=STRING, input=given)
    cases = _list({"oneOf": [taken, refused]}, minItems=1)
    whole = _object(
        schema=_const(f"../schemas/vectors/{op}.schema.json"),
        op=_const(op),
        clause=STRING,
        comment=STRING,
        cases=cases,
    )
    return {"title": f"Vectors of the operation {op}"} | whole
