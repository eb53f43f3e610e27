"""Who leads which round: terms whose first round a chosen peer leads, and what hosts saw of leaders."""

from __future__ import annotations

import hashlib
from typing import Any

from plans import Plan
from protocol.identity import PeerId
from protocol.secagg.apply import model_digest
from protocol.secagg.parameters import RoundParameters
from protocol.signaling import compute_round_id
from protocol.tail import tail_length
from protocol.terms import RunTerms, encode_terms
from python_node.membership import initial_model
from python_node.node import NodeEvent
from tests.e2e.world import Host, terms

__all__ = ["Leaders", "terms_led_by"]


def terms_led_by(plan: Plan, leader: PeerId, cohort: list[PeerId], **changes: Any) -> RunTerms:
    """Terms of a run whose round 1 `leader` leads, should this cohort be named: the author's nonce decides that."""
    for number in range(10_000):
        nonce = hashlib.sha256(f"nonce {number}".encode()).hexdigest()
        made = terms(plan, nonce=nonce, **changes)
        if _first_leader(_first_round(plan, made, cohort)) == leader:
            return made
    raise AssertionError("no nonce of 10,000 makes that peer lead")


def _first_round(plan: Plan, made: RunTerms, cohort: list[PeerId]) -> RoundParameters:
    run = hashlib.sha256(encode_terms(made)).hexdigest()
    model = initial_model(plan)  # type: ignore[arg-type]  # a signed plan has the same vectors
    return RoundParameters(
        run_id=run,
        round_id=compute_round_id(run, 1, 1),
        plan_digest=plan.digest,
        model_digest=model_digest(model),
        cohort=tuple(sorted(cohort)),
        min_survivors=made.min_survivors,
        ring_bits=made.ring_bits,
        value_bits=made.value_bits,
        replicas=made.replicas,
        vector_length=len(model) + tail_length(plan.manifest, made),
        clip=made.clip,
    )


def _first_leader(parameters: RoundParameters) -> PeerId:
    """Spec 07 §4, written out here once more."""
    drawn = hashlib.sha256(b"p2psa/1/leader" + parameters.t0).digest()
    return PeerId(parameters.cohort[int.from_bytes(drawn[:4], "little") % parameters.size])


class Leaders:
    """Asks a host, whenever it completed a round, who led it and in which view."""

    def __init__(self) -> None:
        self.host: Host | None = None
        self.by_round: dict[int, tuple[PeerId, int]] = {}

    def listen(self, event: NodeEvent) -> None:
        if event.kind != "round_completed" or self.host is None:
            return
        attempt = self.host.node._runs[event.fields["run"]].membership.attempt
        assert attempt is not None
        views = attempt._machine._views
        self.by_round[event.fields["round"]] = (attempt.parameters.cohort[views.leader], views.view)
