"""What every part of one attempt shares: who this peer is, what time it is, and what was agreed so far."""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Callable

from protocol.errors import RoundError
from protocol.identity import Identity
from protocol.round.actions import StageEntered, Work
from protocol.round.errors import RoundFailedError
from protocol.round.post import Post
from protocol.secagg.keys import SECRETS_BYTES, RoundSecrets
from protocol.secagg.parameters import ChunkPlan, RoundParameters
from protocol.secagg.quantise import QUANTISE_KEY_BYTES
from protocol.secagg.shamir import coefficient_bytes
from protocol.terms import Deadlines

__all__ = ["RoundState", "Stage", "randomness_bytes", "seconds"]


class Stage(enum.IntEnum):
    """Where a peer stands in an attempt."""

    ADVERTISE = 0
    SHARE = 1
    COLLECT = 2
    UNMASK = 3
    SUM = 4
    AGREE = 5
    DONE = 6
    FAILED = 7


def randomness_bytes(parameters: RoundParameters) -> int:
    """Bytes of the operating system's randomness that one attempt takes."""
    return SECRETS_BYTES + 2 * coefficient_bytes(parameters.threshold) + QUANTISE_KEY_BYTES


def seconds(milliseconds: int) -> float:
    """Deadlines are written in milliseconds; machines count seconds."""
    return milliseconds / 1000


class RoundState:
    """State that more than one part of the machine reads. `repr` shows no secret.

    `grace` is how long one more exchange of small messages may take, in seconds.
    `roster`, `mask_set`, `survivors` and `t1` to `t3` are empty until agreed, `plan` is None until the mask set is.
    """

    def __init__(
        self,
        *,
        parameters: RoundParameters,
        identity: Identity,
        fingerprint: bytes,
        deadlines: Deadlines,
        randomness: bytes,
    ) -> None:
        """Take the machine's arguments."""
        expected = randomness_bytes(parameters)
        if len(randomness) != expected:
            raise RoundError(f"an attempt takes {expected} random bytes, got {len(randomness)}")
        if identity.peer_id not in parameters.cohort:
            raise RoundError("this peer is not in the cohort")
        self.parameters = parameters
        self.identity = identity
        self.fingerprint = fingerprint
        self.deadlines = deadlines
        self.grace = seconds(deadlines.consistency_ms)
        self.own_index = parameters.cohort.index(identity.peer_id)
        self.secrets = RoundSecrets(randomness[:SECRETS_BYTES])
        cut = SECRETS_BYTES + 2 * coefficient_bytes(parameters.threshold)
        self.coefficients = randomness[SECRETS_BYTES:cut]
        self.rounding_key = randomness[cut:]
        self.post = Post(parameters, identity, self.own_index)

        self.stage = Stage.ADVERTISE
        self.now = 0.0
        self.stage_deadline = self.end = float("inf")
        self.changes = 0
        self.on_enter: list[Callable[[], None]] = []

        self.roster: frozenset[int] = frozenset()
        self.mask_set: frozenset[int] = frozenset()
        self.survivors: frozenset[int] = frozenset()
        self.t1 = self.t2 = self.t3 = b""
        self.plan: ChunkPlan | None = None

        self._work: dict[int, Callable[[object], None]] = {}
        self._work_number = 0

    def __repr__(self) -> str:
        return f"RoundState(peer={self.own_index}, stage={self.stage.name.lower()})"

    def begin_clock(self) -> None:
        """The attempt ends when the sum of all its deadlines is used up (spec 07 §11)."""
        self.end = self.now + sum(seconds(getattr(self.deadlines, name)) for name in self.deadlines.__struct_fields__)

    def check_end(self) -> None:
        """Refuse to go on past the attempt's end.

        Raises:
            RoundFailedError: it is reached.
        """
        if self.now >= self.end:
            raise RoundFailedError(
                f"the attempt took longer than all its deadlines, in stage {self.stage.name.lower()}"
            )

    def enter(self, stage: Stage, limit_ms: int) -> None:
        """Go to a stage that may wait `limit_ms`."""
        self.stage = stage
        self.changes += 1
        self.stage_deadline = self.now + seconds(limit_ms)
        for hook in self.on_enter:
            hook()
        self.post.actions.append(StageEntered(stage.name.lower()))

    def overdue(self, graces: float = 0.0) -> bool:
        """Whether the stage's deadline, and then some graces, have passed."""
        return self.now >= self.stage_deadline + graces * self.grace

    def large_enough(self, members: frozenset[int]) -> bool:
        """Whether a roster, mask set or survivor set has max(t, u_min) peers."""
        return len(members) >= self.parameters.quorum

    def is_live(self, index: int) -> bool:
        """Whether a peer's link is not lost and it did not leave."""
        return index not in self.post.gone

    def live(self, members: frozenset[int]) -> frozenset[int]:
        """Those of a set that are live, this peer among them."""
        return members - self.post.gone if self.post.gone else members

    def chunk_plan(self) -> ChunkPlan:
        """The chunks of the mask set, once that is adopted."""
        assert self.plan is not None
        return self.plan

    def adopt_mask_set(self, members: frozenset[int], bits: int) -> None:
        """Fix K: it names T2 and cuts the vector into chunks."""
        self.mask_set = members
        self.t2 = hashlib.sha256(b"p2psa/1/masked" + self.t1 + struct.pack("<Q", bits)).digest()
        self.plan = self.parameters.chunks(members)
        self.post.codec.know_chunks(self.plan)

    def adopt_survivors(self, members: frozenset[int], bits: int, root: bytes) -> None:
        """Fix U: it names T3."""
        self.survivors = members
        self.t3 = hashlib.sha256(b"p2psa/1/survivors" + self.t2 + struct.pack("<Q", bits) + root).digest()

    def begin_work(self, job: Callable[[], object], then: Callable[[object], None]) -> None:
        """Have a job run in a thread; `then` takes what it returns."""
        self._work_number += 1
        self._work[self._work_number] = then
        self.post.actions.append(Work(self._work_number, job))

    def take_work(self, number: int) -> Callable[[object], None]:
        """What waits for the outcome of a job; each outcome is taken once."""
        return self._work.pop(number)

    def forget_secrets(self) -> None:
        """Drop the keys of the attempt and every job that holds them."""
        self.secrets.forget()
        self.coefficients = self.rounding_key = b""
