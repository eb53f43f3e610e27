"""`peerplan fetch`: a run's model from a peer, checked, as a file."""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from cli.errors import USAGE, CommandError
from cli.files import write_whole
from cli.options import (
    AsJson,
    IdentityPath,
    Server,
    Stun,
    Turn,
    TurnCredential,
    TurnUsername,
    Url,
    author_identity,
    ice_servers,
)
from cli.output import configure_logs, console, print_json, text
from cli.run_commands import RunName
from cli.run_names import resolve_run
from plans import Plan
from plans.release import released_model
from protocol.identity import Identity
from protocol.secagg.apply import model_digest
from python_node.author import Author, FetchedModel
from python_node.loop import run as run_loop
from python_node.membership import initial_model
from python_node.training import model_length, split_model

__all__ = ["fetch"]

_FORMATS = (".onnx", ".npz")


def fetch(
    url: Url,
    run: RunName,
    *,
    out: Annotated[
        Path,
        typer.Option(metavar="FILE", help="model.onnx for stock ONNX Runtime, or model.npz with theta and buffers."),
    ],
    round_number: Annotated[
        int | None, typer.Option("--round", min=0, help="The model of an earlier round; peers keep a few.")
    ] = None,
    identity: IdentityPath = None,
    server: Server = None,
    stun: Stun = None,
    turn: Turn = None,
    turn_username: TurnUsername = None,
    turn_credential: TurnCredential = None,
    as_json: AsJson = False,
) -> None:
    """Get a run's current model from a peer that holds it, and check it against what a quorum of peers signed.

    The author of a run may, and nodes that accepted it; a peer that holds the model must be online.

    [bold]Examples[/bold]

      peerplan fetch wss://signal.example 803993eb --out model.onnx

      peerplan fetch wss://signal.example 803993eb --round 10 --out round10.npz
    """
    configure_logs("warning", as_json=as_json)
    if out.suffix not in _FORMATS:
        raise CommandError(
            f"--out {out}: expected a name that ends in .onnx or .npz", code="usage", exit_status=USAGE
        )
    servers = ice_servers(stun, turn, turn_username, turn_credential)

    async def go(key: Identity) -> _Fetched:
        async with await Author.connect(url, key, expected_server=server, ice_servers=servers) as author:
            return await _fetch(author, await resolve_run(author.session, run), round_number, quiet=as_json)

    with author_identity(identity) as key:
        found = run_loop(go(key))
    data = _onnx(found) if out.suffix == ".onnx" else _npz(found)
    write_whole(out, data)
    _tell(found, out, len(data), as_json=as_json)


@dataclass(frozen=True)
class _Fetched:
    run: str
    plan: Plan
    model: FetchedModel

    @property
    def theta(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        return split_model(self.plan, self.model.values)[0]

    @property
    def buffers(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        return split_model(self.plan, self.model.values)[1]


async def _fetch(author: Author, run: str, round_number: int | None, *, quiet: bool) -> _Fetched:
    wanted = (await author.session.get_run(run)).status.round if round_number is None else round_number
    with tempfile.TemporaryDirectory(prefix="peerplan-") as folder:
        plan = await author.fetch_plan(run, Path(folder))
    if wanted == 0:  # the model the run starts from follows from the plan and the terms
        start = initial_model(plan, (await author.view(run)).terms.server_optimizer)
        values = start[: model_length(plan)]
        return _Fetched(run, plan, FetchedModel(round=0, digest=model_digest(start), values=values))
    out = console(stderr=True)
    bar = Progress(
        TextColumn("fetching"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=out,
        transient=True,
        disable=quiet or not out.is_terminal,
    )
    task = bar.add_task("fetching", total=None)
    with bar:
        model = await author.fetch(
            run,
            round_number=round_number,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    return _Fetched(run, plan, model)


def _onnx(found: _Fetched) -> bytes:
    facts = {
        "peerplan.run": found.run,
        "peerplan.round": str(found.model.round),
        "peerplan.model": found.model.digest,
    }
    return released_model(found.plan, found.theta, found.buffers, facts=facts)


def _npz(found: _Fetched) -> bytes:
    file = io.BytesIO()
    np.savez(file, theta=found.theta, buffers=found.buffers)
    return file.getvalue()


def _tell(found: _Fetched, out: Path, size: int, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "run": found.run,
                "round": found.model.round,
                "model_digest": found.model.digest,
                "plan": found.plan.digest,
                "name": found.plan.manifest.name,
                "path": str(out),
                "bytes": size,
            }
        )
        return
    console().print(
        f"{text(out)}: {text(found.plan.manifest.name)} after round {found.model.round}, {size:,} bytes, "
        f"model {found.model.digest[:12]}",
        soft_wrap=True,
    )
