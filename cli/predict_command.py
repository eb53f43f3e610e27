"""`peerplan predict`: run a released model on this device."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from cli.errors import USAGE, CommandError
from cli.files import write_whole
from cli.model_inputs import ModelInput, load_inputs, parse_fields
from cli.options import AsJson
from cli.output import console, print_json, text
from plans.onnx_runtime import onnxruntime

__all__ = ["predict"]

_BATCH = 1024
_SHOWN_ROWS, _SHOWN_COLUMNS = 20, 12

Arrays = Mapping[str, np.ndarray[Any, Any]]


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="A released model, as fetch writes it.")],
    *,
    data: Annotated[Path, typer.Option("--input", metavar="FILE", help="A .npz or .csv file.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a .npz or .csv file.")] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=COLUMNS", help="Columns of a .csv file that make an input: names or patterns."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Processor cores.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Predict with a released model; the data and the outputs stay on this device.

    Of a .csv file an input takes the column of its name, else the columns NAME_*, else (a model with one input) all.

    [bold]Examples[/bold]

      peerplan predict model.onnx --input test.npz --out predictions.csv

      peerplan predict model.onnx --input test.csv --field 'image=pixel_*' --json
    """
    if out is not None and out.suffix not in (".npz", ".csv"):
        raise CommandError(f"--out {out}: expected a name that ends in .npz or .csv", code="usage", exit_status=USAGE)
    session = _open(model, threads)
    inputs = [ModelInput.of(port, where=str(model)) for port in session.get_inputs()]
    feeds = load_inputs(data, inputs, fields=parse_fields(field or ()))
    outputs = _run(session, feeds, model)
    if out is not None:
        write_whole(out, _npz(outputs) if out.suffix == ".npz" else _csv(outputs, out))
    _show(outputs, out, as_json=as_json)


def _open(model: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model.read_bytes(), options, providers=["CPUExecutionProvider"])
    except OSError as error:
        raise CommandError(f"{model}: cannot be read: {error.strerror or error}", code="bad-file") from error
    except Exception as error:  # ONNX Runtime's errors share no base class but this
        raise CommandError(f"{model}: ONNX Runtime cannot load it: {_first_line(error)}", code="bad-model") from error


def _run(session: Any, feeds: Arrays, model: Path) -> Arrays:
    names = [port.name for port in session.get_outputs()]
    count = len(next(iter(feeds.values())))
    parts: list[list[np.ndarray[Any, Any]]] = []
    for start in range(0, count, _BATCH):
        batch = {name: np.ascontiguousarray(array[start : start + _BATCH]) for name, array in feeds.items()}
        try:
            parts.append(session.run(names, batch))
        except Exception as error:  # ONNX Runtime's errors share no base class but this
            raise CommandError(
                f"{model}: ONNX Runtime failed: {_first_line(error)}", code="execution-failed"
            ) from error
    return {name: np.concatenate(pieces) for name, pieces in zip(names, zip(*parts, strict=True), strict=True)}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), repr(error))


def _npz(outputs: Arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **dict(outputs))  # type: ignore[arg-type]  # numpy's signature also names a flag
    return file.getvalue()


def _csv(outputs: Arrays, path: Path) -> bytes:
    flat = {name: array.reshape(len(array), -1) for name, array in outputs.items()}
    header = [
        name if table.shape[1] == 1 else f"{name}_{column}"
        for name, table in flat.items()
        for column in range(table.shape[1])
    ]
    if len(header) > 1 << 16:
        raise CommandError(f"--out {path}: {len(header)} columns; write a .npz file instead", code="bad-file")
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    for row in zip(*flat.values(), strict=True):
        writer.writerow([value for part in row for value in part.tolist()])
    return file.getvalue().encode("utf-8")


def _show(outputs: Arrays, out: Path | None, *, as_json: bool) -> None:
    shapes = {name: {"dtype": array.dtype.name, "shape": list(array.shape)} for name, array in outputs.items()}
    if as_json and out is not None:
        print_json({"path": str(out), "outputs": shapes})
    elif as_json:
        print_json({"outputs": outputs})
    elif out is not None:
        told = ", ".join(f"{name} {item['dtype']}{item['shape']}" for name, item in shapes.items())
        console().print(f"{text(out)}: {text(told)}", soft_wrap=True)
    else:
        for name, array in outputs.items():
            _table(name, array)


def _table(name: str, array: np.ndarray[Any, Any]) -> None:
    flat = array.reshape(len(array), -1)
    table = Table(title=text(f"{name} {array.dtype.name}{list(array.shape)}"), title_justify="left")
    table.add_column("example", justify="right", style="dim")
    shown = min(flat.shape[1], _SHOWN_COLUMNS)
    for column in range(shown):
        table.add_column(str(column), justify="right")
    if flat.shape[1] > 1:
        table.add_column("largest", justify="right", style="bold")
    for number, row in enumerate(flat[:_SHOWN_ROWS]):
        largest = [str(int(row.argmax()))] if len(row) > 1 else []
        table.add_row(str(number), *(f"{value:.4g}" for value in row[:shown].tolist()), *largest)
    out = console()
    out.print(table)
    hidden = len(flat) - min(len(flat), _SHOWN_ROWS)
    if hidden:
        out.print(f"[dim]and {hidden} more; write all with --out[/dim]")
