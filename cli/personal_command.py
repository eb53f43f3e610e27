"""`peerplan personal`: an owner's own model out of a node's state folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.errors import USAGE, CommandError
from cli.files import write_whole
from cli.options import AsJson
from cli.output import console, print_json, text
from cli.run_commands import RunName
from python_node.personal import personal_model
from python_node.state import NodeState

__all__ = ["personal"]


def personal(
    run: RunName,
    *,
    state: Annotated[
        Path, typer.Option(metavar="DIR", help="The node's state folder; the node must not be running.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="model.onnx for stock ONNX Runtime.")],
    as_json: AsJson = False,
) -> None:
    """Write this owner's own model of a run: what all trained, with the parameters that never left this device.

    Nothing is sent or asked for. Plans without local parameters give the common model as this node last held it.

    [bold]Examples[/bold]

      peerplan personal 803993eb --state node0 --out mine.onnx
    """
    if out.suffix != ".onnx":
        raise CommandError(f"--out {out}: expected a name that ends in .onnx", code="usage", exit_status=USAGE)
    if not state.is_dir():
        raise CommandError(f"--state {state}: there is no such folder", code="usage", exit_status=USAGE)
    with NodeState.open(state) as opened:
        found = personal_model(opened, run)
    write_whole(out, found.onnx)
    if as_json:
        told = {"run": found.run, "round": found.round, "name": found.name, "local_parameters": found.local_count}
        print_json({**told, "path": str(out), "bytes": len(found.onnx)})
        return
    console().print(
        f"{text(out)}: {text(found.name)} after round {found.round}, {len(found.onnx):,} bytes, "
        f"{found.local_count:,} parameters are this node's own",
        soft_wrap=True,
    )
