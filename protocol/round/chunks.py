"""Commits and masked chunks held in one round (spec 07 §6, §7); a chunk counts once its commit vouches for it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from protocol.round.errors import MessageError
from protocol.round.messages import Commit, Received
from protocol.secagg.parameters import ChunkPlan, bits_of

__all__ = ["ChunkStore"]


class ChunkStore:
    """Keeps at most one commit per peer and, per chunk this peer may own, at most one contribution per peer."""

    def __init__(self, *, ring_bits: int, max_pending_per_peer: int) -> None:
        self._ring_bits = ring_bits
        self._max_pending = max_pending_per_peer
        self._commits: dict[int, Received] = {}
        self._pending: dict[int, dict[int, memoryview]] = {}
        self._held: dict[int, dict[int, memoryview]] = {}
        self._plan: ChunkPlan | None = None
        self._owned: set[int] = set()
        self._t2 = b""

    def open(self, plan: ChunkPlan, t2: bytes, *, owned: Collection[int]) -> list[MessageError]:
        """Begin checking against a mask set; returns what was wrong with messages that came early."""
        self._plan, self._t2 = plan, t2
        self._owned.update(owned)
        faults = []
        for sender, received in list(self._commits.items()):
            fault = self._commit_fault(received)
            if fault is not None:
                del self._commits[sender]
                faults.append(fault)
        for sender in self._commits:
            faults += self._settle(sender)
        return faults

    def own(self, chunk: int) -> list[MessageError]:
        """Become an owner of a chunk: contributions that came before this was known count now."""
        self._owned.add(chunk)
        return [fault for sender in sorted(self._pending) for fault in self._settle(sender)]

    @property
    def commits(self) -> int:
        """Bitmap of peers whose commit is held."""
        return bits_of(set(self._commits))

    def commit_message(self, peer: int) -> Received | None:
        """The exact commit of a peer."""
        return self._commits.get(peer)

    def held(self, chunk: int) -> int:
        """Bitmap of peers whose contribution to a chunk is held and vouched for."""
        return bits_of(set(self._held.get(chunk, ())))

    def holds(self, chunk: int, peers: frozenset[int]) -> bool:
        """Whether the contributions of all these peers to a chunk are held and vouched for."""
        return peers <= self._held.get(chunk, {}).keys()

    def complete(self, peers: frozenset[int], chunks: Collection[int]) -> bool:
        """Whether the commits of all these peers are held, and their contributions to all these chunks."""
        if len(self._commits) < len(peers):  # the common case, asked after every message
            return False
        return peers <= self._commits.keys() and all(self.holds(chunk, peers) for chunk in chunks)

    def contributions(self, chunk: int, peers: frozenset[int]) -> list[memoryview]:
        """Packed contributions to a chunk, by peer index."""
        return [self._held[chunk][peer] for peer in sorted(peers)]

    def add_commit(self, received: Received) -> list[MessageError]:
        """Keep a commit; a second, different one is refused.

        Raises:
            MessageError: another commit of that peer is held, or it does not fit the mask set.
        """
        known = self._commits.get(received.sender)
        if known is not None:
            if bytes(known.raw) != bytes(received.raw):
                raise MessageError(f"peer {received.sender} sent two different commits")
            return []
        if self._plan is not None:
            fault = self._commit_fault(received)
            if fault is not None:
                raise fault
        self._commits[received.sender] = received
        return self._settle(received.sender) if self._plan is not None else []

    def replace_commit(self, received: Received) -> None:
        """Take another commit of a peer than the one held, and drop what only the old one vouched for.

        Raises:
            MessageError: it does not fit the mask set.
        """
        fault = self._commit_fault(received)
        if fault is not None:
            raise fault
        self._commits[received.sender] = received
        commit = _commit(received)
        for chunk, held in self._held.items():
            payload = held.get(received.sender)
            if payload is not None and hashlib.sha256(payload).digest() != commit.digest(chunk):
                del held[received.sender]

    def add_chunk(self, sender: int, chunk: int, payload: memoryview) -> None:
        """Keep a contribution; it waits where its commit is not here or this peer does not own the chunk yet.

        Raises:
            MessageError: wrong length or digest, or more chunks than one peer may leave waiting.
        """
        if chunk in self._held and sender in self._held[chunk]:
            return
        if self._plan is not None and sender not in self._plan.peers:
            raise MessageError(f"peer {sender} sent a chunk but is not in the mask set")
        if self._plan is None or sender not in self._commits or chunk not in self._owned:
            waiting = self._pending.setdefault(sender, {})
            if len(waiting) >= self._max_pending and chunk not in waiting:
                raise MessageError(
                    f"peer {sender} sent more than {self._max_pending} chunks that cannot be checked yet"
                )
            waiting.setdefault(chunk, payload)
            return
        self._accept(sender, chunk, payload)

    def _commit_fault(self, received: Received) -> MessageError | None:
        assert self._plan is not None
        commit = _commit(received)
        if received.sender not in self._plan.peers:
            return MessageError(f"peer {received.sender} committed but is not in the mask set")
        if commit.t2 != self._t2:
            return MessageError(f"peer {received.sender} committed to another mask set")
        if commit.count != self._plan.count:
            return MessageError(
                f"peer {received.sender} committed to {commit.count} chunks, expected {self._plan.count}"
            )
        return None

    def _settle(self, sender: int) -> list[MessageError]:
        faults: list[MessageError] = []
        if sender not in self._commits:
            return faults
        waiting = self._pending.get(sender, {})
        for chunk in sorted(set(waiting) & self._owned):
            payload = waiting.pop(chunk)
            try:
                self._accept(sender, chunk, payload)
            except MessageError as fault:
                faults.append(fault)
        return faults

    def _accept(self, sender: int, chunk: int, payload: memoryview) -> None:
        assert self._plan is not None
        if chunk >= self._plan.count:
            raise MessageError(f"peer {sender} sent chunk {chunk}, there are {self._plan.count}")
        start, end = self._plan.bounds(chunk)
        expected = (end - start) * self._ring_bits // 8
        if len(payload) != expected:
            raise MessageError(f"chunk {chunk} of peer {sender} has {len(payload)} bytes, expected {expected}")
        if hashlib.sha256(payload).digest() != _commit(self._commits[sender]).digest(chunk):
            raise MessageError(f"chunk {chunk} of peer {sender} is not the one it committed to")
        self._held.setdefault(chunk, {})[sender] = payload


def _commit(received: Received) -> Commit:
    assert isinstance(received.message, Commit)
    return received.message
