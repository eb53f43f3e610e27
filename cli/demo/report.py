"""What the demo leaves behind: report.json, rounds.png, model.onnx; and its live table."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from cli.demo.tasks import Task

__all__ = ["RoundRow", "render", "summary", "write_plot", "write_report"]

STAGES = ("link", "train", "mask", "exchange", "unmask", "total")


@dataclass
class RoundRow:
    """One round as the demo saw it; dicts of bytes are keyed by peer id, seconds are those of the slowest peer."""

    round: int
    survivors: int
    cohort: int
    loss: float | None
    scores: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    bytes_sent: dict[str, int] = field(default_factory=dict)
    bytes_received: dict[str, int] = field(default_factory=dict)

    def add_peer(self, peer: str, event: dict[str, Any]) -> None:
        """Take in a node's `round_completed` event."""
        self.bytes_sent[peer] = event["bytes_sent"]
        self.bytes_received[peer] = event["bytes_received"]
        for stage in STAGES:
            self.seconds[stage] = max(self.seconds.get(stage, 0.0), event["seconds"][stage])

    def plain(self, peers: list[str], task: Task) -> dict[str, Any]:
        """The row for report.json: bytes in the order of `peers`, 0 for one that did not complete the round."""
        return {
            "round": self.round,
            "survivors": self.survivors,
            "cohort": self.cohort,
            "loss": self.loss,
            **{score.name: self.scores.get(score.name) for score in task.scores},
            "seconds": {stage: self.seconds.get(stage, 0.0) for stage in STAGES},
            "bytes_sent": [self.bytes_sent.get(peer, 0) for peer in peers],
            "bytes_received": [self.bytes_received.get(peer, 0) for peer in peers],
        }


def render(rows: list[RoundRow], task: Task, *, rounds: int, caption: str) -> Table:
    """The live table."""
    first = task.scores[0]
    table = Table(title=f"Training on {rounds} rounds of masked updates", caption=caption, caption_justify="left")
    for name in (
        "round",
        f"{'training' if task.local else 'held-out'} {first.text}",
        "loss",
        "survivors",
        "bytes sent per peer",
        "seconds",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        sent = list(row.bytes_sent.values())
        table.add_row(
            str(row.round),
            f"{row.scores[first.name]:.4f}" if row.scores else "…",
            "" if row.loss is None else f"{row.loss:.4f}",
            f"{row.survivors}/{row.cohort}",
            f"{sum(sent) // len(sent):,}" if sent else "…",
            f"{row.seconds['total']:.3f}" if row.seconds else "…",
        )
    return table


def summary(report: dict[str, Any], task: Task) -> Table:
    """The comparison at the end."""
    texts = [score.text for score in task.scores]
    table = Table(title=f"Held-out {' and '.join(texts)}, the same budget")
    table.add_column("who trained")
    for text in texts:
        table.add_column(text, justify="right")
    who = {
        "final": "all peers together, " + ("each with its own head" if task.local else "only sums revealed"),
        "central": "one machine with everybody's data",
        "best_single_peer": "best single peer alone",
    }
    for key, name in who.items():
        numbers = [f"{report[f'{key}_{score.name}']:.4f}" for score in task.scores]
        table.add_row(name, *(f"[bold]{number}[/bold]" if key == "final" else number for number in numbers))
    return table


def write_report(report: dict[str, Any], path: Path) -> None:
    """report.json."""
    path.write_text(json.dumps(report, indent=2) + "\n")


def write_plot(report: dict[str, Any], task: Task, path: Path) -> None:
    """rounds.png: the first score and loss by round, beside central training and the best single peer."""
    import matplotlib as mpl  # noqa: PLC0415 (the extra `demo`)

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    score, rows = task.scores[0], report["rounds"]
    numbers = [row["round"] for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    left.plot(numbers, [row[score.name] for row in rows], marker="o", label="peers together")
    left.axhline(report[f"central_{score.name}"], color="C2", linestyle="--", label="one machine with all data")
    left.axhline(report[f"best_single_peer_{score.name}"], color="C3", linestyle=":", label="best single peer")
    left.set(xlabel="round", ylabel=f"{'training' if task.local else 'held-out'} {score.text}", title=task.title)
    left.legend(loc="lower right" if score.higher_is_better else "upper right")
    right.plot(numbers, [row["loss"] for row in rows], marker="o", color="C1")
    right.set(xlabel="round", ylabel="mean training loss (from the masked sum)", title="Loss")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
