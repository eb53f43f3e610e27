"""R2 and the first half of R3 (spec 07 §6, §7): masked chunks and commits go out, owners report what they hold."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

from protocol.round.advertising import Advertising
from protocol.round.chunks import ChunkStore
from protocol.round.errors import MessageError, RoundFailedError
from protocol.round.jobs import GroupSum, LocalUpdate, MaskJob
from protocol.round.leading import choose_survivors, next_owner, unowned_chunks
from protocol.round.messages import Assign, Chunk, Commit, Forward, Have, Received
from protocol.round.state import RoundState
from protocol.round.views import Views
from protocol.secagg.masking import MaskedUpdate
from protocol.secagg.parameters import bits_of, indexes_of

__all__ = ["Collecting"]

_MAX_PENDING_CHUNKS = 4
_MAX_BACKUPS = 2
"""Owners that one chunk may get after its first ones: a leader must not have everything sent to everybody."""


class Collecting:
    """This peer's masked update, the chunks it owns, and the leader's view of who holds what."""

    def __init__(self, state: RoundState, views: Views, advertising: Advertising) -> None:
        self._state = state
        self._views = views
        self._advertising = advertising
        self.store = ChunkStore(ring_bits=state.parameters.ring_bits, max_pending_per_peer=_MAX_PENDING_CHUNKS)
        self.owners: dict[int, tuple[int, ...]] = {}
        self.owned: list[int] = []
        self.update: LocalUpdate | GroupSum | None = None
        self._spent = False
        self._masked: MaskedUpdate | None = None
        self._haves: dict[int, Have] = {}
        self._awaited: set[int] = set()
        self._assigns: list[tuple[int, Assign]] = []

    def begin(self) -> None:
        """Cut the vector for the adopted mask set and check what came early."""
        state, plan = self._state, self._state.chunk_plan()
        self.owners = {chunk: plan.owners(chunk) for chunk in range(plan.count)}
        self.owned = [chunk for chunk, owners in self.owners.items() if state.own_index in owners]
        for fault in self.store.open(plan, state.t2, owned=self.owned):
            state.post.report(state.own_index, str(fault))

    def keep_commit(self, received: Received, *, answered: bool) -> None:
        """Keep a commit; `answered` says that this peer asked for it because its own copies give another root.

        Raises:
            MessageError: it does not fit, or contradicts an earlier one that was not asked about.
        """
        known = self.store.commit_message(received.sender)
        own = received.sender == self._state.own_index
        if answered and not own and known is not None and known.message != received.message:
            self.store.replace_commit(received)
            return
        for fault in self.store.add_commit(received):
            self._state.post.report(received.sender, str(fault))

    def keep_chunk(self, received: Received) -> None:
        """Keep a contribution.

        Raises:
            MessageError: it does not fit its commit, or too many wait.
        """
        assert isinstance(received.message, Chunk)
        self.store.add_chunk(received.sender, received.message.chunk, received.message.payload)

    def keep_have(self, received: Received) -> None:
        """Add to what a peer says it holds; it never holds less than it once did."""
        new, known = received.message, self._haves.get(received.sender)
        assert isinstance(new, Have)
        self._awaited.discard(received.sender)
        chunks = dict(known.chunks) if known is not None else {}
        for chunk, held in new.chunks:
            chunks[chunk] = chunks.get(chunk, 0) | held
        commits = new.commits | (known.commits if known is not None else 0)
        self._haves[received.sender] = Have(new.view, commits, tuple(chunks.items()))

    def keep_assignment(self, received: Received) -> None:
        """A leader gives a chunk to a backup owner; it waits while its view or the mask set is not known.

        Raises:
            MessageError: the sender does not lead that view, or assigns more than chunks can need.
        """
        assign, sender = received.message, received.sender
        assert isinstance(assign, Assign)
        if sender != self._views.leader_of(assign.view):
            raise MessageError(f"peer {sender} assigned a chunk in view {assign.view} but does not lead it")
        mine = [kept for by, kept in self._assigns if by == sender]
        if len(mine) >= _MAX_BACKUPS * self._state.parameters.size:
            raise MessageError(f"peer {sender} assigned more chunks than there are")
        self._assigns.append((sender, assign))

    def take_assignments(self) -> None:
        """Follow the assignments whose view is reached: send the same bytes again to the new owner."""
        if not self._assigns:
            return
        waiting, self._assigns = self._assigns, []
        for sender, assign in waiting:
            if self._state.plan is None or assign.view > self._views.view:
                self._assigns.append((sender, assign))
            elif assign.chunk < self._state.plan.count and assign.owner in self._state.mask_set:
                self._add_owner(assign.chunk, assign.owner)

    def start_masking(self) -> None:
        """Mask the update, once it is here; a second one would be masked with the same keys and is never taken.

        Raises:
            RoundFailedError: it has another length than the round's vector, or is an update where groups' sums are
                combined, or the reverse.
        """
        state, update = self._state, self.update
        if update is None or self._spent or state.own_index not in state.mask_set:
            return
        self.update, self._spent = None, True
        if update.length != state.parameters.vector_length:
            raise RoundFailedError(
                f"the update has {update.length} coordinates, expected {state.parameters.vector_length}"
            )
        if isinstance(update, GroupSum) != state.parameters.combines:
            expected = "the sum of a group" if state.parameters.combines else "an update"
            raise RoundFailedError(
                f"a {type(update).__name__} was handed in, this cohort sums {expected} of each peer"
            )
        shared = {i: self._advertising.mask_secret(i) for i in state.mask_set if i != state.own_index}
        job = MaskJob(
            state.parameters,
            state.chunk_plan(),
            state.own_index,
            state.secrets.self_mask_seed,
            shared,
            state.t1,
            update,
            state.rounding_key,
        )
        state.begin_work(job, self._send_masked)

    def report(self) -> None:
        """Tell the leader what is held: once it is all that can come, and from the deadline on at every change."""
        state = self._state
        complete = self.store.complete(state.live(state.mask_set), self.owned)
        if state.own_index in state.mask_set and (complete or state.overdue()):
            chunks = tuple((chunk, self.store.held(chunk)) for chunk in self.owned)
            self._views.tell_leader(Have(self._views.view, self.store.commits, chunks))

    def propose(self) -> frozenset[int] | None:
        """As leader: a survivor set, once all live peers reported; chunks without an owner go to backups first."""
        state, plan = self._state, self._state.chunk_plan()
        waiting = state.live(state.mask_set) - (set(self._haves) - self._awaited)
        if waiting and not state.overdue(graces=1):
            return None  # at the deadline everyone reports what it holds, so wait a grace longer
        if self.store.commits.bit_count() < state.parameters.quorum:
            return indexes_of(self.store.commits) if state.overdue(graces=1) else None
        present = frozenset(i for i in self._haves if state.is_live(i))
        if self.assign(self._unheld(present), present):
            return None
        owners = {c: tuple(o for o in owners if o in present) for c, owners in self.owners.items()}
        survivors = choose_survivors(self.store.commits, self._haves, plan, owners)
        if not state.large_enough(survivors) and not state.overdue(graces=1):
            return None  # resends to backup owners may still be on their way
        self._forward_commits(survivors)
        return survivors

    def assign(self, chunks: Iterable[int], present: frozenset[int]) -> bool:
        """As leader: give chunks to backup owners; False where nobody is left to take one."""
        given = False
        for chunk in chunks:
            owner = next_owner(self._state.chunk_plan(), self.owners[chunk], present)
            if owner is not None and self._may_add_owner(chunk):
                self._awaited.add(owner)  # wait for its new report
                self._state.post.broadcast(Assign(self._views.view, chunk, owner), to_self=False)
                self._add_owner(chunk, owner)
                given = True
        if given:
            self._state.stage_deadline = self._state.now + self._state.grace
        return given

    def root(self, survivors: frozenset[int]) -> bytes | None:
        """Digest of the survivors' commits; None where one is missing."""
        state = hashlib.sha256(b"p2psa/1/commits" + self._state.t2)
        for peer in sorted(survivors):
            commit = self.store.commit_message(peer)
            if commit is None:
                return None
            state.update(struct.pack("<H", peer) + hashlib.sha256(commit.raw).digest())
        return state.digest()

    def _unheld(self, present: frozenset[int]) -> tuple[int, ...]:
        """Chunks without a live owner, or whose owners claim so few contributions that no survivor set is left."""
        plan = self._state.chunk_plan()
        unheld = set(unowned_chunks(plan, self.owners, present))
        for chunk, owners in self.owners.items():
            held = [dict(self._haves[o].chunks).get(chunk, 0) & self.store.commits for o in owners if o in present]
            if max((bits.bit_count() for bits in held), default=0) < self._state.parameters.quorum:
                unheld.add(chunk)
        return tuple(sorted(unheld))

    def _forward_commits(self, survivors: frozenset[int]) -> None:
        for peer, have in self._haves.items():
            if peer != self._state.own_index:
                for absent in sorted(indexes_of(bits_of(survivors) & ~have.commits)):
                    commit = self.store.commit_message(absent)
                    if commit is not None:
                        self._state.post.send(peer, Forward(bytes(commit.raw)))

    def _send_masked(self, outcome: object) -> None:
        assert isinstance(outcome, MaskedUpdate)
        if not self._is_wanted():
            return  # this peer is out of the survivor set already: its update is thrown away
        self._masked = outcome
        self._state.post.persist("committed", self._state.t2.hex())
        self._state.post.broadcast(Commit(self._state.t2, b"".join(outcome.digests)))
        for chunk, owners in self.owners.items():
            for owner in owners:
                self._send_chunk(owner, chunk)

    def _is_wanted(self) -> bool:
        if self._state.survivors:
            return self._state.own_index in self._state.survivors
        return self._views.vote_includes(self._state.own_index)

    def _may_add_owner(self, chunk: int) -> bool:
        return len(self.owners[chunk]) < self._state.parameters.replicas + _MAX_BACKUPS

    def _add_owner(self, chunk: int, owner: int) -> None:
        if owner in self.owners[chunk] or not self._may_add_owner(chunk):
            return  # leaders of different views may together assign more backups than one of them would
        self.owners[chunk] = (*self.owners[chunk], owner)
        self._state.changes += 1
        if owner == self._state.own_index:
            self.owned = sorted((*self.owned, chunk))
            for fault in self.store.own(chunk):
                self._state.post.report(owner, str(fault))
        if self._masked is not None and self._is_wanted():
            self._send_chunk(owner, chunk)

    def _send_chunk(self, owner: int, chunk: int) -> None:
        assert self._masked is not None
        if owner == self._state.own_index:
            self.store.add_chunk(owner, chunk, self._masked.chunks[chunk])
        else:
            self._state.post.send(owner, Chunk(chunk, self._masked.chunks[chunk]))
