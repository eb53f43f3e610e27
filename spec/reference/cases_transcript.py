"""Vectors of what a round is bound to: transcript.json."""

from __future__ import annotations

from spec.reference.cases_rounds import parameters_json
from spec.reference.codec import H
from spec.reference.judge import good
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


def transcript_files() -> dict[str, Case]:
    """Files by name."""
    return {"transcript.json": transcript_cases()}
