"""The demo from start to end: processes, one run, the comparison, the report."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cli.demo.processes import Process, start_node, start_signaling
from cli.demo.reference import aggregate_error, compare, mean_scores, own_scores, scores, training_seed_bytes
from cli.demo.report import RoundRow, write_plot, write_report
from cli.demo.shards import Shards, write_shards
from cli.demo.tasks import Task
from cli.errors import RUN_FAILED, CommandError
from plans import Executor, Plan
from plans.release import released_model
from protocol.errors import LinkError
from protocol.identity import Identity
from protocol.signaling import LogEntry, RoundLogged, RoundOpened, RunChanged
from python_node.author import Author, RunView
from python_node.membership import initial_model
from python_node.state import NodeState, load_or_create_identity
from python_node.training import split_model

__all__ = ["DemoOptions", "run_demo"]

_GATHER_S = 20.0
"""How long the run waits for all nodes to start before it begins without the rest."""


@dataclass(frozen=True)
class DemoOptions:
    """What `peerplan demo` was asked for."""

    task: Task
    peers: int
    rounds: int
    seed: int
    kill: int
    out: Path


class _Demo:
    """State of one demonstration."""

    def __init__(self, options: DemoOptions, show: Callable[[list[RoundRow], str], None]) -> None:
        self.options = options
        self.show = show
        self.rows: dict[int, RoundRow] = {}
        self.models: dict[int, NDArray[np.float32]] = {}
        self.entries: list[LogEntry] = []
        self.peers: dict[int, str] = {}
        self.killed: list[dict[str, int]] = []
        self.own: dict[int, NDArray[np.float32]] = {}
        self.caption = ""
        generator = np.random.default_rng([options.seed, 7])
        rounds = np.arange(2, options.rounds) if options.rounds > 2 else np.array([1])
        victims = generator.permutation(options.peers)[: options.kill]
        when = np.sort(generator.choice(rounds, options.kill, replace=options.kill > len(rounds)))
        self.victims = list(zip(when.tolist(), victims.tolist(), strict=True))

    def say(self, text: str) -> None:
        self.caption = text
        self.show(list(self.rows.values()), text)

    def node_event(self, index: int, event: dict[str, Any]) -> None:
        """A line of a node's output."""
        if event["event"] == "registered":
            self.peers[index] = event["peer"]
        elif event["event"] == "round_completed":
            self._row(event["round"]).add_peer(event["peer"], event)
            self.say(self.caption)
        elif event["event"] in ("round_failed", "behind", "error", "signaling"):
            self.say(f"node {index + 1}: {event['event']}: {event.get('reason', '')}")

    def logged(self, entry: LogEntry, view: RunView) -> None:
        """A round is in the log."""
        row = self._row(entry.round)
        row.survivors, row.cohort = len(entry.survivors), len(entry.cohort)
        row.loss = view.metrics(entry).training.get("loss")
        self.entries.append(entry)
        self.say(self.caption)

    def _row(self, number: int) -> RoundRow:
        if number not in self.rows:
            self.rows[number] = RoundRow(round=number, survivors=0, cohort=0, loss=None)
            self.rows = dict(sorted(self.rows.items()))
        return self.rows[number]


