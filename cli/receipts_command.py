"""`peerplan receipts`: what a node was asked, what its owner's policy decided, and which rounds followed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from cli.errors import USAGE, CommandError
from cli.options import AsJson
from cli.output import console, print_json, text
from protocol.identity import short
from python_node.receipts import Receipt
from python_node.state import read_receipts

__all__ = ["receipts"]


def receipts(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The first digits of a run id; all runs without.")] = "",
    *,
    state: Annotated[Path, typer.Option(metavar="DIR", help="The node's state folder; the node may be running.")],
    as_json: AsJson = False,
) -> None:
    """Show a node's signed receipts: who asked, what was decided by which rule, which rounds followed.

    Every signature is checked. Nothing is sent, and the node need not be stopped.

    [bold]Examples[/bold]

      peerplan receipts --state node0

      peerplan receipts 803993eb --state node0 --json
    """
    if not state.is_dir():
        raise CommandError(f"--state {state}: there is no such folder", code="usage", exit_status=USAGE)
    found = [receipt for receipt in read_receipts(state) if receipt.run.startswith(run)]
    if as_json:
        for receipt in found:
            print_json(msgspec.to_builtins(receipt))
        return
    if not found:
        console().print(
            "no receipts: nobody has asked this node yet" if not run else f"no receipts of run {text(run)}"
        )
        return
    table = Table()
    for name in ("time (UTC)", "run", "name", "author", "decision", "what", "model"):
        table.add_column(name, overflow="fold")
    for receipt in found:
        table.add_row(*_row(receipt))
    console().print(table)


def _row(receipt: Receipt) -> list[str]:
    done = receipt.completed
    what = f"{receipt.rule}: {receipt.reason}" if receipt.decision == "declined" else f"dataset {receipt.dataset}"
    if done is not None:
        what = f"round {done.round}, {done.survivors} survivors"
    cells = [
        receipt.time.replace("T", " ").removesuffix("Z"),
        short(receipt.run),
        receipt.name,
        short(receipt.author),
        receipt.decision if done is None else "took part",
        what,
        "" if done is None else short(done.model_digest),
    ]
    return [text(cell) for cell in cells]
