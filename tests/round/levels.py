"""Many cohorts of one round over in-memory networks of real machines: level by level up to one sum.

Cohorts of a level share no link, so each has a network of its own; a delegate carries nothing from one level to the
next but its group's sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from protocol.cohorts import Delegation, FinishedGroup, arrange, compute_group_round_id, name_delegates
from protocol.errors import RoundError
from protocol.identity import Identity, PeerId
from protocol.round.combining import combining_parameters, group_sum, group_sum_digest, most_peers
from protocol.round.jobs import GroupSum, LocalUpdate, tail_bytes
from protocol.round.machine import RoundMachine, randomness_bytes
from protocol.secagg.apply import Aggregate, apply_aggregate, model_digest
from protocol.secagg.parameters import RoundParameters
from protocol.secagg.quantise import QUANTISE_KEY_BYTES
from protocol.terms import Deadlines
from tests.round.network import TAIL, Member, Network, stream
from tests.secagg.ring import read_whole

RUN = "5a" * 32


class CohortNetwork(Network):
    """One cohort of any level: `contributions` holds the update or the group's sum of each member."""

    def __init__(
        self,
        parameters: RoundParameters,
        identities: Mapping[PeerId, Identity],
        contributions: Mapping[PeerId, LocalUpdate | GroupSum],
        model: np.ndarray,
        *,
        last: bool,
    ) -> None:
        self.parameters, self.model, self.last = parameters, model, last
        self.now = 0.0
        self.wire, self.sent = [], []
        self.tamper = self.on_event = self.observer = None
        self.deadlines = Deadlines()
        self.identities = [identities[peer] for peer in parameters.cohort]
        self.contributions = [contributions[peer] for peer in parameters.cohort]
        self.group_sums: dict[PeerId, GroupSum] = {}
        self.members = []
        for index, identity in enumerate(self.identities):
            randomness = stream(f"{parameters.round_id} {index}", randomness_bytes(parameters))
            machine = RoundMachine(
                parameters=parameters,
                identity=identity,
                fingerprint=bytes([index]) * 32,
                deadlines=self.deadlines,
                randomness=randomness,
            )
            self.members.append(Member(machine, model, randomness))

    def give_update(self, index: int) -> None:
        self.members[index].machine.provide_update(self.contributions[index], self.now)
        self._do(index)

    def in_the_ring(self, index: int) -> np.ndarray:
        """What a member puts in if it counts, as plain integers [d], recomputed from its randomness."""
        contribution = self.contributions[index]
        if isinstance(contribution, GroupSum):
            return contribution.sums.astype(np.int64)
        key = self.members[index].randomness[-QUANTISE_KEY_BYTES:]
        ring = read_whole(contribution.ring_elements(self.parameters, key), self.parameters.vector_length)
        return ring.view(np.int32).astype(np.int64)

    def counted(self) -> list[int]:
        """Members whose contribution is in the sum: certified, and the first of their group in the mask set."""
        machine = next(m.machine for m in self.members if m.completed is not None)
        return [i for i in sorted(machine.survivors) if self.parameters.contributes(i, machine.mask_set)]

    def _apply(self, member: Member, aggregate: Aggregate) -> None:
        member.aggregate = aggregate
        tail = tail_bytes(aggregate.tail(len(self.model)))
        if not self.last:
            total = group_sum(aggregate, self.parameters, model_length=len(self.model))
            self.group_sums[self.parameters.cohort[member.machine.own_index]] = total
            member.machine.provide_result(group_sum_digest(total), tail, self.now)
            return
        try:
            member.model = apply_aggregate(
                self.model,
                aggregate,
                clip=self.parameters.clip,
                largest_value=self.parameters.largest_contribution,
            )
        except RoundError as error:
            member.machine.fail(str(error), self.now)
            return
        member.machine.provide_result(model_digest(member.model), tail, self.now)


Play = Callable[[int, int, CohortNetwork], None]
"""Runs one cohort: (level, group, network)."""


def undisturbed(_level: int, _group: int, network: CohortNetwork) -> None:
    network.start()
    network.run()


