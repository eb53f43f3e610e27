"""Leaders and views (spec 07 §11): who leads, when a view ends, and what a new leader passes on."""

from __future__ import annotations

import hashlib

from protocol.round.decisions import Decisions
from protocol.round.errors import RoundFailedError
from protocol.round.messages import Decide, Forward, Message, Received, Status, Vote
from protocol.round.state import RoundState, Stage

__all__ = ["Views"]

_LEADER_GRACES = 2.0
"""Graces that a leader has after the stage's deadline, or after its view began if that was later."""


class Views:
    """The views of one attempt as one peer sees them.

    `view` counts up from 0, `leader` is the index of who leads it. A peer leaves a view when its leader is gone,
    silent past the deadline or caught breaking a rule, or when so many peers left it that one of them is honest.
    """

    def __init__(self, state: RoundState) -> None:
        self._state = state
        self.view = 0
        self.leader_deadline = float("inf")
        self.ready_at = 0.0
        self.decisions = Decisions(self.leader_of)
        self.certificate: Message | None = None
        self._first_leader = int.from_bytes(
            hashlib.sha256(b"p2psa/1/leader" + state.parameters.t0).digest()[:4], "little"
        )
        self.leader = self.leader_of(self.view)
        self._statuses: dict[int, int] = {}
        self._shown: dict[int, set[int]] = {}
        self._followers: set[int] = set()
        self._holders: dict[tuple[int, int], list[int]] = {}
        self._deposed: set[int] = set()
        self._told: tuple[int, Message] | None = None
        self.vote: Received | None = None
        state.on_enter.append(self._restart)

    def leader_of(self, view: int) -> int:
        """Index of the leader of a view."""
        return (self._first_leader + view) % self._state.parameters.size

    def leads(self) -> bool:
        """Whether this peer leads and may act: in a later view it first hears what others adopted."""
        if self.leader != self._state.own_index:
            return False
        if self.view == 0 or self._state.now >= self.ready_at:
            return True
        others = self._state.live(frozenset(self._state.post.links))
        return all(self._statuses.get(index, -1) >= self.view for index in others)

    def note_adopted(self, decision: Decide, by: int) -> None:
        """A peer showed or passed on a decision: so it adopted it, and holds what the decision is about."""
        holders = self._holders.setdefault((decision.kind, decision.view), [])
        if by not in holders:
            holders.append(by)

    def holders(self, decision: Decide) -> list[int]:
        """Whom to ask for what a decision is about: who made it, and so many who adopted it that one is honest."""
        enough = self._state.parameters.size - self._state.parameters.threshold + 1
        others = [i for i in self._holders.get((decision.kind, decision.view), []) if self._state.is_live(i)]
        return [self.leader_of(decision.view), *others[:enough]]

    def may_overrule(self) -> bool:
        """Whether a new leader has waited long enough for what others owe it: answers, or the proof of a decision."""
        return self._state.now >= self.ready_at + self._state.grace / 2

    def depose(self, received: Received) -> None:
        """The leader of a view made a decision that no honest leader makes: do not wait for it."""
        assert isinstance(received.message, Decide)
        self._deposed.add(received.message.view)

    def step(self) -> None:
        """Move to later views where the current one has ended."""
        state = self._state
        while self.leader != state.own_index and (
            not state.is_live(self.leader) or state.now >= self.leader_deadline or self.view in self._deposed
        ):
            self._next()
        if self._statuses:
            ahead = sum(view > self.view for view in self._statuses.values())
            if ahead >= state.parameters.size - state.parameters.threshold + 1:
                self._next()

    def keep_status(self, received: Received) -> None:
        """A peer moved to a view; it is owed what this peer adopted and it did not, and from who leads the view more.

        Raises:
            ProtocolError: the status shows something that is no decision, or a decision that breaks a rule.
        """
        status, sender = received.message, received.sender
        assert isinstance(status, Status)
        if status.view <= self._statuses.get(sender, 0):
            return  # a repeated status earns no second answer
        shown = [self._state.post.codec.decode(raw, bulk=False) for raw in status.decisions]
        self._statuses[sender] = status.view
        leads = self.leader_of(status.view) == self._state.own_index
        kinds = self._shown.setdefault(sender, set())
        if leads:
            self._followers.add(sender)
        # with anything but decisions in it, the codec refuses a status
        kinds.update(inner.message.kind for inner in shown if isinstance(inner.message, Decide))
        for inner in shown:
            self.decisions.keep(inner)
            assert isinstance(inner.message, Decide)
            self.note_adopted(inner.message, sender)
        for kind in self.decisions.all_adopted():
            self._pass_on(sender, kind)
        if leads and self.certificate is not None:
            self._state.post.send(sender, self.certificate)

    def adopt(self, received: Received) -> None:
        """Adopt a decision and pass it on to those who look to this peer for it."""
        assert isinstance(received.message, Decide)
        self.decisions.adopt(received)
        if received.sender != self._state.own_index:
            for follower in sorted(self._followers):
                self._pass_on(follower, received.message.kind)

    def expect_soon(self) -> None:
        """The next message of this leader takes one exchange, not a training: wait for it only so long."""
        self.leader_deadline = min(self.leader_deadline, self._state.now + _LEADER_GRACES * self._state.grace)

    def is_leader_slow(self) -> bool:
        """Whether half of the time that this leader has is over."""
        return self._state.now >= self.leader_deadline - self._state.grace

    def is_left(self) -> bool:
        """As leader: whether those who waited for it should have left this view a grace ago, and did not say so."""
        return self._state.now >= self.leader_deadline + self._state.grace

    def adopt_certificate(self, certificate: Message) -> None:
        """Keep the certificate for those who look to this peer for it."""
        self.certificate = certificate
        for follower in sorted(self._followers):
            self._state.post.send(follower, certificate)

    def tell_leader(self, message: Message) -> None:
        """Send a report to the leader, once for each leader and content."""
        if self._told != (self.leader, message):
            self._told = (self.leader, message)
            self._state.post.send(self.leader, message)

    def cast(self, vote: Received) -> None:
        """Send this peer's one vote, to this leader and to every later one."""
        self.vote = vote
        self._state.changes += 1
        self._send_vote()

    def vote_includes(self, index: int) -> bool:
        """Whether this peer's vote, if it is cast, counts a peer as a survivor."""
        if self.vote is None:
            return True
        assert isinstance(self.vote.message, Vote)
        return bool(self.vote.message.survivors >> index & 1)

    def _send_vote(self) -> None:
        if self.vote is None:
            return
        if self.leader == self._state.own_index:
            self._state.post.on_own(self.vote)
        else:
            self._state.post.relay(self.leader, self.vote.raw, bulk=False)

    def _pass_on(self, follower: int, kind: int) -> None:
        decision = self.decisions.adopted(kind)
        if decision is not None and kind not in self._shown[follower]:
            self._shown[follower].add(kind)
            self._state.post.send(follower, Forward(bytes(decision.raw)))

    def _next(self) -> None:
        state = self._state
        self.view += 1
        self.leader = self.leader_of(self.view)
        state.changes += 1
        if self.view >= state.parameters.size:
            raise RoundFailedError(f"no leader left in stage {state.stage.name.lower()}")
        # peers may train for as long as they might under the leader before, unless they have voted already
        begins = state.now if self.vote is not None else max(state.now, state.stage_deadline)
        self.leader_deadline = begins + _LEADER_GRACES * state.grace
        self.ready_at = state.now + state.grace / 2
        self._told = None
        shown = tuple(bytes(decision.raw) for decision in self.decisions.all_adopted().values())
        state.post.broadcast(Status(self.view, shown), to_self=False)
        self._send_vote()

    def _restart(self) -> None:
        self.leader_deadline = self._state.stage_deadline + _LEADER_GRACES * self._state.grace
        self._told = None
        if self._state.stage >= Stage.AGREE:
            self.leader_deadline = float("inf")
