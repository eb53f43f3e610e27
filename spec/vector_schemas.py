"""JSON Schemas of decoded p2psa/1 messages (spec 07 §3) and of every vector file."""

from __future__ import annotations

from spec.cohort_schemas import COHORT_ANSWERS, COHORT_QUESTIONS
from spec.schema_parts import (
    BOOLEAN,
    COMBINING_PARAMETERS,
    COUNT,
    ELEMENTS,
    HEX,
    HEX32,
    HEX64,
    INDEX,
    INTEGERS,
    NUMBER,
    PARAMETERS,
    PLACE,
    RING_BITS,
    SET,
    STRING,
    U8,
    Schema,
    array,
    const,
    hexadecimal,
    record,
)

__all__ = ["message_schema", "vector_schemas"]

DECIDED = array(hexadecimal(150), maxItems=255)

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
    "share": {"box": hexadecimal(81)},
    "ack": {"view": U8, "held": SET},
    "commit": {"t2": HEX32, "chunks": array(HEX32, minItems=1, maxItems=64), "signature": HEX64},
    "have": {
        "view": U8,
        "commits": SET,
        "chunks": array(record(chunk=INDEX, contributors=SET), maxItems=64),
    },
    "vote": {"t2": HEX32, "survivors": SET, "root": HEX32, "signature": HEX64},
    "certificate": {
        "t2": HEX32,
        "survivors": SET,
        "root": HEX32,
        "voters": SET,
        "signatures": array(HEX64, maxItems=64),
    },
    "reveal": {
        "b": {"anyOf": [HEX32, {"type": "null"}]},
        "shares": array(record(about=INDEX, kind={"enum": ["b", "sk"]}, share=HEX32), maxItems=64),
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
    kinds = [record(type=const(name), sender=INDEX, **fields) for name, fields in MESSAGES.items()]
    return {"title": "Decoded p2psa/1 message (spec 07 §3)", "oneOf": kinds}


CONTEXT = record(peers=COUNT, round_id=HEX32, ring_bits=RING_BITS, elements=COUNT, masked=COUNT)
GROUPS = array(record(weight=COUNT, means=array(NUMBER), bounds=array(NUMBER)), maxItems=2)
RANDOMS = array({"type": "integer", "minimum": 0, "maximum": 2**24 - 1})
RANGES = array(array(COUNT, minItems=2, maxItems=2), minItems=1)

_ANNOUNCEMENT: dict[str, Schema] = {
    "round": {"type": "integer", "minimum": 1},
    "attempt": {"type": "integer", "minimum": 1},
    "plan_digest": HEX32,
    "theta": HEX,
    "buffers": HEX,
    "model_digest": HEX32,
    "max_examples": COUNT,
}
ANNOUNCEMENT = record(parameters=PARAMETERS, **_ANNOUNCEMENT)
COMBINING_ANNOUNCEMENT = record(parameters=COMBINING_PARAMETERS, place=PLACE, **_ANNOUNCEMENT)
_PEER: dict[str, Schema] = {
    "index": INDEX,
    "identity_seed": HEX32,
    "fingerprint": HEX32,
    "mask_private": HEX32,
    "enc_private": HEX32,
    "seed": HEX32,
    "coefficients": HEX,
    "quantised": INTEGERS,
}
PEER = record(**_PEER, update=HEX, groups=GROUPS, randoms=RANDOMS)
DELEGATE = record(**_PEER, group_sum=INTEGERS)
SENT = record(**{"from": INDEX, "to": {"anyOf": [INDEX, const("all")]}, "type": {"enum": [*MESSAGES]}, "bytes": HEX})
ROUND = record(
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
    messages=array(SENT, minItems=1),
)

OPTIMIZER = record(
    kind={"enum": ["fedavg", "fedavgm", "fedadam", "fedyogi"]},
    learning_rate=NUMBER,
    beta1=NUMBER,
    beta2=NUMBER,
    tau=NUMBER,
)
_MODEL = {"theta": HEX, "buffers": HEX}
_SHARE = record(index=INDEX, share=HEX32)
_PAIR: dict[str, Schema] = {"t1": HEX32, "private": HEX32, "public": HEX32, "from": INDEX, "to": INDEX}

INPUTS: dict[str, list[Schema]] = {
    "keys": [
        record(derive={"enum": ["mask", "share"]}, **_PAIR),
        record(derive=const("self"), t1=HEX32, seed=HEX32, index=INDEX),
        record(derive=const("public"), private=HEX32),
        record(derive=const("commitment"), seed=HEX32),
    ],
    "prg": [record(key=HEX32, start=COUNT, count=COUNT, ring_bits=RING_BITS)],
    "packing": [
        record(direction=const("pack"), ring_bits=COUNT, elements=ELEMENTS),
        record(direction=const("unpack"), ring_bits=COUNT, count=COUNT, packed=HEX),
    ],
    "shamir": [
        record(do=const("share"), secret=HEX, threshold=COUNT, peers=COUNT, coefficients=HEX),
        record(do=const("recover"), threshold=COUNT, shares=array(_SHARE)),
    ],
    "boxes": [record(box=HEX, **_PAIR)],
    "quantise": [
        record(update=HEX, groups=GROUPS, randoms=RANDOMS, max_examples=COUNT, clip=NUMBER, value_bits=COUNT)
    ],
    "transcript": [
        record(
            parameters=PARAMETERS,
            round=COUNT,
            attempt=COUNT,
            plan_digest=HEX32,
            model_digest=HEX32,
            adverts=array(HEX),
            masked=SET,
            commits=array(record(index=INDEX, message=HEX)),
        )
    ],
    "envelopes": [record(payload_type=STRING, bytes=HEX)],
    "messages": [record(context=CONTEXT, bytes=HEX)],
    "signatures": [record(context=CONTEXT, t0=HEX32, t3=HEX32, identity=HEX32, bytes=HEX)],
    "adverts": [
        record(
            context=CONTEXT,
            t0=HEX32,
            identity=HEX32,
            keys_seen=array(HEX32),
            link_fingerprint=HEX32,
            bytes=HEX,
        )
    ],
    "certificates": [
        record(
            context=CONTEXT,
            t0=HEX32,
            t2=HEX32,
            identities=array(HEX32),
            masked=SET,
            threshold=COUNT,
            bound=COUNT,
            bytes=HEX,
        )
    ],
    "apply": [
        record(
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
    "hold-out": [record(examples=COUNT, fraction=NUMBER)],
    "rounds": [
        record(announcement=ANNOUNCEMENT, peers=array(PEER, minItems=3), gone=SET),
        record(announcement=COMBINING_ANNOUNCEMENT, peers=array(DELEGATE, minItems=3), gone=SET),
    ],
    "cohorts": COHORT_QUESTIONS,
}

OUTPUTS: dict[str, list[Schema]] = {
    "keys": [record(key=HEX32), record(public=HEX32), record(commitment=HEX32)],
    "prg": [record(elements=ELEMENTS)],
    "packing": [record(packed=HEX), record(elements=ELEMENTS)],
    "shamir": [record(shares=array(HEX32)), record(secret=HEX32)],
    "boxes": [record(share_of_b=HEX32, share_of_sk=HEX32)],
    "quantise": [record(quantised=INTEGERS)],
    "transcript": [
        record(
            round_id=HEX32,
            threshold=COUNT,
            bound=COUNT,
            parameters=HEX,
            t0=HEX32,
            leaders=array(INDEX),
            t1=HEX32,
            t2=HEX32,
            chunks=RANGES,
            root=HEX32,
            t3=HEX32,
        )
    ],
    "envelopes": [record(payload=HEX, digest=HEX32, signer=HEX32)],
    "messages": [message_schema()],
    "signatures": [record(covered=HEX)],
    "adverts": [record(accepted=const(True))],
    "certificates": [record(survivors=SET, root=HEX32, voters=SET)],
    "apply": [record(**_MODEL, moments=HEX, tail=INTEGERS, tail_digest=HEX32, model_digest=HEX32)],
    "hold-out": [record(held=ELEMENTS)],
    "rounds": [ROUND],
    "cohorts": COHORT_ANSWERS,
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
        "flags": array(STRING),
    }
    given = _one_of(INPUTS[op])
    taken = record(**head, result=const("valid"), input=given, output=_one_of(OUTPUTS[op]))
    refused = record(**head, result=const("invalid"), rule=STRING, clause=STRING, input=given)
    cases = array({"oneOf": [taken, refused]}, minItems=1)
    whole = record(
        schema=const(f"../schemas/vectors/{op}.schema.json"),
        op=const(op),
        clause=STRING,
        comment=STRING,
        cases=cases,
    )
    return {"title": f"Vectors of the operation {op}"} | whole