@dataclass
class Levels:
    """A population and one round of it; `networks[level - 1]` are the cohorts of a level."""

    population: int
    size: int
    fan_in: int
    length: int = 24
    networks: list[list[CohortNetwork]] = field(default_factory=list)
    finished: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        made = [Identity(stream(f"levels identity {i}", 32)) for i in range(self.population)]
        self.identities = {identity.peer_id: identity for identity in made}
        self.model = np.frombuffer(stream("levels model", 2 * self.length), "<i2").astype(np.float32) / 32768
        self.updates = {peer: self._update(peer) for peer in self.identities}

    def _update(self, peer: PeerId) -> LocalUpdate:
        values = np.frombuffer(stream(f"update {peer}", 2 * self.length), "<i2").astype(np.float32) / 65536
        weight = (1 + stream(f"weight {peer}", 1)[0]) / 256
        return LocalUpdate(values, weight, (weight / 2,))

    def plain(self, cohort: tuple[PeerId, ...], group: int) -> RoundParameters:
        """Parameters of a level-1 cohort."""
        return RoundParameters(
            run_id=RUN,
            round_id=compute_group_round_id(RUN, 1, 1, 1, group),
            plan_digest="11" * 32,
            model_digest=model_digest(self.model),
            cohort=cohort,
            min_survivors=3,
            ring_bits=24,
            value_bits=16,
            replicas=1,
            vector_length=self.length + TAIL,
            clip=1.0,
        )

    def run(self, play: Play = undisturbed, *, attempt: int = 1) -> CohortNetwork:
        """All levels; gives the last one's network. Groups without a result are left out."""
        cohorts = arrange(list(self.identities), size=self.size, smallest=3, most=1000)
        parameters = [self.plain(cohort, group) for group, cohort in enumerate(cohorts)]
        contributions: dict[PeerId, LocalUpdate | GroupSum] = dict(self.updates)
        for level in range(1, 9):
            last = len(parameters) == 1
            level_networks = [
                CohortNetwork(part, self.identities, contributions, self.model, last=last) for part in parameters
            ]
            self.networks.append(level_networks)
            for group, network in enumerate(level_networks):
                play(level, group, network)
            self.finished.append([g for g, network in enumerate(level_networks) if finished(network)])
            if last:
                return level_networks[0]
            done = [level_networks[group] for group in self.finished[-1]]
            contributions = {peer: total for network in done for peer, total in network.group_sums.items()}
            parameters = self._above(level + 1, attempt, done)
        raise AssertionError("eight levels did not do")

    def _above(self, level: int, attempt: int, done: list[CohortNetwork]) -> list[RoundParameters]:
        groups = [as_group(network, group) for group, network in zip(self.finished[-1], done, strict=True)]
        delegations = name_delegates(groups, fan_in=self.fan_in)
        return [
            self._combining(done[0].parameters, delegation, level, attempt, group)
            for group, delegation in enumerate(delegations)
        ]

    def _combining(
        self, below: RoundParameters, delegation: Delegation, level: int, attempt: int, group: int
    ) -> RoundParameters:
        round_id = compute_group_round_id(RUN, 1, attempt, level, group)
        return combining_parameters(below, delegation, round_id=round_id)

    def expected(self, level: int, group: int) -> np.ndarray:
        """The plain integer sum over every certified peer below a cohort, found by walking down to the updates.

        Lost chunks are zero, and a group's lost weight is the largest there could be (spec 08 §4).
        """
        network = self.networks[level - 1][group]
        counted = network.counted()
        if level == 1:
            total = np.sum([network.in_the_ring(index) for index in counted], axis=0)
        else:
            total = np.sum([self.expected(level - 1, network.parameters.sources[index]) for index in counted], axis=0)
        aggregate = next(member.aggregate for member in network.members if member.completed is not None)
        for start, end in aggregate.lost:
            total[start:end] = 0
            if start <= self.length < end and not network.last:
                certified = network.parameters.contributions(aggregate.survivors)
                total[self.length] = certified * network.parameters.multiplicity * 32767
        return total


def finished(network: CohortNetwork) -> bool:
    """Whether a quorum signed one result."""
    done = [member for member in network.members if member.completed is not None]
    return bool(done)


def as_group(network: CohortNetwork, group: int) -> FinishedGroup:
    """What the signaling server knows of a finished cohort."""
    done = [member for member in network.members if member.completed is not None and not member.dead]
    completed = done[0].completed
    return FinishedGroup(
        group=group,
        round_id=network.parameters.round_id,
        sum_digest=completed.model_digest,
        signers=tuple(network.parameters.cohort[member.machine.own_index] for member in done),
        peers=most_peers(network.parameters),
    )
