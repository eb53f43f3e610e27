"""The p2psa/1 machine of one peer in one attempt (spec 07): bytes, time and finished work in, actions out.

    ADVERTISE --roster--> SHARE --mask set--> COLLECT --certificate--> UNMASK --all secrets--> SUM --all sums-->
    AGREE --t equal results--> DONE;   any stage --deadline, too few peers, a refused sum--> FAILED

Handlers of messages only check and keep; `_advance` makes every transition that what is kept allows. The order in
which messages arrive therefore does not matter, and a message for a later stage waits where it is kept. Each stage
has a file of its own: advertising, sharing, collecting, voting, unmasking, summing, agreeing; views has the leaders.
"""

from __future__ import annotations

from protocol.errors import ProtocolError, RoundError
from protocol.identity import Identity
from protocol.round.actions import Action, Failed, StageEntered
from protocol.round.advertising import Advertising
from protocol.round.agreeing import Agreeing
from protocol.round.collecting import Collecting
from protocol.round.deciding import Deciding
from protocol.round.errors import RoundFailedError
from protocol.round.inbox import Inbox
from protocol.round.jobs import GroupSum, LocalUpdate
from protocol.round.messages import Abort, Certificate, Kind
from protocol.round.requests import Requests
from protocol.round.sharing import Sharing
from protocol.round.state import RoundState, Stage, randomness_bytes
from protocol.round.summing import Summing
from protocol.round.unmasking import Unmasking
from protocol.round.views import Views
from protocol.round.voting import Voting
from protocol.secagg.parameters import RoundParameters, indexes_of
from protocol.terms import Deadlines

__all__ = ["RoundMachine", "Stage", "randomness_bytes"]


