"""R5 (spec 07 §9): owners' sums, chunks that are rescued or lost, and the aggregate."""

from __future__ import annotations

import hashlib
import struct

from protocol.errors import ProtocolError
from protocol.identity import verify
from protocol.round.actions import Revealed
from protocol.round.advertising import Advertising
from protocol.round.collecting import Collecting
from protocol.round.errors import MessageError, RoundFailedError
from protocol.round.jobs import SumJob, UnpackJob
from protocol.round.messages import Decide, Kind, Received, Sum
from protocol.round.requests import Requests
from protocol.round.seeds import SeedBook
from protocol.round.state import RoundState, Stage
from protocol.secagg.apply import Aggregate
from protocol.secagg.parameters import bits_of, indexes_of

__all__ = ["Summing"]

_SUM_LABEL = "p2psa/1/sum"
_MAX_EARLY_SUMS = 4
_MAX_RESCUES = 2
"""Times the first leader tries to have a missing chunk summed again before it is lost. A later one tries once: others
wait two graces for it, of which the first half passes before it may act and each try takes one."""


class Summing:
    """The chunk sums of one attempt."""

    def __init__(
        self, state: RoundState, advertising: Advertising, collecting: Collecting, requests: Requests
    ) -> None:
        self._state = state
        self._advertising = advertising
        self._collecting = collecting
        self._requests = requests
        self._early: dict[int, dict[int, Received]] = {}
        self._sums: dict[int, Received] = {}
        self._started: set[int] = set()
        self._rescues: dict[int, int] = {}
        self._lost: frozenset[int] = frozenset()

    def keep(self, received: Received, *, made_here: bool = False) -> None:
        """Check a sum and keep it; a few of each peer wait for the certificate or for word that it owns the chunk.

        Only `made_here` says that this peer has just signed it: others pass on anybody's sums, and may forge one in
        this peer's name.

        Raises:
            ProtocolError: of wrong length, wrongly signed, or too many wait.
            RoundFailedError: two owners signed different sums.
        """
        total = _sum(received)
        if not self._state.t3 or received.sender not in self._collecting.owners.get(total.chunk, ()):
            waiting = self._early.setdefault(received.sender, {})
            if len(waiting) >= _MAX_EARLY_SUMS and total.chunk not in waiting:
                raise MessageError(
                    f"peer {received.sender} sent more than {_MAX_EARLY_SUMS} sums of chunks that it does not own yet"
                )
            waiting.setdefault(total.chunk, received)
            return
        known = self._sums.get(total.chunk)
        if known is not None and known.message == total:
            return
        if not made_here:
            self._check(received.sender, total)
        if known is None:
            self._accept(total.chunk, received)
        elif _sum(known).payload != total.payload:
            raise RoundFailedError(
                f"peers {known.sender} and {received.sender} signed different sums of chunk {total.chunk}"
            )

    def take_early(self) -> None:
        """Look again at the sums that wait."""
        if not self._early:
            return
        early, self._early = self._early, {}
        for waiting in early.values():
            for received in waiting.values():
                try:
                    self.keep(received)
                except RoundFailedError:
                    raise
                except ProtocolError as error:
                    self._state.post.report(received.sender, str(error))

    def sum_owned(self, book: SeedBook) -> None:
        """Begin to sum every chunk that this peer owns and holds all contributions to."""
        state = self._state
        for chunk in self._collecting.owned:
            if chunk not in self._started and self._collecting.store.holds(chunk, state.survivors):
                self._started.add(chunk)
                state.begin_work(self._job(chunk, book), lambda packed, chunk=chunk: self._send(chunk, packed))  # type: ignore[misc]  # mypy infers no type for a lambda's default

    def complete(self) -> bool:
        """Whether every chunk is summed or given up."""
        known = len(self._sums) + len(self._lost)
        return known >= self._state.chunk_plan().count and not self.absent()

    def absent(self) -> frozenset[int]:
        """Chunks neither summed nor given up."""
        return frozenset(range(self._state.chunk_plan().count)) - frozenset(self._sums) - self._lost

    def forwardable(self, chunk: int) -> Received | None:
        """The sum of a chunk as its owner signed it."""
        return self._sums.get(chunk)

    def ask(self, finished: frozenset[int]) -> None:
        """Ask so many of those who hold every sum that one is honest: an owner may have sent its own to some."""
        state = self._state
        enough = state.parameters.size - state.parameters.threshold + 1
        for index in sorted(state.live(finished))[:enough]:
            self._requests.need(index, Kind.SUMS, bits_of(self.absent()))

    def finish(self) -> None:
        """All chunks are summed or lost: put the aggregate together."""
        payloads = {c: _sum(received).payload for c, received in self._sums.items() if c not in self._lost}
        job = UnpackJob(self._state.parameters, self._state.chunk_plan(), payloads, self._state.survivors)
        self._state.enter(Stage.AGREE, self._state.deadlines.sum_ms)
        self._state.begin_work(job, self._reveal)

    def judge_lost(self, decided: Decide, sender: int) -> bool:
        """Whether to give chunks up: only after this peer's own deadline, or once their owners are gone.

        Raises:
            MessageError: it names a chunk that does not exist.
        """
        chunks = indexes_of(decided.members)
        if not chunks or max(chunks) >= self._state.chunk_plan().count:
            raise MessageError(f"peer {sender} decided on lost chunks {sorted(chunks)} that do not exist")
        gone = all(not self._state.live(frozenset(self._collecting.owners[chunk])) for chunk in chunks)
        return gone or self._state.overdue() or sender == self._state.own_index

    def give_up(self, decided: Decide) -> None:
        """Lost chunks count as zero, also where a sum of them came in the meantime: everybody must agree."""
        if not self._lost:
            self._lost = indexes_of(decided.members)
            self._state.changes += 1

    def rescue(self, absent: frozenset[int], *, view: int) -> frozenset[int] | None:
        """As leader: have stalled chunks sent again and summed by backups; gives those that nobody can sum."""
        most = _MAX_RESCUES if view == 0 else 1
        state = self._state
        live = state.live(state.mask_set)
        stalled = {c for c in absent if state.overdue() or not live.intersection(self._collecting.owners[c])}
        tries = {c: self._rescues.get(c, 0) for c in stalled}
        again = {c for c in stalled if tries[c] == 0 or (tries[c] < most and state.overdue())}
        if again:
            for chunk in again:
                self._rescues[chunk] = tries[chunk] + 1
            self._ask_everybody(again)
            if state.survivors <= live:  # else a contribution is missing for good
                self._collecting.assign(sorted(again), live)
            state.stage_deadline = state.now + state.grace
            state.changes += 1
            return None
        return frozenset(stalled) if stalled and state.overdue() else None

    def _ask_everybody(self, chunks: set[int]) -> None:
        for index in self._state.live(self._state.roster) - {self._state.own_index}:
            self._requests.need(index, Kind.SUMS, bits_of(chunks))

    def _job(self, chunk: int, book: SeedBook) -> SumJob:
        state = self._state
        dropouts = state.mask_set - state.survivors
        return SumJob(
            state.parameters,
            state.chunk_plan().bounds(chunk)[0],
            self._collecting.store.contributions(chunk, state.survivors),
            state.t1,
            {i: book.secret(i) for i in sorted(state.survivors)},
            {i: book.secret(i) for i in sorted(dropouts)},
            {i: self._advertising.advert(i).mask_public for i in state.survivors},
        )

    def _send(self, chunk: int, packed: object) -> None:
        assert isinstance(packed, bytes)
        signature = self._state.identity.sign(_SUM_LABEL, self._payload(chunk, packed))
        self._state.post.broadcast(Sum(chunk, signature, memoryview(packed)))

    def _payload(self, chunk: int, packed: bytes | memoryview) -> bytes:
        state = self._state
        return state.parameters.t0 + state.t3 + struct.pack("<H", chunk) + hashlib.sha256(packed).digest()

    def _check(self, sender: int, total: Sum) -> None:
        plan = self._state.chunk_plan()
        start, end = plan.bounds(total.chunk)
        expected = self._state.parameters.packed_bytes(end - start)
        if len(total.payload) != expected:
            raise MessageError(f"sum of chunk {total.chunk} has {len(total.payload)} bytes, expected {expected}")
        payload = self._payload(total.chunk, total.payload)
        verify(self._state.parameters.cohort[sender], _SUM_LABEL, payload, total.signature)

    def _accept(self, chunk: int, received: Received) -> None:
        self._sums[chunk] = received
        self._state.changes += 1
        if chunk in self._rescues:  # this peer leads and had it looked for: others may miss it too
            has_it = frozenset({received.sender})
            self._state.post.relay_all(bytes(received.raw), bulk=True, leave_out=has_it)

    def _reveal(self, outcome: object) -> None:
        assert isinstance(outcome, Aggregate)
        self._state.post.actions.append(Revealed(outcome))


def _sum(received: Received) -> Sum:
    assert isinstance(received.message, Sum)
    return received.message
