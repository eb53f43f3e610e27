"""`peerplan plan ...`: look at a plan before it runs anywhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

import plans
from cli.help_text import Command, Group
from cli.options import AsJson
from cli.output import console, print_json, text
from plans import Plan, SignedPlan
from plans.card import Card
from protocol.encoding import parse_hex

__all__ = ["plan_app"]

plan_app = typer.Typer(
    cls=Group, no_args_is_help=True, rich_markup_mode="rich", help="Look at a plan before it runs anywhere."
)

Bundle = Annotated[Path, typer.Argument(metavar="FILE|DIR", help="A .plan file, or a bundle as a directory.")]


@plan_app.command("inspect", cls=Command)
def inspect(
    bundle: Bundle,
    *,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="DIR", help="Draw each function's graph into DIR/FUNCTION.svg.")
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option("--onnx", metavar="DIR", help="Write each function's graph to DIR/FUNCTION.onnx, for Netron."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a plan reads, what leaves the device, its functions and operators, and who signed it.

    A signature is checked where there is one; whether nodes would run its graphs is said by [bold]plan verify[/bold],
    and checked here before they are drawn.

    [bold]Examples[/bold]

      peerplan plan inspect digits.plan

      peerplan plan inspect digits.plan --svg pictures --onnx models

      peerplan plan inspect digits.plan --json
    """
    found = plans.load(bundle)
    card = plans.card(found)
    pictures, models = _pictures(found, svg), _models(found, onnx)
    if as_json:
        print_json(_card_json(card) | {"pictures": pictures, "models": models})
        return
    _show_card(card)
    for path in pictures:
        console().print(f"{text(path)}: a picture of the graph", soft_wrap=True)
    for path in models:
        console().print(f"{text(path)}: the graph without parameters", soft_wrap=True)
    if models:
        console().print("To look into them, open https://netron.app and drop a file there: it is read, not uploaded.")


def _pictures(plan: Plan, folder: Path | None) -> list[str]:
    if folder is None:
        return []
    plans.validate(plan)
    name = f"{plan.manifest.name} {plan.manifest.version}"
    drawn = {kind: plans.picture(plan.graph(kind), title=f"{name}: {kind}") for kind in plan.manifest.functions}
    return _written(folder, {f"{kind}.svg": picture.encode() for kind, picture in drawn.items()})


def _models(plan: Plan, folder: Path | None) -> list[str]:
    return [] if folder is None else _written(folder, {f"{k}.onnx": plan.graph(k) for k in plan.manifest.functions})


def _written(folder: Path, files: dict[str, bytes]) -> list[str]:
    """Write files into a folder, made where it is missing; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [str(folder / name) for name in files]


@plan_app.command("verify", cls=Command)
def verify(
    bundle: Bundle,
    *,
    author: Annotated[
        list[str] | None,
        typer.Option(metavar="PEER_ID", help="Who may have signed; may be given again. Anybody by default."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a plan as a node does: signature, blobs by digest, and every graph against the rules for graphs.

    Ends with exit code 3 and the first rule broken where a node would refuse it.

    [bold]Examples[/bold]

      peerplan plan verify digits.plan --author PEER_ID
    """
    authors = None if not author else {parse_hex(peer, what="--author").hex() for peer in author}
    signed: SignedPlan = plans.verify(bundle, authors=authors)
    if as_json:
        print_json({"valid": True, "plan": signed.digest, "author": signed.author, "name": signed.manifest.name})
        return
    console().print(
        f"[green]valid[/green]  {text(signed.manifest.name)} {text(signed.manifest.version)}\n"
        f"plan   {signed.digest}\nauthor {signed.author}",
        soft_wrap=True,
    )


def _card_json(card: Card) -> dict[str, Any]:
    shown = {field.name: getattr(card, field.name) for field in dataclasses.fields(card)}
    builtins: dict[str, Any] = msgspec.to_builtins(shown)
    return builtins


def _show_card(card: Card) -> None:
    out = console()
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    rows = {
        "plan": f"[bold]{text(card.name)}[/bold] {text(card.version)}",
        "about": text(card.description),
        "digest": card.digest,
        "signed by": card.author or "[yellow]nobody yet[/yellow]",
        "reads": "\n".join(f"{text(field.name)}  {field.dtype}{list(field.shape)}" for field in card.reads),
        "stays": "all of what it reads" + _local(card) + _frozen(card),
        "leaves": f"{_leaving(card)}, {_names(card)} and a count of examples: "
        f"{card.leaves_bytes:,} bytes a round, masked",
        "vectors": f"{card.parameter_count:,} parameters, {card.optimizer_count:,} optimizer, "
        f"{card.buffer_count:,} buffers, {card.frozen_count:,} frozen",
        "size": f"{card.bundle_bytes:,} bytes, ONNX opset {card.opset}",
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    for function in card.functions:
        operators = ", ".join(f"{name} {count}" for name, count in function.operators.items())
        table.add_row(function.name, f"{function.graph_bytes:,} bytes: {text(operators)}")
    out.print(table)


def _local(card: Card) -> str:
    """What each peer trains for itself."""
    return f"; {card.local_count:,} local parameters, each peer's own" if card.local_count else ""


def _frozen(card: Card) -> str:
    """What is part of the plan and of no round."""
    return f"; {card.frozen_count:,} frozen numbers of the plan, never sent again" if card.frozen_count else ""


def _leaving(card: Card) -> str:
    buffers = f", {card.buffer_count:,} buffers" if card.buffer_count else ""
    return f"{card.parameter_count - card.local_count:,} parameters{buffers}"


def _names(card: Card) -> str:
    return ", ".join(text(metric.name) for metric in card.metrics) or "no metric"