class RoundMachine:
    """One peer's part in one attempt at a round, in every role: participant, chunk owner and leader.

    Feed it with `start`, `link_up`, `link_down`, `receive`, `provide_update`, `finish_work`, `provide_result` and
    `tick`; after each call take `actions()` and do them in order; call `tick` no later than `next_deadline()`.
    Times are seconds of one monotonic clock. No bytes from a peer make it raise. `repr` shows no secret.
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
        """Prepare; nothing is sent before `start`.

        Args:
            parameters: what T0 binds.
            identity: this peer's key; it must be in the cohort.
            fingerprint: SHA-256 of this peer's DTLS certificate.
            deadlines: how long each stage may wait.
            randomness: `randomness_bytes(parameters)` fresh bytes of the operating system, never used twice.

        Raises:
            RoundError: the randomness has another length, or the identity is not in the cohort.
        """
        self.parameters = parameters
        state = self._state = RoundState(
            parameters=parameters,
            identity=identity,
            fingerprint=fingerprint,
            deadlines=deadlines,
            randomness=randomness,
        )
        self._requests = Requests(state)
        self._views = Views(state)
        self._advertising = Advertising(state, self._views, self._requests)
        self._sharing = Sharing(state, self._advertising)
        self._collecting = Collecting(state, self._views, self._advertising)
        self._voting = Voting(state, self._views, self._collecting, self._requests)
        self._unmasking = Unmasking(state, self._advertising, self._sharing)
        self._summing = Summing(state, self._advertising, self._collecting, self._requests)
        self._agreeing = Agreeing(state)
        self._deciding = Deciding(state, self._views)
        self._inbox = Inbox(
            state,
            self._requests,
            self._views,
            self._advertising,
            self._sharing,
            self._collecting,
            self._voting,
            self._unmasking,
            self._summing,
            self._agreeing,
        )
        self._started = False
        self._steps = {
            Stage.ADVERTISE: self._step_advertise,
            Stage.SHARE: self._step_share,
            Stage.COLLECT: self._step_collect,
            Stage.UNMASK: self._step_unmask,
            Stage.SUM: self._step_sum,
            Stage.AGREE: self._step_agree,
        }
        self._requests.offer(Kind.ADVERTS, self._advertising.forwardable)
        self._requests.offer(Kind.COMMITS, self._collecting.store.commit_message)
        self._requests.offer(Kind.SUMS, self._summing.forwardable)
        self._requests.offer(Kind.CERTIFICATE, lambda _: self._voting.certificate)

    def __repr__(self) -> str:
        return f"RoundMachine(peer={self.own_index}, stage={self.stage.name.lower()}, view={self.view})"

    # What comes in.

    def start(self, now: float) -> None:
        """Begin: record the attempt, advertise."""
        state = self._state
        state.now = now
        if self._started or state.stage is Stage.FAILED:
            return
        self._started = True
        state.begin_clock()
        state.post.persist("joined", "")
        state.enter(Stage.ADVERTISE, state.deadlines.advertise_ms)
        self._advertising.begin()
        self._advance()

    def link_up(self, index: int, fingerprint: bytes, now: float) -> None:
        """A link to a peer is open; `fingerprint` is the SHA-256 of the certificate its DTLS session shows."""
        self._state.now = now
        self._advertising.open_link(index, fingerprint)
        if self._advertising.check_link(index):
            self._state.post.open(index, fingerprint)
        else:
            self._state.post.close(index)
        self._advance()

    def link_down(self, index: int, now: float) -> None:
        """The link to a peer is gone."""
        self._state.now = now
        self._state.post.close(index)
        self._advance()

    def receive(self, index: int, data: bytes | memoryview, *, bulk: bool, now: float) -> None:
        """A round message came over the link to peer `index`."""
        state = self._state
        state.now = now
        if state.stage is Stage.FAILED or not self._advertising.check_link(index):
            return
        try:
            self._inbox.keep(state.post.codec.decode(data, bulk=bulk), via=index)
        except RoundFailedError as error:
            self.fail(str(error), now)
        except ProtocolError as error:
            state.post.report(index, str(error))
        self._advance()

    def provide_update(self, update: LocalUpdate | GroupSum, now: float) -> None:
        """The local update, or where groups' sums are combined that of this delegate's group, is ready; used once."""
        self._state.now = now
        if self.stage <= Stage.COLLECT:
            self._collecting.update = update
        self._advance()

    def finish_work(self, number: int, outcome: object, now: float) -> None:
        """The outcome of a `Work` action: what its job returned, or the RoundError it raised."""
        self._state.now = now
        then = self._state.take_work(number)
        if isinstance(outcome, RoundError):
            self.fail(str(outcome), now)
            return
        if self.stage not in (Stage.DONE, Stage.FAILED):
            try:
                then(outcome)
            except RoundFailedError as error:
                self.fail(str(error), now)
        self._advance()

    def provide_result(self, model_digest: str, tail: bytes, now: float) -> None:
        """The aggregate was applied: digest of the next model, and the tail's bytes."""
        self._state.now = now
        if self.stage is Stage.AGREE:
            self._agreeing.provide(model_digest, tail)
        self._advance()

    def tick(self, now: float) -> None:
        """Time passed."""
        self._state.now = now
        self._advance()

    def fail(self, reason: str, now: float) -> None:
        """End the attempt from outside or inside; others are told."""
        self._state.now = now
        if self.stage in (Stage.DONE, Stage.FAILED):
            return
        self._state.post.broadcast(Abort(reason=1), to_self=False)
        self._state.stage = Stage.FAILED
        self._state.post.actions.append(Failed(reason))
        self._forget()

    # What goes out.

    def actions(self) -> list[Action]:
        """Everything to do now, in order; each action is given once."""
        post = self._state.post
        out, post.actions = post.actions, []
        return out

    def next_deadline(self) -> float | None:
        """When `tick` is due at the latest; None before the start and once the attempt has ended."""
        state, views = self._state, self._views
        if self.stage in (Stage.DONE, Stage.FAILED) or not self._started:
            return None
        marks = (
            state.stage_deadline,
            state.stage_deadline + state.grace,
            views.leader_deadline - state.grace,
            views.leader_deadline,
            views.leader_deadline + state.grace,
            views.ready_at,
            views.ready_at + state.grace / 2,
            views.ready_at + state.grace,
        )
        return min([state.end, *(mark for mark in marks if mark > state.now)])

    @property
    def own_index(self) -> int:
        """This peer's index in the cohort."""
        return self._state.own_index

    @property
    def stage(self) -> Stage:
        """Where this peer stands."""
        return self._state.stage

    @property
    def view(self) -> int:
        """Number of the current view."""
        return self._views.view

    @property
    def leader(self) -> int:
        """Index of the leader of the current view."""
        return self._views.leader

    @property
    def mask_set(self) -> frozenset[int]:
        """K, who may contribute; empty before it is agreed."""
        return self._state.mask_set

    @property
    def survivors(self) -> frozenset[int]:
        """The certified survivor set; empty before the certificate."""
        return self._state.survivors

    # Transitions.

    def _advance(self) -> None:
        state = self._state
        try:
            while self._started and (step := self._steps.get(state.stage)) is not None:
                state.check_end()
                before = state.changes
                self._views.step()
                step()
                if state.changes == before:
                    return
        except RoundFailedError as error:
            self.fail(str(error), state.now)

    def _step_advertise(self) -> None:
        state = self._state
        decided = self._deciding.adopted(Kind.ROSTER, state.parameters.t0, self._advertising.judge)
        if decided is not None:
            state.roster, state.t1 = indexes_of(decided.members), decided.root
            state.post.audience = state.roster
            state.enter(Stage.SHARE, state.deadlines.share_ms)
            self._sharing.begin()
        elif self._deciding.may_decide(Kind.ROSTER, state.parameters.t0):
            have = self._advertising.have()
            if state.overdue() or all(i in have for i, link in state.post.links.items() if link.live):
                roster = self._advertising.propose()
                self._deciding.decide(Kind.ROSTER, state.parameters.t0, roster, self._advertising.digest(roster))

    def _step_share(self) -> None:
        state = self._state
        self._sharing.open_boxes()
        decided = self._deciding.adopted(Kind.MASKED, state.t1, self._sharing.judge)
        if decided is not None:
            state.adopt_mask_set(indexes_of(decided.members), decided.members)
            self._collecting.begin()
            state.enter(Stage.COLLECT, state.deadlines.train_ms + state.deadlines.commit_ms)
            self._voting.begin()
            return
        ack = self._sharing.ack(self.view)
        if ack is not None:
            self._views.tell_leader(ack)
        if self._deciding.may_decide(Kind.MASKED, state.t1):
            mask_set = self._sharing.propose(later_view=self.view > 0, waited=self._views.may_overrule())
            if mask_set is not None:
                self._deciding.decide(Kind.MASKED, state.t1, mask_set, bytes(32))

    def _step_collect(self) -> None:
        state = self._state
        self._collecting.take_assignments()
        if self._voting.certificate is not None:
            self._adopt_certificate(self._voting.certificate)
            return
        self._collecting.start_masking()
        decided = self._deciding.adopted(Kind.SURVIVORS, state.t2, self._voting.judge)
        if decided is not None:
            self._voting.vote(decided)
            if self._views.leads():
                self._voting.gather(decided)
        else:
            self._collecting.report()
            if self._deciding.may_decide(Kind.SURVIVORS, state.t2):
                self._decide_survivors()
        # who reveals holds the certificate that did not reach this peer, and waits two graces for those who lack it
        if self.view > 0 or state.overdue() or self._views.is_leader_slow():
            for revealer in sorted(self._unmasking.revealers):
                if state.is_live(revealer):
                    self._requests.need(revealer, Kind.CERTIFICATE, 0)

    def _decide_survivors(self) -> None:
        survivors = self._collecting.propose()
        if survivors is not None:
            root = self._collecting.root(survivors)
            assert root is not None  # survivors are chosen among the commits held
            self._deciding.decide(Kind.SURVIVORS, self._state.t2, survivors, root)

    def _adopt_certificate(self, certificate: Certificate) -> None:
        self._collecting.update = None  # what was not masked by now is thrown away
        self._views.adopt_certificate(certificate)
        self._state.enter(Stage.UNMASK, self._state.deadlines.unmask_ms)
        self._unmasking.begin(certificate)

    def _step_unmask(self) -> None:
        self._collecting.take_assignments()
        if self._unmasking.step():
            self._state.enter(Stage.SUM, self._state.deadlines.sum_ms)

    def _step_sum(self) -> None:
        state = self._state
        assert self._unmasking.book is not None
        self._collecting.take_assignments()
        self._summing.take_early()
        self._summing.sum_owned(self._unmasking.book)
        lost = self._deciding.adopted(Kind.LOST, state.t3, self._summing.judge_lost)
        if lost is not None:
            self._summing.give_up(lost)
        if self._summing.complete():
            self._summing.finish()
            return
        if state.overdue():
            self._summing.ask(self._agreeing.finished)
        if lost is None and self._deciding.may_decide(Kind.LOST, state.t3):
            hopeless = self._summing.rescue(self._summing.absent(), view=self.view)
            if hopeless is not None:
                self._deciding.decide(Kind.LOST, state.t3, hopeless, bytes(32))

    def _step_agree(self) -> None:
        completed = self._agreeing.step()
        if completed is not None:
            self._state.stage = Stage.DONE
            self._state.post.actions += [StageEntered("done"), completed]
            self._forget()

    def _forget(self) -> None:
        self._state.forget_secrets()
        self._advertising.forget_secrets()
        self._collecting.update = None
