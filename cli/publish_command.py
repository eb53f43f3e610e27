"""`peerplan publish`: sign a plan, upload it, open a run of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import msgspec
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from cli.errors import USAGE, CommandError
from cli.options import AsJson, IdentityPath, Server, Url, author_identity, reader_identity
from cli.output import configure_logs, console, print_json, text
from cli.plan_source import load_plan
from cli.preflight_report import preflight_json, run_preflight
from cli.watching import watch_run
from plans import Plan, Preflight
from protocol.identity import Identity
from protocol.signaling import RunStatus
from protocol.terms import Deadlines, RunTerms
from python_node.author import Author, default_identity_path, make_terms
from python_node.loop import run as run_loop
from python_node.state import load_or_create_identity

__all__ = ["parse_deadlines", "publish"]

_STAGES = {name.removesuffix("_ms") for name in Deadlines.__struct_fields__}
_SECONDS = re.compile(r"\d{1,6}(\.\d{1,3})?", re.ASCII)


class ServerOptimizerKind(StrEnum):
    """How every peer applies the mean update."""

    FEDAVG = "fedavg"
    FEDAVGM = "fedavgm"
    FEDADAM = "fedadam"
    FEDYOGI = "fedyogi"


class Weighting(StrEnum):
    """How updates are averaged."""

    EXAMPLES = "examples"
    UNIFORM = "uniform"


def publish(
    plan: Annotated[
        str,
        typer.Argument(
            metavar="FILE|MODULE:FUNCTION", help="A .plan file or bundle, or a function that gives a plan."
        ),
    ],
    url: Url,
    *,
    rounds: Annotated[int, typer.Option(min=1, max=100_000, help="Rounds of the run.")],
    cohort: Annotated[int, typer.Option(min=3, max=64, help="Peers per cohort at most.")] = 10,
    cohorts: Annotated[
        int, typer.Option(min=1, max=64, help="Cohorts per round at most; delegates combine the sums of several.")
    ] = 1,
    min_cohort: Annotated[
        int | None,
        typer.Option(min=3, max=64, help="Peers a cohort has at least; by default the threshold, at least 5."),
    ] = None,
    min_survivors: Annotated[
        int | None, typer.Option(min=3, max=64, help="No sum over fewer peers is revealed.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The run's name; the plan's by default.")] = None,
    epochs: Annotated[int, typer.Option(min=1, max=1000, help="Local epochs per round.")] = 1,
    batch_size: Annotated[int | None, typer.Option(min=1, help="In place of the plan's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="In place of the plan's.")] = None,
    max_examples: Annotated[
        int,
        typer.Option(min=1, max=1 << 24, help="Examples per peer and round at most; keep it near what peers have."),
    ] = 2048,
    weighting: Annotated[Weighting, typer.Option(help="Average by number of examples, or all alike.")] = (
        Weighting.EXAMPLES
    ),
    server_optimizer: Annotated[
        ServerOptimizerKind, typer.Option(help="How every peer applies the mean update.")
    ] = ServerOptimizerKind.FEDAVG,
    server_learning_rate: Annotated[
        float | None, typer.Option(help="Its rate; by default 1, with fedadam and fedyogi 0.01.")
    ] = None,
    server_beta1: Annotated[
        float | None, typer.Option(help="What it keeps of the momentum, all but fedavg; 0.9 by default.")
    ] = None,
    server_beta2: Annotated[
        float | None, typer.Option(help="What fedadam and fedyogi keep of the second moment; 0.99 by default.")
    ] = None,
    server_tau: Annotated[
        float | None, typer.Option(help="What fedadam and fedyogi add to the divisor; 0.001 by default.")
    ] = None,
    clip: Annotated[float, typer.Option(help="Largest change of one parameter in one round.")] = 1.0,
    ring_bits: Annotated[
        int | None, typer.Option(help="Width of the ring: 16, 20, 24 or 32; by default what fits.")
    ] = None,
    value_bits: Annotated[int | None, typer.Option(min=8, max=28, help="Bits of one masked value.")] = None,
    replicas: Annotated[int, typer.Option(min=1, max=2, help="Peers that sum each chunk.")] = 1,
    member: Annotated[
        list[str] | None,
        typer.Option(metavar="PEER_ID", help="Limit the run to these peers; may be given again."),
    ] = None,
    evaluate: Annotated[bool, typer.Option(help="Peers evaluate on what they hold out.")] = True,
    retries: Annotated[int, typer.Option(min=0, max=100, help="New attempts at a round before the run stops.")] = 5,
    deadline: Annotated[
        list[str] | None,
        typer.Option(metavar="STAGE=SECONDS", help=f"Of {', '.join(sorted(_STAGES))}; may be given again."),
    ] = None,
    identity: IdentityPath = None,
    server: Server = None,
    preflight: Annotated[
        bool, typer.Option("--preflight/--no-preflight", help="Work out first what the run costs each peer.")
    ] = True,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the run to its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sign a plan, upload what is missing, and open a run of it; prints the run id.

    Before that the preflight says on stderr what a round costs each peer, and refuses runs whose sums would overflow
    or whose plan is larger than owners allow by default.

    Without --identity this user's author key is used, and made on first use. A function is imported from the current
    folder or what is installed, is called without arguments, and needs torch.

    [bold]Examples[/bold]

      peerplan publish digits.plan wss://signal.example --rounds 20 --cohort 10

      peerplan publish examples.digits:build_plan ws://127.0.0.1:8080 --rounds 5 --cohort 5 --watch

      peerplan publish digits.plan wss://signal.example --rounds 20 --cohort 32 --cohorts 64
    """
    configure_logs("warning", as_json=as_json)
    made = load_plan(plan)
    terms = make_terms(
        made,
        rounds=rounds,
        cohort_size=cohort,
        cohorts=cohorts,
        min_cohort=min_cohort,
        min_survivors=min_survivors,
        name=name,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        max_examples=max_examples,
        weighting=weighting.value,
        server_optimizer=server_optimizer.value,
        server_learning_rate=server_learning_rate,
        server_beta1=server_beta1,
        server_beta2=server_beta2,
        server_tau=server_tau,
        clip=clip,
        ring_bits=ring_bits,
        value_bits=value_bits,
        replicas=replicas,
        members=tuple(member or ()),
        evaluate=evaluate,
        retries=retries,
        deadlines=parse_deadlines(deadline or ()),
    )
    if identity is None:
        load_or_create_identity(default_identity_path())
    with author_identity(identity) as key:
        cost = run_preflight(made, terms, show=not as_json) if preflight else None
        run_loop(_publish(made, terms, url, key, server=server, watch=watch, as_json=as_json, cost=cost))


