"""The rounds that are written down: who is lost when, and what every peer starts from."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from spec.reference import transcript
from spec.reference.peer import Announcement, Secrets
from spec.reference.quantise import Metrics
from spec.reference.stream import Stream

__all__ = ["PEERS", "SCENARIOS", "Scenario", "announce", "draw_secrets"]

PEERS, PARAMETERS, BUFFERS, TAIL = 4, 29, 2, 6
MAX_EXAMPLES = 64
STAGES = ("adverts", "shares", "first chunk", "chunks", "vote", "never")


@dataclass(frozen=True)
class Scenario:
    """Peer `gone` is never heard of again after it has sent what `after` names."""

    name: str
    comment: str
    ring_bits: int = 20
    value_bits: int = 16
    replicas: int = 1
    gone: int = -1
    after: str = "never"

    def sends(self, peer: int, stage: str) -> bool:
        """Whether the peer still sends what belongs to `stage`."""
        return peer != self.gone or STAGES.index(stage) <= STAGES.index(self.after)


SCENARIOS = (
    Scenario("no-drop", "Everybody stays."),
    Scenario(
        "drop-before-masking", "Peer 3 is gone after its ADVERT: in the roster, not in K.", gone=3, after="adverts"
    ),
    Scenario(
        "drop-after-masking",
        "Peer 3 is gone after its COMMIT and its CHUNK 0: in K, not in U. Its mask key is recovered.",
        gone=3,
        after="first chunk",
    ),
    Scenario(
        "owner-reassigned",
        "Peer 1, owner of chunk 1, is gone after all its CHUNKs: the chunk is ASSIGNed to peer 2 and sent again.",
        ring_bits=24,
        gone=1,
        after="chunks",
    ),
    Scenario(
        "owner-lost-with-replica",
        "Two replicas. Peer 1 is gone after its VOTE: in U. Its seed is recovered, the other owner sums chunk 1.",
        ring_bits=32,
        value_bits=24,
        replicas=2,
        gone=1,
        after="vote",
    ),
    Scenario(
        "chunk-lost",
        "One replica. Peer 0 is gone after its VOTE: in U, and nobody holds its part of chunk 0, which counts zero.",
        ring_bits=16,
        value_bits=12,
        gone=0,
        after="vote",
    ),
    Scenario(
        "weight-chunk-lost",
        "As chunk-lost with peer 1, whose chunk holds the weight: W is |U|·L.",
        gone=1,
        after="vote",
    ),
)


def draw_secrets(stream: Stream, seed: bytes, t: int) -> Secrets:
    update = [(stream.below(2**24) - 2**23) / 2**23 * 0.02 for _ in range(PARAMETERS + BUFFERS)]
    held_out = Metrics(8 + stream.below(8), [stream.below(300) / 128, stream.below(65) / 64], [4.0, 1.0])
    trained = Metrics(32 + stream.below(32), [stream.below(300) / 128, stream.below(65) / 64], [4.0, 1.0])
    return Secrets(
        identity_seed=seed,
        fingerprint=stream.take(32),
        mask_private=stream.take(32),
        enc_private=stream.take(32),
        seed=stream.take(32),
        coefficients=stream.take(2 * 32 * (t - 1)),
        update=struct.pack(f"<{len(update)}f", *update),
        groups=[trained, held_out],
        randoms=[stream.below(2**24) for _ in range(PARAMETERS + BUFFERS + TAIL)],
    )


def announce(scenario: Scenario, cohort: list[bytes]) -> Announcement:
    """An announcement whose first leader stays: the round number is the first that gives one."""
    stream = Stream(f"round/{scenario.name}")
    old = [(stream.below(2**24) - 2**23) / 2**23 for _ in range(PARAMETERS + BUFFERS)]
    model = struct.pack(f"<{len(old)}f", *old)
    parameters = transcript.Parameters(
        min_survivors=3,
        ring_bits=scenario.ring_bits,
        value_bits=scenario.value_bits,
        replicas=scenario.replicas,
        elements=PARAMETERS + BUFFERS + TAIL,
        clip=0.0125,
        run_id=stream.take(32),
        cohort=cohort,
    )
    plan = stream.take(32)
    number = 1
    while True:
        found = Announcement(
            parameters, number, 1, plan, model[: 4 * PARAMETERS], model[4 * PARAMETERS :], MAX_EXAMPLES
        )
        if transcript.leader(found.t0, 0, PEERS) != scenario.gone:
            return found
        number += 1
