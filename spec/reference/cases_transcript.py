"""Vectors of what a round is bound to: transcript.json, and apply.json for what it ends with."""

from __future__ import annotations

import struct
from typing import Any

from spec.reference.cases_rounds import parameters_json
from spec.reference.codec import H
from spec.reference.judge import bad, good
from spec.reference.output import Case, vector_file
from spec.reference.rounds import Play
from spec.reference.scenarios import SCENARIOS
from spec.reference.signatures import identity_key
from spec.reference.stream import Stream
from spec.reference.transcript import Parameters

__all__ = ["transcript_files"]


def transcript_cases() -> Case:
    cases = []
    for scenario in SCENARIOS[:4]:
        play = Play(scenario)
        output = play.run()
        a = play.announcement
        messages = output["messages"]
        adverts = [m["bytes"] for m in messages if m["type"] == "advert"]
        commits = {m["from"]: m["bytes"] for m in messages if m["type"] == "commit"}
        given = {
            "parameters": parameters_json(a.parameters),
            "round": a.round,
            "attempt": a.attempt,
            "plan_digest": a.plan_digest.hex(),
            "model_digest": H(a.theta, a.buffers).hex(),
            "adverts": adverts,
            "masked": output["masked"],
            "commits": [{"index": u, "message": commits[u]} for u in output["survivors"]],
        }
        case = good("transcript", scenario.name, f"of round-{scenario.name}.json", given)
        for name in ("t0", "t1", "t2", "t3"):
            if case["output"][name] != output[name]:
                raise AssertionError(f"{scenario.name}: {name} differs from the round's")
        cases.append(case)
    cases += [_of_size(n) for n in (3, 5, 10, 63, 64)]
    return vector_file(
        "transcript", "07 §1", "Round id, parameters, leaders, T0 to T3, chunks and commit root", cases
    )


def _of_size(n: int) -> Case:
    """Bytes that stand for messages do: a transcript only hashes them."""
    stream = Stream(f"transcript/{n}")
    cohort = sorted(identity_key(stream.take(32)) for _ in range(n))
    run_id, plan, model = stream.take(32), stream.take(32), stream.take(32)
    parameters = Parameters(max(3, n // 2), 24, 16, 2, 1000 * n + 5, 0.1, run_id, cohort)
    masked = list(range(n))[-parameters.bound :]
    given = {
        "parameters": parameters_json(parameters),
        "round": n,
        "attempt": 2,
        "plan_digest": plan.hex(),
        "model_digest": model.hex(),
        "adverts": [stream.take(16).hex() for _ in range(n)],
        "masked": masked,
        "commits": [{"index": u, "message": stream.take(16).hex()} for u in masked],
    }
    return good("transcript", f"n{n}", f"{n} peers; short bytes stand for the messages", given)


def _f32(*values: float) -> str:
    return struct.pack(f"<{len(values)}f", *values).hex()


def apply_cases() -> Case:
    stream = Stream("apply")
    base: dict[str, Any] = {"theta": _f32(0.5, -0.25, 0.0, 1e-40), "buffers": _f32(1.0), "survivors": 3}
    base |= {
        "weight_lost": False,
        "clip": 0.0125,
        "value_bits": 16,
        "ring_bits": 20,
        "sums": [1, 2**20 - 1, 7, 0, 65536 - 1, 300, 17, 2**20 - 9],
    }
    huge = base | {"theta": _f32(3.4028234663852886e38), "buffers": "", "sums": [98301, 1], "clip": 1e6}
    half_way = {
        "weight_lost": False,
        "theta": _f32(1.0, 1.0),
        "buffers": "",
        "survivors": 3,
        "clip": 2.0**-24,
        "value_bits": 16,
    }
    half_way |= {"ring_bits": 20, "sums": [100, 300, 100]}
    lost = base | {"weight_lost": True, "sums": [1, 2**20 - 1, 7, 0, 65536 - 1, 0, 0, 0]}
    # 49 * (1 / 49) is below 1 in binary64: only (s * clip) / W is half-way between two binary32 numbers here
    order = {
        "theta": _f32(0.0),
        "buffers": "",
        "survivors": 63,
        "clip": 1.0,
        "value_bits": 26,
        "ring_bits": 32,
        "weight_lost": False,
    }
    order |= {"sums": [49 * (2**24 + 3), 49]}
    cases = [
        good("apply", "order", "s * (clip / W) would give 2^24 + 2, the spec's order gives 2^24 + 4", order),
        good("apply", "small", "signs, a subnormal, a buffer and a tail of three", base),
        good("apply", "weight-lost", "W is |U|·L = 98301; the tail keeps its zero", lost),
        good("apply", "ties", "sums that fall half-way between two binary32 numbers go to the even one", half_way),
        good("apply", "huge", "near the largest binary32, yet inside", huge),
    ]
    for k, v, n in ((16, 12, 16), (20, 16, 16), (24, 16, 64), (32, 24, 64)):
        limit = n * (2 ** (v - 1) - 1)
        sums = [(stream.below(2 * limit + 1) - limit) % 2**k for _ in range(40)]
        sums[36] = 1 + stream.below(limit)
        old = [(stream.below(2**24) - 2**23) / 2**22 for _ in range(36)]
        given = {
            "theta": _f32(*old[:32]),
            "buffers": _f32(*old[32:]),
            "survivors": n,
            "clip": 0.1,
            "weight_lost": False,
        }
        given |= {"value_bits": v, "ring_bits": k, "sums": sums}
        cases.append(good("apply", f"k{k}-v{v}-n{n}", "random sums of the whole range", given))
        for name, s in (("above", limit + 1), ("below", -limit - 1)):
            if abs(s) < 2 ** (k - 1):
                fault = given | {"sums": [s % 2**k, *sums[1:]]}
                cases.append(bad("apply", f"{name}-k{k}", "one coordinate is beyond |U|·L", fault, "sum-range"))
    cases += [
        bad("apply", "weight-zero", "nobody used an example", base | {"sums": [1] * 5 + [0, 0, 0]}, "weight-zero"),
        bad("apply", "weight-negative", "W = -1", base | {"sums": [1] * 5 + [2**20 - 1, 0, 0]}, "weight-zero"),
    ]
    return vector_file(
        "apply", "07 §9", "Ring sums to the new model; theta and buffers are little-endian binary32", cases
    )


def transcript_files() -> dict[str, Case]:
    """Files by name."""
    return {"transcript.json": transcript_cases(), "apply.json": apply_cases()}