def parse_deadlines(entries: Sequence[str]) -> Deadlines:
    """Deadlines from `STAGE=SECONDS`; a stage not named keeps its default.

    Raises:
        CommandError: another form, an unknown stage, or a number out of range.
    """
    said: dict[str, int] = {}
    for entry in entries:
        stage, _, seconds = entry.partition("=")
        if stage not in _STAGES or not _SECONDS.fullmatch(seconds):
            raise CommandError(
                f"--deadline {entry!r}: expected STAGE=SECONDS with a stage of {', '.join(sorted(_STAGES))}",
                code="usage",
                exit_status=USAGE,
            )
        said[f"{stage}_ms"] = round(1000 * float(seconds))
    try:
        return msgspec.convert(said, Deadlines)
    except msgspec.ValidationError as error:
        raise CommandError(f"--deadline: {error}", code="usage", exit_status=USAGE) from None


async def _publish(
    plan: Plan,
    terms: RunTerms,
    url: str,
    key: Identity,
    *,
    server: str | None,
    watch: bool,
    as_json: bool,
    cost: Preflight | None,
) -> None:
    async with await Author.connect(url, key, expected_server=server) as author:
        status = await _upload(author, plan, terms, as_json=as_json)
        _tell(status, url, as_json=as_json, cost=cost)
        if watch and terms.members:
            await watch_run(author, status.run, as_json=as_json)
    if watch and not terms.members:  # by a key that nobody else uses: the author's other commands would end this one
        with reader_identity(None) as nobody:
            async with await Author.connect(url, nobody, expected_server=server) as reader:
                await watch_run(reader, status.run, as_json=as_json)


async def _upload(author: Author, plan: Plan, terms: RunTerms, *, as_json: bool) -> RunStatus:
    out = console(stderr=True)
    if as_json or not out.is_terminal:
        return await author.publish(plan, terms)
    bar = Progress(
        TextColumn("uploading"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=out, transient=True
    )
    task = bar.add_task("uploading", total=sum(len(blob) for blob in plan.blobs.values()))
    uploaded: dict[str, int] = {}

    def progress(digest: str, done: int, _total: int) -> None:
        uploaded[digest] = done
        bar.update(task, completed=sum(uploaded.values()))

    with bar:
        return await author.publish(plan, terms, progress=progress)


def _tell(status: RunStatus, url: str, *, as_json: bool, cost: Preflight | None) -> None:
    if as_json:
        print_json(
            {
                "event": "published",
                "run": status.run,
                "plan": status.plan,
                "name": status.name,
                "author": status.author,
                "rounds": status.rounds,
                "preflight": None if cost is None else preflight_json(cost),
            }
        )
        return
    console().print(
        f"run [bold]{status.run}[/bold]\n[dim]follow it with: peerplan watch {text(url)} {status.run[:12]}[/dim]",
        soft_wrap=True,
    )
