"""Messages of p2psa/1 (spec 07 §3) as values. `layouts` has their bytes, `codec` signs and checks them.

They are structs without garbage collection, as none can hold itself: a peer of 64 takes and makes a thousand a round.
Those with secrets also say what rich may print of them, which otherwise shows every field of a struct.
"""

from __future__ import annotations

import struct
from typing import Final

from msgspec import Struct

__all__ = [
    "BULK_TYPES",
    "DIGEST_BYTES",
    "HEADER_BYTES",
    "RESULT_LABEL",
    "Abort",
    "Ack",
    "Advert",
    "Assign",
    "Certificate",
    "Chunk",
    "Commit",
    "Decide",
    "Forward",
    "Have",
    "Kind",
    "Message",
    "Need",
    "Received",
    "Result",
    "Reveal",
    "Share",
    "Status",
    "Sum",
    "Vote",
    "result_payload",
    "round_tag",
]

HEADER_BYTES = 12
DIGEST_BYTES = 32
RESULT_LABEL = "peerplan/1/result"


class Kind:
    """Values of small enumerations on the wire."""

    ROSTER: Final = 1
    MASKED: Final = 2
    SURVIVORS: Final = 3
    LOST: Final = 4
    SEED: Final = 1
    MASK_KEY: Final = 2
    ADVERTS: Final = 1
    COMMITS: Final = 2
    SUMS: Final = 3
    CERTIFICATE: Final = 4


class Advert(Struct, frozen=True, gc=False):
    """R0: the keys and commitments of one peer."""

    t0: bytes
    mask_public: bytes
    enc_public: bytes
    seed_commitment: bytes
    fingerprint: bytes


class Decide(Struct, frozen=True, gc=False):
    """A leader's decision; `members` is a bitmap of peers, or of chunks for LOST."""

    kind: int
    view: int
    base: bytes
    members: int
    root: bytes


class Share(Struct, frozen=True, gc=False):
    """R1: a box with two shares for one peer. `repr` shows no content."""

    box: bytes

    def __repr__(self) -> str:
        return "Share()"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return []


class Ack(Struct, frozen=True, gc=False):
    """R1: whose shares the sender holds."""

    view: int
    held: int


class Commit(Struct, frozen=True, gc=False):
    """R2: SHA-256 of every packed chunk of the sender, one after the other."""

    t2: bytes
    digests: bytes

    @property
    def count(self) -> int:
        """Chunks it is about."""
        return len(self.digests) // DIGEST_BYTES

    def digest(self, chunk: int) -> bytes:
        """Of one chunk, below `count`."""
        return self.digests[DIGEST_BYTES * chunk : DIGEST_BYTES * (chunk + 1)]


class Have(Struct, frozen=True, gc=False):
    """R3: commits held, and per owned chunk whose contributions are held."""

    view: int
    commits: int
    chunks: tuple[tuple[int, int], ...]


class Vote(Struct, frozen=True, gc=False):
    """R3: the one vote a peer casts in a round."""

    t2: bytes
    survivors: int
    root: bytes


class Certificate(Struct, frozen=True, gc=False):
    """R3: t signatures over one vote; `signatures` in ascending order of the bits of `voters`."""

    t2: bytes
    survivors: int
    root: bytes
    voters: int
    signatures: tuple[bytes, ...]


class Reveal(Struct, frozen=True, gc=False):
    """R4: the sender's own seed, and shares about others. `repr` shows neither."""

    seed: bytes | None
    shares: tuple[tuple[int, int, bytes], ...]

    def __repr__(self) -> str:
        return f"Reveal(about={[about for about, _, _ in self.shares]})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("about", [about for about, _, _ in self.shares])]


class Result(Struct, frozen=True, gc=False):
    """R5: the digest of the next model, of the tail, and the survivor set, signed for everybody."""

    model_digest: bytes
    tail_digest: bytes
    survivors: int
    signature: bytes


class Status(Struct, frozen=True, gc=False):
    """Sent to the leader of a new view: every decision the sender adopted, as received."""

    view: int
    decisions: tuple[bytes, ...]


class Forward(Struct, frozen=True, gc=False):
    """A signed message of another peer, unchanged."""

    message: bytes


class Need(Struct, frozen=True, gc=False):
    """Asks one peer for what the sender lacks."""

    what: int
    members: int


class Assign(Struct, frozen=True, gc=False):
    """A leader gives a chunk to a backup owner."""

    view: int
    chunk: int
    owner: int


class Abort(Struct, frozen=True, gc=False):
    """The sender leaves this attempt."""

    reason: int


class Chunk(Struct, frozen=True, gc=False):
    """R2: one packed masked chunk."""

    chunk: int
    payload: memoryview


class Sum(Struct, frozen=True, gc=False):
    """R5: one packed chunk of the aggregate, signed by its owner."""

    chunk: int
    signature: bytes
    payload: memoryview


Message = (
    Advert
    | Decide
    | Share
    | Ack
    | Commit
    | Have
    | Vote
    | Certificate
    | Reveal
    | Result
    | Status
    | Forward
    | Need
    | Assign
    | Abort
    | Chunk
    | Sum
)


class Received(Struct, frozen=True, gc=False):
    """A decoded message, who made it, and its exact bytes."""

    sender: int
    message: Message
    raw: bytes | memoryview


BULK_TYPES = frozenset({Chunk, Sum})


def round_tag(round_id: str) -> bytes:
    """The eight bytes by which a message names its round."""
    return bytes.fromhex(round_id)[:8]


def result_payload(round_id: str, result_digest: bytes, survivors: int, tail_digest: bytes) -> bytes:
    """What a RESULT signature covers; the signaling server checks the same bytes."""
    return bytes.fromhex(round_id) + result_digest + struct.pack("<Q", survivors) + tail_digest
