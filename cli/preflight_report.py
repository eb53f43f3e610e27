"""What a run will cost each peer, shown before it is published; a run that nobody could take part in is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.table import Table

import plans
from cli.errors import CommandError
from cli.output import console, text
from plans import Plan, Preflight
from protocol.terms import RunTerms
from python_node.policy import Policy, beyond_limits

__all__ = ["DEFAULTS", "preflight_json", "run_preflight"]

DEFAULTS = Policy()
"""The limits of owners who changed none."""
_INSTEAD = {
    "max_parameters": "train fewer parameters, for example adapters on a frozen base (plans.lora)",
    "max_model_bytes": "train fewer parameters, or take an optimizer that keeps less state (SGD keeps least)",
}


def run_preflight(plan: Plan, terms: RunTerms, *, show: bool) -> Preflight:
    """Work out what a run costs, show it on stderr, and refuse what does not fit.

    Raises:
        CommandError: sums could overflow the ring, or every owner who left the limits on memory alone would decline.
    """
    found = plans.preflight(plan, terms)
    beyond = beyond_limits(DEFAULTS, plan.manifest, terms)
    if show:
        _show(plan, found, terms, [*found.warnings, *(why for key, why in beyond.items() if key not in _INSTEAD)])
    if found.ring_margin < 1:
        raise CommandError(
            f"run {terms.name}: sums reach {1 / found.ring_margin:.2f} times what a ring of {terms.ring_bits} bits "
            "holds; take more --ring-bits, fewer --value-bits or a smaller --cohort",
            code="bad-terms",
        )
    for key, instead in _INSTEAD.items():
        if key in beyond:
            raise CommandError(
                f"run {terms.name}: {beyond[key]} by default, so owners who changed nothing decline; {instead}, "
                f"or give --no-preflight where your owners allow more by {key}",
                code="too-large",
            )
    return found


def preflight_json(found: Preflight) -> dict[str, Any]:
    """As plain values."""
    return dataclasses.asdict(found)


def _show(plan: Plan, found: Preflight, terms: RunTerms, warnings: list[str]) -> None:
    out = console(stderr=True)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    frozen = f", {found.frozen_count:,} frozen" if found.frozen_count else ""
    web = f"lacks {', '.join(found.missing_on_web)}" if found.missing_on_web else "has every operator"
    reads = ", ".join(f"{field.name} {field.dtype}{list(field.shape)}" for field in plan.manifest.data_fields)
    rows = {
        "reads": f"{reads}; nodes without a dataset of these fields are not asked",
        "model": f"{found.parameter_count:,} parameters, {found.buffer_count:,} buffers{frozen}",
        "per peer": f"{found.fetch_bytes:,} bytes once for the plan; each round {found.bytes_up:,} up and "
        f"{found.bytes_down:,} down among {terms.cohort_size}",
        "memory": f"at least {found.memory_bytes:,} bytes",
        "ring": f"the largest sum fits {found.ring_margin:.2f} times",
        "browsers": f"onnxruntime-web {web}",
    }
    if found.step is not None:
        rows["step"] = f"{found.step.median_s * 1000:.3g} ms for {found.step.batch_size} examples on this machine"
    for name, value in rows.items():
        table.add_row(name, text(value))
    for warning in warnings:
        table.add_row("[yellow]warning[/yellow]", text(warning))
    out.print(table)
