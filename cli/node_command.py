"""`peerplan node`: serve one's own data to plans that one's policy accepts."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer
from platformdirs import user_data_path

from cli.node_display import NodeDisplay
from cli.node_service import NodeService, serve_node
from cli.node_settings import build_policy, load_data
from cli.options import AsJson, Server, Stun, Turn, TurnCredential, TurnUsername, Url, ice_servers
from cli.output import configure_logs, console
from cli.signal_command import LogLevel
from plans.memory_limit import LEAST_LIMIT_BYTES
from python_node.loop import run
from python_node.policy import Policy

__all__ = ["node"]


def node(
    url: Url,
    *,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SOURCE", help="A dataset: a .npz or .csv file, or package.module:function."),
    ] = None,
    datasets: Annotated[
        Path | None, typer.Option(metavar="TOML", help="Datasets with columns grouped into fields (docs/owners.md).")
    ] = None,
    holdout: Annotated[
        float, typer.Option(metavar="FRACTION", help="Part of each --data that is only evaluated on.")
    ] = 0.0,
    policy: Annotated[Path | None, typer.Option(metavar="TOML", help="What you allow (docs/owners.md).")] = None,
    allow_author: Annotated[
        list[str] | None,
        typer.Option(metavar="PEER_ID|any", help="Whose plans may run here; may be given again. Nobody by default."),
    ] = None,
    min_cohort: Annotated[int | None, typer.Option(min=3, max=64, help="Smallest cohort you take part in.")] = None,
    min_survivors: Annotated[
        int | None, typer.Option(min=3, max=64, help="Fewest peers your update may be summed with.")
    ] = None,
    max_memory: Annotated[
        int | None,
        typer.Option(
            metavar="MIB",
            min=LEAST_LIMIT_BYTES >> 20,
            help="Memory that training for one run may take; half of this machine's by default.",
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Identity, checkpoints, receipts; in your data folder by default."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Processor cores for training.")] = 1,
    server: Server = None,
    stun: Stun = None,
    turn: Turn = None,
    turn_username: TurnUsername = None,
    turn_credential: TurnCredential = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for a signaling server that is not up yet.")] = False,
    training_seed: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Fixes the order of examples, so that a run can be repeated; for tests."),
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(help="Structured logs on stderr.")] = LogLevel.WARNING,
    as_json: AsJson = False,
) -> None:
    """Serve datasets of this device to the runs your policy accepts.

    Data stays here; what leaves is masked, and shows up as a sum over the survivors alone. The node reconnects by
    itself and goes on where it was after any kill. SIGTERM and Ctrl-C end it cleanly.

    [bold]Examples[/bold]

      peerplan node wss://signal.example --data digits=digits.npz --allow-author PEER_ID --holdout 0.2

      peerplan node ws://127.0.0.1:8080 --datasets datasets.toml --policy policy.toml --json
    """
    configure_logs(log_level.value, as_json=as_json)
    decided = build_policy(
        policy,
        authors=allow_author or (),
        min_cohort=min_cohort,
        min_survivors=min_survivors,
        max_memory_mib=max_memory,
    )
    _warn(decided, training_seed)
    service = NodeService(
        url=url,
        expected_server=server,
        state=state or user_data_path("peerplan") / "node",
        policy=decided,
        datasets=load_data(data or (), datasets, holdout=holdout),
        threads=threads,
        training_seed=None if training_seed is None else hashlib.sha256(training_seed.encode("utf-8")).digest(),
        ice_servers=ice_servers(stun, turn, turn_username, turn_credential),
        wait=wait,
    )
    with NodeDisplay(as_json=as_json) as display:
        run(serve_node(service, display))


def _warn(policy: Policy, training_seed: str | None) -> None:
    out = console(stderr=True)
    if not policy.authors:
        out.print("[yellow]nobody may run plans here[/yellow]: name authors by --allow-author or in the policy file")
    if training_seed is not None:
        out.print(
            "[yellow]--training-seed[/yellow]: the order of examples is fixed, so runs on the same data repeat; "
            "whoever knows the seed knows that order"
        )
