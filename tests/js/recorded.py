"""What one machine of a simulated round was given and what it did, as JSON: for a machine in another language.

Times of a `Network` are exact in seconds and in milliseconds, so no two deadlines that are equal in one language
differ in the other by a rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from protocol.errors import RoundError
from protocol.round.actions import Action, Completed, Failed, Misbehaviour, Persist, Revealed, Send, StageEntered
from protocol.round.machine import RoundMachine
from protocol.secagg.parameters import RoundParameters
from protocol.secagg.quantise import QUANTISE_KEY_BYTES, _keystream
from tests.round.network import Network

_INPUTS: dict[str, Callable[..., dict[str, Any]]] = {
    "start": dict,
    "link_up": lambda index, fingerprint: {"peer": index, "fingerprint": fingerprint.hex()},
    "link_down": lambda index: {"peer": index},
    "receive": lambda index, data, *, bulk: {"peer": index, "data": bytes(data).hex(), "bulk": bulk},
    "provide_update": lambda update: {
        "values": update.values.tobytes().hex(),
        "fraction": update.weight_fraction,
        "ratios": [share / update.weight_fraction for share in update.tail],
    },
    "finish_work": lambda number, outcome: {"number": number, "fails": isinstance(outcome, RoundError)},
    "provide_result": lambda model_digest, tail: {"model": model_digest, "tail": tail.hex()},
    "fail": lambda reason: {"reason": reason},
    "tick": dict,
}


def _as_json(action: Action) -> list[Any]:
    match action:
        case Send(to=to, data=data, bulk=bulk):
            return ["send", to, data.hex(), bulk]
        case Persist(entry=entry, detail=detail):
            return ["persist", entry, detail]
        case StageEntered(stage=stage):
            return ["stage", stage]
        case Misbehaviour(peer=peer):
            return ["misbehaviour", peer]
        case Revealed(aggregate=aggregate):
            survivors = sorted(aggregate.survivors)
            return ["revealed", aggregate.sums.tolist(), survivors, [list(part) for part in aggregate.lost]]
        case Completed():
            signatures = [[index, signature.hex()] for index, signature in sorted(action.signatures.items())]
            return ["completed", action.model_digest, sorted(action.survivors), action.tail_digest.hex(), signatures]
        case Failed(reason=reason):
            return ["failed", reason.split(":")[0]]  # details of what a job refused are each language's own
    return ["work", action.number]


class Recording:
    """Every input of one machine in order, and beside it all that the machine answered."""

    def __init__(self, network: Network, index: int) -> None:
        member = network.members[index]
        self.inputs: list[dict[str, Any]] = []
        self.outputs: list[dict[str, Any]] = []
        self.given = {
            "parameters": _parameters(network.parameters),
            "seed": network.identities[index].seed().hex(),
            "fingerprint": (bytes([index]) * 32).hex(),
            "deadlines": {name: getattr(network.deadlines, name) for name in network.deadlines.__struct_fields__},
            "randomness": member.randomness.hex(),
            "randoms": _randoms(member.randomness, len(member.update)),
        }
        self._inside = False
        for name, describe in _INPUTS.items():
            setattr(member.machine, name, self._recorded(member.machine, name, describe))

    def as_json(self) -> dict[str, Any]:
        """What another machine needs to be given the same."""
        return {**self.given, "inputs": self.inputs}

    def _recorded(
        self, machine: RoundMachine, name: str, describe: Callable[..., dict[str, Any]]
    ) -> Callable[..., None]:
        give, post = getattr(machine, name), machine._state.post

        def record(*arguments: Any, **options: Any) -> None:
            if self._inside:  # the machine calls itself
                give(*arguments, **options)
                return
            *values, now = [*arguments, options.pop("now")] if "now" in options else arguments
            self.inputs.append({"input": name, "now": 1000 * now, **describe(*values, **options)})
            before, self._inside = len(post.actions), True
            try:
                give(*values, **options, now=now)
            finally:
                self._inside = False
            due = machine.next_deadline()
            self.outputs.append(
                {
                    "actions": [_as_json(action) for action in post.actions[before:]],
                    "due": None if due is None else 1000 * due,
                }
            )

        return record


def _parameters(parameters: RoundParameters) -> dict[str, Any]:
    return {
        "runId": parameters.run_id,
        "roundId": parameters.round_id,
        "planDigest": parameters.plan_digest,
        "modelDigest": parameters.model_digest,
        "cohort": parameters.cohort,
        "minSurvivors": parameters.min_survivors,
        "ringBits": parameters.ring_bits,
        "valueBits": parameters.value_bits,
        "replicas": parameters.replicas,
        "vectorLength": parameters.vector_length,
        "clip": parameters.clip,
    }


def _randoms(randomness: bytes, coordinates: int) -> list[int]:
    """The 24-bit integers that round an update and a metric; the weight between them takes none in Python."""
    stream = _keystream(randomness[-QUANTISE_KEY_BYTES:], 0).update(bytes(4 * (coordinates + 1)))
    drawn = [int.from_bytes(stream[at : at + 4], "little") >> 8 for at in range(0, len(stream), 4)]
    return [*drawn[:coordinates], 0, *drawn[coordinates:]]