async def run_demo(options: DemoOptions, show: Callable[[list[RoundRow], str], None]) -> dict[str, Any]:
    """Run the demonstration; gives the report, which is also written to `options.out`.

    Raises:
        CommandError: a process ended early, or the run failed.
    """
    begun = time.perf_counter()
    demo = _Demo(options, show)
    data = options.task.data(options.peers, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peerplan-demo-")))
        identity = load_or_create_identity(work / "author.key")
        demo.say("starting the signaling server and the nodes, tracing the plan")
        tracing = asyncio.ensure_future(asyncio.to_thread(options.task.build_plan))
        server, url = await start_signaling(work / "signaling", gather_s=_GATHER_S)
        stack.push_async_callback(server.stop)
        nodes = await _start_nodes(demo, data, stack, url=url, identity=identity, work=work)
        plan = await tracing
        run = await asyncio.to_thread(
            partial(
                plan.publish,
                url,
                identity=identity,
                rounds=options.rounds,
                cohort_size=options.peers,
                min_cohort=3,
                min_survivors=3,
                learning_rate=options.task.learning_rate,
                batch_size=options.task.batch_size,
                epochs=options.task.epochs,
                max_examples=max(len(next(iter(shard.values()))) for shard in data.shards),
                clip=options.task.clip,
                evaluate=False,
                nonce=training_seed_bytes(f"demo {options.seed} run").hex(),
            )
        )
        author = await stack.enter_async_context(await Author.connect(url, identity))
        view = await _follow(demo, author, run, plan, data, nodes)
        if options.task.local:
            await asyncio.gather(*(node.stop() for node in nodes))
            demo.own = await asyncio.to_thread(_own_models, plan, run, work, options.peers)
    demo.say("training the same budget centrally and on each peer alone")
    report = await asyncio.to_thread(_report, demo, plan, view, data, begun)
    demo.say("")
    return report


async def _start_nodes(
    demo: _Demo, data: Shards, stack: AsyncExitStack, *, url: str, identity: Identity, work: Path
) -> list[Process]:
    shards = write_shards(data, work)
    nodes = []
    for index, shard in enumerate(shards):
        node = await start_node(
            index,
            url=url,
            shard=shard,
            author=identity.peer_id,
            state=work / f"node-{index}",
            training_seed=_training_seed(demo.options, index),
            on_event=partial(demo.node_event, index),
        )
        stack.push_async_callback(node.stop)
        nodes.append(node)
    await asyncio.gather(*(node.first_event() for node in nodes))
    return nodes


async def _follow(demo: _Demo, author: Author, run: str, plan: Plan, data: Shards, nodes: list[Process]) -> RunView:
    """Watch the run, fetch and evaluate each round's model, and kill whom the options say."""
    view = await author.view(run)
    demo.models[0] = initial_model(plan)
    executor = Executor(plan)
    wanted: asyncio.Queue[LogEntry | None] = asyncio.Queue()

    async def fetch() -> None:
        while (entry := await wanted.get()) is not None:
            try:
                model = await author.fetch(run, round_number=entry.round)
            except LinkError as error:
                demo.say(f"round {entry.round}: its model could not be fetched: {error}")
                continue
            demo.models[entry.round] = model.values
            task = demo.options.task
            if (
                task.local
            ):  # no common model is whole; the peers' own word is the masked mean over their training data
                demo.rows[entry.round].scores = {"accuracy": view.metrics(entry).training["accuracy"]}
            else:
                theta, buffers = split_model(plan, model.values)
                found = await asyncio.to_thread(scores, executor, task, theta, buffers, data.held_out)
                demo.rows[entry.round].scores = found
            demo.say(demo.caption)

    fetching = asyncio.ensure_future(fetch())
    demo.say("waiting for the nodes to agree to the run")
    async for event in author.watch(run):
        match event:
            case RoundOpened(round=number):
                demo.say("")
                _kill_due(demo, number, nodes)
            case RoundLogged(entry=entry):
                demo.logged(entry, view)
                wanted.put_nowait(entry)
            case RunChanged(status=status):
                if status.state in ("failed", "stopped"):
                    fetching.cancel()
                    raise CommandError(
                        f"the run {status.state}: {status.reason}", code="run-failed", exit_status=RUN_FAILED
                    )
    wanted.put_nowait(None)
    await fetching
    return view


def _kill_due(demo: _Demo, number: int, nodes: list[Process]) -> None:
    for when, victim in demo.victims:
        if when == number and nodes[victim].running:
            nodes[victim].kill()
            demo.killed.append({"round": number, "peer": victim})
            demo.say(f"round {number}: node {victim + 1} killed with SIGKILL")


def _report(demo: _Demo, plan: Plan, view: RunView, data: Shards, begun: float) -> dict[str, Any]:
    options, task = demo.options, demo.options.task
    last = max(demo.models)
    if last != options.rounds:
        raise CommandError(
            f"the model of round {options.rounds} could not be fetched, only that of round {last}", code="no-model"
        )
    comparison = compare(plan, task, view.terms, data, seed=options.seed)
    shards = {peer: (data.shards[index], _training_seed(options, index)) for index, peer in demo.peers.items()}
    peers = [demo.peers[index] for index in sorted(demo.peers)]
    report: dict[str, Any] = {"example": task.example}
    final = demo.rows[last].scores
    if task.local:
        each = own_scores(plan, task, demo.own, data.own)
        report["own"], final = [each[peer] for peer in sorted(each)], mean_scores(task, list(each.values()))
    for score in task.scores:
        report[f"final_{score.name}"] = final[score.name]
        report[f"central_{score.name}"] = comparison.central[score.name]
        report[f"best_single_peer_{score.name}"] = comparison.best_single_peer[score.name]
    report |= {
        "max_abs_aggregate_error": aggregate_error(plan, view.terms, shards, demo.models, demo.entries),
        "quantisation_step": view.terms.clip / ((1 << (view.terms.value_bits - 1)) - 1),
        "parameters": plan.manifest.parameter_count,
        "peers": peers,
        "seed": options.seed,
        "killed": demo.killed,
        "rounds": [demo.rows[number].plain(peers, task) for number in sorted(demo.rows)],
    }
    theta, buffers = split_model(plan, demo.models[last])
    (options.out / "model.onnx").write_bytes(released_model(plan, theta, buffers))
    write_plot(report, task, options.out / "rounds.png")
    report["seconds_total"] = round(time.perf_counter() - begun, 3)
    write_report(report, options.out / "report.json")
    return report


def _own_models(plan: Plan, run: str, work: Path, peers: int) -> dict[int, NDArray[np.float32]]:
    """Whole models out of the nodes' state folders: the last common body with each one's own end."""
    found = {}
    for peer in range(peers):
        with NodeState.open(work / f"node-{peer}") as state:
            checkpoint, local = state.load_checkpoint(run), state.local_values(run)
        if checkpoint is not None and local is not None:
            values = np.frombuffer(checkpoint[2], "<f4").astype(np.float32)
            found[peer] = np.concatenate(split_model(plan, values, np.frombuffer(local, "<f4").astype(np.float32)))
    return found


def _training_seed(options: DemoOptions, index: int) -> str:
    return f"demo {options.seed} node {index}"
