"""What a check found, and how all of them are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.table import Table

from cli.output import console, print_json, text

__all__ = ["Finding", "failed", "show"]

Level = Literal["ok", "warn", "fail"]
_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check: what was found, what to do where it is not "ok", and figures for programs."""

    check: str
    level: Level
    found: str
    remedy: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


def failed(findings: Sequence[Finding]) -> bool:
    """Whether one of them means that this machine cannot take part."""
    return any(finding.level == "fail" for finding in findings)


def show(findings: Sequence[Finding], *, as_json: bool) -> None:
    """Print all findings, in order."""
    if as_json:
        print_json({"ok": not failed(findings), "checks": [asdict(finding) for finding in findings]})
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        remedy = f"\n[yellow]-> {text(finding.remedy)}[/yellow]" if finding.remedy else ""
        table.add_row(f"[{_STYLES[finding.level]}]{finding.level}[/]", finding.check, text(finding.found) + remedy)
    console().print(table)
