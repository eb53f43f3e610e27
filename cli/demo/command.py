"""`peerplan demo`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from cli.demo.report import RoundRow, render, summary
from cli.errors import USAGE, CommandError
from cli.output import configure_logs, console, print_json
from cli.signal_command import LogLevel
from python_node.loop import run

__all__ = ["demo"]


class Example(StrEnum):
    """The worked examples that the demo can show."""

    DIGITS = "digits"
    DIGITS_PERSONAL = "digits_personal"
    DIGITS_CNN = "digits_cnn"
    DIABETES = "diabetes"
    NEXT_CHARACTER = "next_character"
    FINE_TUNE = "fine_tune"


def demo(
    *,
    example: Annotated[
        Example,
        typer.Option(metavar="NAME", help=f"What to train: {', '.join(name.value for name in Example)}."),
    ] = Example.DIGITS,
    peers: Annotated[int, typer.Option(min=3, max=16, help="Node processes to start.")] = 5,
    rounds: Annotated[int, typer.Option(min=1, max=200, help="Rounds to train.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of shards, order of examples and whom --kill hits.")] = 0,
    kill: Annotated[int, typer.Option(min=0, help="Peers killed with SIGKILL on the way; 3 must stay.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for model.onnx, report.json and rounds.png.")] = Path(
        "peerplan-demo"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one line of JSON instead.")] = False,
    log_level: Annotated[LogLevel, typer.Option(help="Structured logs on stderr.")] = LogLevel.ERROR,
) -> None:
    """Train a worked example among node processes on this machine, over real WebRTC; by default a digit classifier.

    Starts a signaling server and nodes with shards of real data that do not look alike, publishes the plan of an
    example (in examples/), and shows each round: how good the common model is on held-out data, and its cost.

    No process ever sees another one's data or update.

    [bold]Examples[/bold]

      peerplan demo

      peerplan demo --peers 8 --rounds 20 --kill 2 --out /tmp/demo

      peerplan demo --example diabetes

      peerplan demo --json | jq .final_accuracy
    """
    if kill > peers - 3:
        raise CommandError(
            f"--kill {kill} of --peers {peers} leaves {peers - kill}; a cohort needs 3",
            code="usage",
            exit_status=USAGE,
        )
    try:
        # both need the extras `author` and `demo`
        from cli.demo.flow import DemoOptions, run_demo  # noqa: PLC0415
        from cli.demo.tasks import TASKS  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise CommandError(
            f"the demo needs {error.name}: pip install 'peerplan[author,demo]'", code="missing-extra"
        ) from error
    configure_logs(log_level.value, as_json=as_json)
    task = TASKS[example.value]
    options = DemoOptions(task=task, peers=peers, rounds=rounds, seed=seed, kill=kill, out=out)
    if as_json:
        print_json(run(run_demo(options, lambda _rows, _text: None)))
        return
    screen = console()
    with Live(console=screen, refresh_per_second=8) as live:

        def show(rows: list[RoundRow], text: str) -> None:
            live.update(render(rows, task, rounds=rounds, caption=text))

        report = run(run_demo(options, show))
    screen.print()
    screen.print(summary(report, task))
    screen.print(
        f"{report['seconds_total']:.1f} s in all. The revealed sums differ from plain float sums by at most "
        f"{report['max_abs_aggregate_error']:.1e} (a quantisation step is {report['quantisation_step']:.1e}).",
        f"Written: {out}/model.onnx, {out}/report.json, {out}/rounds.png",
        sep="\n",
    )
