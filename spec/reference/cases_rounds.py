"""Vectors of whole rounds, one file per scenario."""

from __future__ import annotations

from typing import Any

from spec.reference.codec import H
from spec.reference.output import Case, valid, vector_file
from spec.reference.peer import Announcement, Peer
from spec.reference.rounds import Play
from spec.reference.scenarios import SCENARIOS
from spec.reference.transcript import Parameters

__all__ = ["announcement_json", "parameters_json", "place_json", "round_files"]


def parameters_json(p: Parameters) -> dict[str, Any]:
    """`parameters` as vectors write them."""
    return {
        "min_survivors": p.min_survivors,
        "ring_bits": p.ring_bits,
        "value_bits": p.value_bits,
        "replicas": p.replicas,
        "elements": p.elements,
        "clip": p.clip,
        "run_id": p.run_id.hex(),
        "cohort": [key.hex() for key in p.cohort],
    } | ({"multiplicity": p.multiplicity, "sources": p.sources} if p.sources else {})


def announcement_json(a: Announcement) -> dict[str, Any]:
    """What every peer knows before the round."""
    return {
        "parameters": parameters_json(a.parameters),
        "round": a.round,
        "attempt": a.attempt,
        "plan_digest": a.plan_digest.hex(),
        "theta": a.theta.hex(),
        "buffers": a.buffers.hex(),
        "model_digest": H(a.theta, a.buffers).hex(),
        "max_examples": a.max_examples,
    } | ({} if a.place is None else {"place": place_json(a.place)})


def place_json(place: tuple[int, int]) -> dict[str, int]:
    """Where a cohort stands among many."""
    return {"level": place[0], "group": place[1]}


def peer_json(peer: Peer) -> dict[str, Any]:
    """All that one peer brings to the round."""
    s = peer.secrets
    brought: dict[str, Any] = {"group_sum": s.group_sum}
    if not peer.announcement.parameters.sources:
        groups = [{"weight": g.weight, "means": g.means, "bounds": g.bounds} for g in s.groups]
        brought = {"update": s.update.hex(), "groups": groups, "randoms": s.randoms}
    return {
        "index": peer.index,
        "identity_seed": s.identity_seed.hex(),
        "fingerprint": s.fingerprint.hex(),
        "mask_private": s.mask_private.hex(),
        "enc_private": s.enc_private.hex(),
        "seed": s.seed.hex(),
        "coefficients": s.coefficients.hex(),
        **brought,
        "quantised": peer.quantised(),
    }


def round_files() -> dict[str, Case]:
    """Files by name."""
    files = {}
    for scenario in SCENARIOS:
        play = Play(scenario)
        output = play.run()
        given = {
            "announcement": announcement_json(play.announcement),
            "peers": [peer_json(peer) for peer in play.peers],
            "gone": [] if scenario.gone < 0 else [scenario.gone],
        }
        case = valid(f"rounds-{scenario.name}", scenario.comment, given, output)
        comment = "A round among four peers, every secret and every message of it"
        files[f"round-{scenario.name}.json"] = vector_file("rounds", "07", comment, [case])
    return files
