"""Nodes killed at random moments: does the run finish, do all end with one model, does anything hang?

`python -m benchmarks.soak [--json] [--peers 10] [--rounds 30] [--every 3] [--calm 10] [--seed 0]`

Of the first 30 rounds, in every third one a node gets SIGKILL a random time after the round began (so at a random
stage) and is started again one to two rounds later on the state it left; then come ten rounds in which nobody is
killed, so that all can be there again at the end. Then every node must hold the logged model, and every logged round
must bind to the one before and carry a quorum's signatures.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from pathlib import Path
from typing import Any

from benchmarks.deployment import Deployment
from benchmarks.measure import at_least, options_of, print_report, summary
from benchmarks.rounds import small
from protocol.signaling import LogEntry, RoundLogged, RoundOpened
from protocol.terms import Deadlines, RunTerms
from python_node.author import Author, make_terms
from python_node.log_checking import check_entry
from python_node.loop import run

DEADLINES = Deadlines(
    link_ms=5_000, train_ms=10_000, advertise_ms=3_000, share_ms=3_000, commit_ms=5_000, consistency_ms=3_000,
    unmask_ms=3_000, sum_ms=5_000,
)  # fmt: skip
ABSENCE_S = 5.0
EPOCHS = 300
"""So that a round lasts about as long as it takes to start a node: else a run is over before anybody is back."""


class Reaper:
    """Kills one node in every `every`-th round, and has it start again."""

    def __init__(
        self,
        world: Deployment,
        files: dict[str, Path],
        options: tuple[str, ...],
        *,
        rounds: int,
        every: int,
        seed: int,
    ) -> None:
        self._world = world
        self._files = files
        self._options = options
        self._last = rounds
        self._every = every
        self._random = random.Random(seed)
        self._seen: set[int] = set()
        self._dead: dict[str, int] = {}
        self._starting: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.kills: list[dict[str, Any]] = []
        self.seconds = 1.0
        """How long the last round took, which is how long after the start of one somebody is killed at the latest."""

    def opened(self, number: int) -> None:
        """A cohort was named for a round."""
        if number not in self._seen:
            self._seen.add(number)
            self._revive(number)
            if number % self._every == 0 and number <= self._last:
                self._spawn(self._kill(number))

    async def finish(self) -> None:
        """Have everybody back."""
        self._revive(1 << 30)
        await asyncio.gather(*self._tasks)

    async def _kill(self, number: int) -> None:
        name = self._random.choice(sorted(set(self._files) - set(self._dead) - self._starting))
        node = self._world.nodes[name]
        after_s = self._random.uniform(0, self.seconds)
        await asyncio.sleep(after_s)  # the moment is what is random here; nothing waits for it
        if not node.process.running:
            raise RuntimeError(f"{name} had ended by itself: {node.events[-1:]}")
        node.process.kill()
        self._dead[name] = number + self._random.randint(1, 2)
        stage = node.events[-1]["event"] if node.events else "starting"
        self.kills.append({"round": number, "node": name, "after_s": round(after_s, 3), "last_event": stage})

    def _revive(self, number: int) -> None:
        for name in [name for name, due in self._dead.items() if due <= number]:
            del self._dead[name]
            self._starting.add(name)
            self._spawn(self._start(name))

    async def _start(self, name: str) -> None:
        await self._world.nodes[name].process.stop()
        await self._world.node(name, self._files[name], options=self._options)
        self._starting.discard(name)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)


async def measure(peers: int, rounds: int, every: int, calm: int, seed: int) -> dict[str, Any]:
    """One run with kills; raises where anything of what the module promises does not hold."""
    case = small()
    terms = make_terms(
        case.plan, rounds=rounds + calm, epochs=EPOCHS, cohort_size=peers, min_cohort=max(3, peers - 2),
        min_survivors=3, max_examples=case.examples, clip=0.5, retries=20, deadlines=DEADLINES,
    )  # fmt: skip
    began = time.monotonic()
    async with Deployment(gather_s=1.0, absence_s=ABSENCE_S) as world:
        files = {f"node-{i}": world.save_data(f"data-{i}", case.data(i)) for i in range(peers)}
        policy = world.folder / "policy.toml"
        policy.write_text(f"max_epochs = {EPOCHS}\n")
        options = ("--policy", str(policy))
        await asyncio.gather(*(world.node(name, file, options=options) for name, file in files.items()))
        async with await Author.connect(world.url, world.author) as author:
            status = await author.publish(case.plan, terms)
            reaper = Reaper(world, files, options, rounds=rounds, every=every, seed=seed)
            log, attempts = await _watch(author, status.run, reaper)
            await reaper.finish()
            await _check(world, status.run, status.model_digest, log, terms)
            fetched = await author.fetch(status.run)
            if fetched.digest != log[-1].model_digest:
                raise RuntimeError("the fetched model is not the logged one")
    gaps = [after.logged_at - before.logged_at for before, after in itertools.pairwise(log)]
    return {
        "peers": peers,
        "rounds_logged": len(log),
        "attempts": attempts,
        "rounds_retried": sum(entry.attempt > 1 for entry in log),
        "rounds_with_dropouts": sum(len(entry.survivors) < len(entry.cohort) for entry in log),
        "smallest_survivor_set": min(len(entry.survivors) for entry in log),
        "kills": reaper.kills,
        "seconds_total": time.monotonic() - began,
        "seconds_from_log_to_log": summary(gaps),
        "longest_gap_s": max(gaps),
    }


async def _watch(author: Author, run_id: str, reaper: Reaper) -> tuple[list[LogEntry], int]:
    log, attempts = [], 0
    async for event in author.watch(run_id):
        match event:
            case RoundOpened(round=number):
                attempts += 1
                reaper.opened(number)
            case RoundLogged(entry=entry):
                log.append(entry)
                reaper.seconds = entry.seconds
            case _ if event.status.state == "failed":
                raise RuntimeError(f"the run failed: {event.status.reason}")
            case _:
                pass
    return log, attempts


async def _check(world: Deployment, run_id: str, initial: str, log: list[LogEntry], terms: RunTerms) -> None:
    if [entry.round for entry in log] != list(range(1, terms.rounds + 1)):
        raise RuntimeError(f"rounds are missing from the log: {[entry.round for entry in log]}")
    previous = initial
    for entry in log:
        if entry.previous_digest != previous:
            raise RuntimeError(f"round {entry.round} does not bind to the one before")
        check_entry(entry, run=run_id, number=entry.round, digest=entry.model_digest, terms=terms)
        previous = entry.model_digest
    for node in world.nodes.values():
        last = await node.until("round_completed", "fetched", round=terms.rounds)
        if last["model_digest"] != previous:
            raise RuntimeError(f"{node.name} holds another model than the log says")


def main() -> None:
    """Print one JSON object; a broken promise is a traceback and exit status 1."""
    parser = options_of(__doc__)
    parser.add_argument(
        "--peers", type=at_least(5), default=10, help="5 or more, so that some remain; default: %(default)s"
    )
    parser.add_argument("--rounds", type=at_least(1), default=30, help="with kills; default: %(default)s")
    parser.add_argument("--every", type=at_least(1), default=3, help="rounds from kill to kill; default: %(default)s")
    parser.add_argument(
        "--calm", type=at_least(3), default=10, help="rounds without kills at the end; default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="who is killed and when; default: %(default)s")
    options = parser.parse_args()
    figures = run(measure(options.peers, options.rounds, options.every, options.calm, options.seed))
    settings = {
        "rounds": options.rounds,
        "calm_rounds": options.calm,
        "kill_every": options.every,
        "seed": options.seed,
    }
    print_report("soak", settings=settings, figures=figures, as_json=options.json)


if __name__ == "__main__":
    main()
