"""The messages of spec 07 §3: bytes to and from a decoded form that JSON can hold.

Decoded form: `type` is the lower-case name, `sender` an index, sets are ascending lists of indexes, numbers are
numbers and everything else is hexadecimal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spec.reference.codec import bits, members, u8, u16
from spec.reference.packing import packed_size
from spec.reference.refused import Refused

__all__ = ["HEADER_BYTES", "SIGNED", "TYPES", "Context", "chunk_ranges", "decode", "encode"]

TYPES = {
    "advert": 1,
    "decide": 2,
    "share": 3,
    "ack": 4,
    "commit": 5,
    "have": 6,
    "vote": 7,
    "certificate": 8,
    "reveal": 9,
    "result": 10,
    "status": 11,
    "forward": 12,
    "need": 13,
    "assign": 14,
    "abort": 15,
    "chunk": 32,
    "sum": 33,
}
NAMES = {number: name for name, number in TYPES.items()}
SIGNED = ("advert", "decide", "commit", "vote", "result")
"""Messages that end in a signature and may be forwarded; SUM carries its own in the middle."""

HEADER_BYTES = 12
SIGNATURE_BYTES = 64
DECIDE_BYTES = 150
BOX_BYTES = 81
MAX_CONTROL_BYTES = 65_536

Decoded = dict[str, Any]


def chunk_ranges(elements: int, masked: int) -> list[tuple[int, int]]:
    """Chunk j holds elements [start, end) of the D padded ones (spec 07 §6)."""
    padded = -(-elements // 8) * 8
    size = 8 * -(-padded // (8 * masked))
    return [(start, min(start + size, padded)) for start in range(0, padded, size)]


@dataclass(frozen=True)
class Context:
    """What a peer knows of the round when it decodes: without it, indexes and lengths have no bounds."""

    peers: int
    round_id: bytes
    ring_bits: int
    elements: int
    masked: int

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """First element and end of every chunk."""
        return chunk_ranges(self.elements, self.masked)

    def packed_bytes(self, chunk: int) -> int:
        """Bytes of one packed chunk."""
        start, end = self.chunks[chunk]
        return packed_size(end - start, self.ring_bits)


class Cursor:
    """Reads a message from the front; refuses to read past its end or to leave something over."""

    def __init__(self, data: bytes, context: Context) -> None:
        self.data = data
        self.context = context

    def raw(self, size: int) -> bytes:
        if size > len(self.data):
            raise Refused("length", "07 §3", f"expected {size} more bytes, got {len(self.data)}")
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def hex(self, size: int) -> str:
        return self.raw(size).hex()

    def number(self, size: int) -> int:
        return int.from_bytes(self.raw(size), "little")

    def below(self, size: int, bound: int, rule: str) -> int:
        value = self.number(size)
        if value >= bound:
            raise Refused(rule, "07 §3", f"expected less than {bound}, got {value}")
        return value

    def one_of(self, allowed: range, rule: str) -> int:
        value = self.number(1)
        if value not in allowed:
            raise Refused(rule, "07 §3", f"expected {allowed.start} to {allowed.stop - 1}, got {value}")
        return value

    def set(self, bound: int) -> list[int]:
        found = members(self.number(8))
        if found and found[-1] >= bound:
            raise Refused("set-range", "07 §3", f"expected bits below {bound}, got bit {found[-1]}")
        return found

    def peers(self) -> list[int]:
        return self.set(self.context.peers)

    def view(self) -> int:
        return self.below(1, self.context.peers, "view-range")

    def chunk(self) -> int:
        return self.below(2, len(self.context.chunks), "chunk-range")

    def end(self) -> None:
        if self.data:
            raise Refused("length", "07 §3", f"{len(self.data)} bytes too many")


def _distinct(values: list[int], rule: str) -> None:
    if len(set(values)) != len(values):
        raise Refused(rule, "07 §3", f"a value repeats in {values}")


def _read_advert(at: Cursor) -> Decoded:
    names = ("t0", "mask_key", "enc_key", "seed_commitment", "fingerprint")
    return {name: at.hex(32) for name in names} | {"signature": at.hex(64)}


def _read_decide(at: Cursor) -> Decoded:
    kind = at.one_of(range(1, 5), "decide-kind")
    out: Decoded = {"kind": kind, "view": at.view(), "base": at.hex(32)}
    out["set"] = at.set(len(at.context.chunks)) if kind == 4 else at.peers()
    out["root"] = at.hex(32)
    if kind in (2, 4) and any(bytes.fromhex(out["root"])):
        raise Refused("decide-root", "07 §5", f"a decision of kind {kind} has root 0")
    return out | {"signature": at.hex(64)}


def _read_commit(at: Cursor) -> Decoded:
    out: Decoded = {"t2": at.hex(32)}
    count, expected = at.number(2), len(at.context.chunks)
    if count != expected:
        raise Refused("commit-count", "07 §6", f"expected {expected} chunks, got {count}")
    return out | {"chunks": [at.hex(32) for _ in range(count)], "signature": at.hex(64)}


def _read_have(at: Cursor) -> Decoded:
    out: Decoded = {"view": at.view(), "commits": at.peers(), "chunks": []}
    for _ in range(at.below(2, len(at.context.chunks) + 1, "have-count")):
        out["chunks"].append({"chunk": at.chunk(), "contributors": at.peers()})
    _distinct([entry["chunk"] for entry in out["chunks"]], "have-repeats")
    return out


def _read_vote(at: Cursor) -> Decoded:
    return {"t2": at.hex(32), "survivors": at.peers(), "root": at.hex(32), "signature": at.hex(64)}


def _read_certificate(at: Cursor) -> Decoded:
    out: Decoded = {"t2": at.hex(32), "survivors": at.peers(), "root": at.hex(32), "voters": at.peers()}
    return out | {"signatures": [at.hex(64) for _ in out["voters"]]}


def _read_reveal(at: Cursor) -> Decoded:
    has_b = at.one_of(range(2), "reveal-flag")
    out: Decoded = {"b": at.hex(32) if has_b else None, "shares": []}
    for _ in range(at.below(2, at.context.peers + 1, "reveal-count")):
        about = at.below(2, at.context.peers, "about-range")
        kind = at.one_of(range(1, 3), "reveal-kind")
        out["shares"].append({"about": about, "kind": ("b", "sk")[kind - 1], "share": at.hex(32)})
    _distinct([entry["about"] for entry in out["shares"]], "reveal-repeats")
    return out


def _read_result(at: Cursor) -> Decoded:
    return {"model": at.hex(32), "tail": at.hex(32), "survivors": at.peers(), "signature": at.hex(64)}


def _read_status(at: Cursor) -> Decoded:
    out: Decoded = {"view": at.view(), "decisions": []}
    for _ in range(at.below(1, 5, "status-count")):
        size = at.number(2)
        if size != DECIDE_BYTES:
            raise Refused("status-decision", "07 §3", f"a DECIDE has {DECIDE_BYTES} bytes, got {size}")
        message = at.raw(size)
        if message[1] != TYPES["decide"]:
            raise Refused("status-decision", "07 §3", f"expected a DECIDE, got type {message[1]}")
        decode(message, at.context)
        out["decisions"].append(message.hex())
    return out


def _read_forward(at: Cursor) -> Decoded:
    message = at.raw(at.number(2))
    if NAMES.get(message[1] if len(message) > 1 else 0) not in SIGNED:
        raise Refused("forward-unsigned", "07 §3", "only signed messages are forwarded")
    decode(message, at.context)
    return {"message": message.hex()}


def _read_need(at: Cursor) -> Decoded:
    what = at.one_of(range(1, 5), "need-what")
    return {"what": what, "set": at.set(len(at.context.chunks)) if what == 3 else at.peers()}


def _read_assign(at: Cursor) -> Decoded:
    view = at.view()
    return {"view": view, "chunk": at.chunk(), "owner": at.below(2, at.context.peers, "owner-range")}


def _read_chunk(at: Cursor) -> Decoded:
    chunk = at.chunk()
    return {"chunk": chunk, "packed": at.hex(at.context.packed_bytes(chunk))}


def _read_sum(at: Cursor) -> Decoded:
    chunk = at.chunk()
    return {"chunk": chunk, "signature": at.hex(64), "packed": at.hex(at.context.packed_bytes(chunk))}


READ: dict[str, Callable[[Cursor], Decoded]] = {
    "advert": _read_advert,
    "decide": _read_decide,
    "share": lambda at: {"box": at.hex(BOX_BYTES)},
    "ack": lambda at: {"view": at.view(), "held": at.peers()},
    "commit": _read_commit,
    "have": _read_have,
    "vote": _read_vote,
    "certificate": _read_certificate,
    "reveal": _read_reveal,
    "result": _read_result,
    "status": _read_status,
    "forward": _read_forward,
    "need": _read_need,
    "assign": _read_assign,
    "abort": lambda at: {"reason": at.number(1)},
    "chunk": _read_chunk,
    "sum": _read_sum,
}


def decode(data: bytes, context: Context) -> Decoded:
    """The decoded form, or `Refused`; signatures are not looked at here."""
    at = Cursor(data, context)
    version = at.number(1)
    if version != 1:
        raise Refused("version", "07 §3", f"expected 1, got {version}")
    kind = at.number(1)
    if kind not in NAMES:
        raise Refused("type", "07 §3", f"no message has type {kind}")
    if kind < 32 and len(data) > MAX_CONTROL_BYTES:
        raise Refused("length", "07 §12", f"{len(data)} bytes, at most {MAX_CONTROL_BYTES}")
    sender = at.below(2, context.peers, "sender-range")
    if at.raw(8) != context.round_id[:8]:
        raise Refused("round", "07 §3", "the message is of another round")
    out = {"type": NAMES[kind], "sender": sender} | READ[NAMES[kind]](at)
    at.end()
    return out


def _b(text: str) -> bytes:
    return bytes.fromhex(text)


def _sized(text: str) -> bytes:
    return u16(len(_b(text))) + _b(text)


def _write_reveal(m: Decoded) -> bytes:
    own = u8(0) if m["b"] is None else u8(1) + _b(m["b"])
    shares = [u16(s["about"]) + u8({"b": 1, "sk": 2}[s["kind"]]) + _b(s["share"]) for s in m["shares"]]
    return own + u16(len(shares)) + b"".join(shares)


def _write_have(m: Decoded) -> bytes:
    entries = [u16(entry["chunk"]) + bits(entry["contributors"]) for entry in m["chunks"]]
    return u8(m["view"]) + bits(m["commits"]) + u16(len(entries)) + b"".join(entries)


def _write_certificate(m: Decoded) -> bytes:
    claim = _b(m["t2"]) + bits(m["survivors"]) + _b(m["root"])
    return claim + bits(m["voters"]) + b"".join(_b(s) for s in m["signatures"])


WRITE: dict[str, Callable[[Decoded], bytes]] = {
    "advert": lambda m: b"".join(
        _b(m[name]) for name in ("t0", "mask_key", "enc_key", "seed_commitment", "fingerprint")
    ),
    "decide": lambda m: u8(m["kind"]) + u8(m["view"]) + _b(m["base"]) + bits(m["set"]) + _b(m["root"]),
    "share": lambda m: _b(m["box"]),
    "ack": lambda m: u8(m["view"]) + bits(m["held"]),
    "commit": lambda m: _b(m["t2"]) + u16(len(m["chunks"])) + b"".join(_b(c) for c in m["chunks"]),
    "have": _write_have,
    "vote": lambda m: _b(m["t2"]) + bits(m["survivors"]) + _b(m["root"]),
    "certificate": _write_certificate,
    "reveal": _write_reveal,
    "result": lambda m: _b(m["model"]) + _b(m["tail"]) + bits(m["survivors"]),
    "status": lambda m: u8(m["view"]) + u8(len(m["decisions"])) + b"".join(_sized(d) for d in m["decisions"]),
    "forward": lambda m: _sized(m["message"]),
    "need": lambda m: u8(m["what"]) + bits(m["set"]),
    "assign": lambda m: u8(m["view"]) + u16(m["chunk"]) + u16(m["owner"]),
    "abort": lambda m: u8(m["reason"]),
    "chunk": lambda m: u16(m["chunk"]) + _b(m["packed"]),
    "sum": lambda m: u16(m["chunk"]) + _b(m["signature"]) + _b(m["packed"]),
}


def encode(message: Decoded, round_id: bytes) -> bytes:
    """Bytes of a decoded message; without its `signature`, what a signature at the end covers."""
    name = message["type"]
    body = u8(1) + u8(TYPES[name]) + u16(message["sender"]) + round_id[:8] + WRITE[name](message)
    return body + (_b(message["signature"]) if name in SIGNED and "signature" in message else b"")
