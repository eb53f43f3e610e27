"""Vectors of messages.json: every type decoded, and malformed bytes with one fault each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spec.reference.codec import u16, u64
from spec.reference.judge import bad, good
from spec.reference.output import Case, vector_file
from spec.reference.samples import sampled

__all__ = ["message_files"]

Fault = tuple[str, str, bytes, str]
"""Name, comment, bytes, rule."""


def _put(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def _header_faults(good_: bytes) -> Iterator[Fault]:
    yield "empty", "no bytes at all", b"", "length"
    yield "header-only", "11 bytes: the header is cut", good_[:11], "length"
    yield "version-0", "version 0", _put(good_, 0, b"\x00"), "version"
    yield "version-2", "version 2", _put(good_, 0, b"\x02"), "version"
    for number in (0, 16, 31, 34, 255):
        yield f"type-{number}", f"type {number} does not exist", _put(good_, 1, bytes([number])), "type"
    yield "sender-4", "sender 4 of 4 peers", _put(good_, 2, u16(4)), "sender-range"
    yield "sender-65535", "the largest sender", _put(good_, 2, u16(65535)), "sender-range"
    yield "other-round", "a message of another round", _put(good_, 4, bytes(8)), "round"
    yield "round-bit", "the last byte of the round id differs", _put(good_, 11, bytes([good_[11] ^ 1])), "round"


def _length_faults(messages: dict[str, list[bytes]]) -> Iterator[Fault]:
    for kind, found in messages.items():
        yield f"{kind}-short", f"{kind}: the last byte is missing", found[0][:-1], "length"
        yield f"{kind}-long", f"{kind}: one byte too many", found[0] + b"\x00", "length"


def _set_faults(messages: dict[str, list[bytes]]) -> Iterator[Fault]:
    four, high = u64(1 << 4), u64(1 << 63)
    places = {"decide": 46, "ack": 13, "have": 13, "vote": 44, "certificate": 44, "result": 76}
    for kind, at in places.items():
        yield f"{kind}-bit-4", f"{kind}: bit 4 of 4 peers", _put(messages[kind][0], at, four), "set-range"
        yield f"{kind}-bit-63", f"{kind}: the top bit", _put(messages[kind][0], at, high), "set-range"
    lost = next(m for m in messages["decide"] if m[12] == 4)
    yield "decide-lost-bit-3", "chunk 3 of 3", _put(lost, 46, u64(1 << 3)), "set-range"
    need = next(m for m in messages["need"] if m[12] == 3)
    yield "need-sums-bit-3", "chunk 3 of 3", _put(need, 13, u64(1 << 3)), "set-range"
    have = next(m for m in messages["have"] if m[21:23] != b"\x00\x00")
    yield "have-contributors-bit-4", "a contributor 4 of 4 peers", _put(have, 25, four), "set-range"


def _field_faults(messages: dict[str, list[bytes]]) -> Iterator[Fault]:
    for kind, at in {"decide": 13, "ack": 12, "have": 12, "status": 12, "assign": 12}.items():
        yield f"{kind}-view-4", f"{kind}: view 4 of 4 peers", _put(messages[kind][0], at, b"\x04"), "view-range"
    decide, reveal = messages["decide"][0], next(m for m in messages["reveal"] if m[12] == 0)
    yield "decide-kind-0", "no decision has kind 0", _put(decide, 12, b"\x00"), "decide-kind"
    yield "decide-kind-5", "no decision has kind 5", _put(decide, 12, b"\x05"), "decide-kind"
    yield "decide-masked-root", "kind 2 with a root", _put(messages["decide"][1], 54, b"\x01"), "decide-root"
    lost = next(m for m in messages["decide"] if m[12] == 4)
    yield "decide-lost-root", "kind 4 with a root", _put(lost, 85, b"\x80"), "decide-root"
    yield "commit-count-2", "2 chunks where there are 3", _put(messages["commit"][0], 44, u16(2)), "commit-count"
    yield "commit-count-max", "65535 chunks", _put(messages["commit"][0], 44, u16(65535)), "commit-count"
    have = next(m for m in messages["have"] if m[21:23] == b"\x01\x00")
    yield "have-count-4", "4 chunks where there are 3", _put(have, 21, u16(4)), "have-count"
    yield "have-chunk-3", "chunk 3 of 3", _put(have, 23, u16(3)), "chunk-range"
    yield "have-repeats", "chunk told twice", _put(have, 21, u16(2)) + have[23:33], "have-repeats"
    yield "reveal-flag-2", "has_b is neither 0 nor 1", _put(messages["reveal"][0], 12, b"\x02"), "reveal-flag"
    yield "reveal-count-5", "5 shares among 4 peers", _put(reveal, 13, u16(5)), "reveal-count"
    yield "reveal-about-4", "about peer 4 of 4", _put(reveal, 15, u16(4)), "about-range"
    yield "reveal-kind-0", "kind 0", _put(reveal, 17, b"\x00"), "reveal-kind"
    yield "reveal-kind-3", "kind 3", _put(reveal, 17, b"\x03"), "reveal-kind"
    other = _put(reveal[15:50], 2, b"\x02")
    yield "reveal-both", "b and sk of one peer", _put(reveal, 13, u16(2)) + other, "reveal-repeats"
    yield "need-what-0", "asks for 0", _put(messages["need"][0], 12, b"\x00"), "need-what"
    yield "need-what-5", "asks for 5", _put(messages["need"][0], 12, b"\x05"), "need-what"
    yield "assign-chunk-3", "chunk 3 of 3", _put(messages["assign"][0], 13, u16(3)), "chunk-range"
    yield "assign-owner-4", "owner 4 of 4 peers", _put(messages["assign"][0], 15, u16(4)), "owner-range"
    yield "chunk-3", "chunk 3 of 3", _put(messages["chunk"][0], 12, u16(3)), "chunk-range"
    yield "chunk-2-length", "chunk 2 is shorter than chunk 0", _put(messages["chunk"][0], 12, u16(2)), "length"
    yield "sum-3", "chunk 3 of 3", _put(messages["sum"][0], 12, u16(3)), "chunk-range"


def _nested_faults(messages: dict[str, list[bytes]]) -> Iterator[Fault]:
    status, forward, vote = messages["status"][0], messages["forward"][0], messages["vote"][0]
    head = status[:12] + b"\x01\x01"
    yield "status-count", "counts 3, holds 2", _put(status, 13, b"\x03"), "length"
    yield "status-five", "5 DECIDEs", status[:12] + b"\x01\x05" + 5 * status[14:166], "status-count"
    yield "status-length", "a DECIDE of 149 bytes", head + u16(149) + status[16:165], "status-decision"
    padded = (vote + bytes(150))[:150]
    yield "status-vote", "a VOTE where a DECIDE stands", head + u16(150) + padded, "status-decision"
    yield "status-decide-round", "a DECIDE of another round", _put(status, 20, bytes(8)), "round"
    head = forward[:12]
    for kind in ("ack", "share", "chunk", "forward", "certificate", "sum"):
        inner = messages[kind][0]
        comment = f"a {kind} is not forwarded"
        yield f"forward-{kind}", comment, head + u16(len(inner)) + inner, "forward-unsigned"
    yield "forward-nothing", "a length of 0", head + u16(0), "forward-unsigned"
    yield "forward-inner-short", "the inner message is cut", head + u16(100) + messages["advert"][0][:100], "length"


def message_cases() -> Case:
    sample = sampled("no-drop")
    context = sample.context

    def given(data: bytes) -> dict[str, Any]:
        return {"context": context, "bytes": data.hex()}

    cases = []
    for kind, found in sample.messages.items():
        distinct = {data[12:14] if kind in {"decide", "reveal", "need"} else data[:1]: data for data in found[::-1]}
        wanted = [*dict.fromkeys(list(distinct.values())[::-1] + (found if kind in {"status", "forward"} else []))]
        for number, data in enumerate(wanted):
            cases.append(good("messages", f"{kind}-{number}", kind.upper(), given(data)))
    faults = [*_header_faults(sample.messages["ack"][0]), *_length_faults(sample.messages)]
    faults += [*_set_faults(sample.messages), *_field_faults(sample.messages), *_nested_faults(sample.messages)]
    cases += [bad("messages", name, comment, given(data), rule) for name, comment, data, rule in faults]
    comment = (
        "Bytes to their decoded form; signatures are not looked at. Encoding the decoded form gives the bytes back"
    )
    return vector_file("messages", "07 §3", comment, cases)


def message_files() -> dict[str, Case]:
    """Files by name."""
    return {"messages.json": message_cases()}
