"""Both languages' round machines, given the same of a random schedule, do the same: byte for byte, in the same order.

What is compared after every input: messages and to whom, entries for the journal, stages, jobs, whose message was
refused, sums, results and signatures, why an attempt failed, and the next deadline.
`PEERPLAN_SCHEDULES=5000 pytest tests/js/test_same_schedules.py` runs a long form, from `PEERPLAN_SCHEDULES_FROM` (0).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections import Counter
from pathlib import Path
from typing import Self

from tests.js.recorded import Recording
from tests.round import liars
from tests.round.delays import DelayedNetwork
from tests.round.delays import random_plan as random_delays
from tests.round.schedules import Plan, Schedule, random_plan

_COUNT = int(os.environ.get("PEERPLAN_SCHEDULES", "200"))
_FROM = int(os.environ.get("PEERPLAN_SCHEDULES_FROM", "0"))
_SCRIPT = Path(__file__).with_name("machine.mjs")


def delayed(seed: int) -> DelayedNetwork:
    rng = random.Random(f"delays {seed}")
    n = rng.choice([3, 4, 5, 6, 7])
    return DelayedNetwork(random_delays(n, frozenset(rng.sample(range(n), rng.choice([1, 1, 2]))), rng))


def talkative(seed: int) -> Schedule:
    """One liar sends whatever there is to send, to anybody, now and then all through the round."""
    rng = random.Random(f"talk {seed}")
    n = rng.choice([3, 4, 5, 6, 7])
    liar = rng.randrange(n)
    lies = tuple((liar, name) for name in liars.SPONTANEOUS if name != "aborts")
    return Schedule(Plan(seed, n, rng.choice([1, 2]), lies, cuts=rng.choice([0, 2]), chatter=rng.choice([0.2, 0.6])))


class Replay:
    """The JavaScript machine in a process of its own; `of` gives it a recording and takes what it did."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()

    def __enter__(self) -> Self:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(["node", str(_SCRIPT)], stdin=pipe, stdout=pipe, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        assert self._process.returncode == 0

    def of(self, recording: Recording) -> list[dict]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(recording.as_json()) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the JavaScript machine ended without an answer"
        return json.loads(line)

    def check(self, recording: Recording, name: str) -> None:
        """Compare all outputs, and count what was compared."""
        outputs = self.of(recording)
        assert len(outputs) == len(recording.outputs)
        for at, (expected, got) in enumerate(zip(recording.outputs, outputs, strict=True)):
            assert got == json.loads(json.dumps(expected)), f"{name}, after input {at}: {recording.inputs[at]}"
            self.reasons.update(action[0] for action in got["actions"])


def test_random_schedules_with_lies_kills_and_cuts_end_alike(package: Path) -> None:
    with Replay() as replay:
        for seed in range(_FROM, _FROM + _COUNT):
            schedule = Schedule(random_plan(seed))
            peer = seed % schedule.plan.n
            recording = Recording(schedule, peer)
            schedule.play()
            replay.check(recording, f"seed {seed}, peer {peer}, {schedule.plan}")
    assert replay.reasons["completed"] > _COUNT / 4
    assert replay.reasons["failed"] > _COUNT / 50
    assert replay.reasons["misbehaviour"] > _COUNT / 2


def test_schedules_of_a_liar_that_never_stops_talking_end_alike(package: Path) -> None:
    with Replay() as replay:
        for seed in range(_FROM, _FROM + _COUNT // 4):
            schedule = talkative(seed)
            (liar, *_) = {index for index, _ in schedule.plan.lies}
            peer = (liar + 1 + seed % (schedule.plan.n - 1)) % schedule.plan.n
            recording = Recording(schedule, peer)
            schedule.play()
            replay.check(recording, f"seed {seed}, peer {peer}, {schedule.plan}")
    assert replay.reasons["completed"] > _COUNT / 10
    assert replay.reasons["misbehaviour"] > _COUNT


def test_schedules_of_messages_held_back_end_alike(package: Path) -> None:
    with Replay() as replay:
        for seed in range(_FROM, _FROM + _COUNT // 2):
            network = delayed(seed)
            peer = seed % network.plan.n
            recording = Recording(network, peer)
            network.play()
            replay.check(recording, f"seed {seed}, peer {peer}, {network.plan}")
    assert replay.reasons["completed"] > _COUNT / 8
