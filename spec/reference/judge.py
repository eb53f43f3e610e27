"""Cases judged by the reference as they are made: outputs are its answers, refusals come from the named rule."""

from __future__ import annotations

from typing import Any

from spec.reference.output import Case, invalid, valid
from spec.reference.refused import Refused
from spec.reference.under_test import OPS

__all__ = ["bad", "good"]


def good(op: str, name: str, comment: str, given: dict[str, Any], *flags: str) -> Case:
    """A valid case with the reference's answer."""
    return valid(f"{op}-{name}", comment, given, OPS[op](given), flags=flags)


def bad(op: str, name: str, comment: str, given: dict[str, Any], rule: str, *flags: str) -> Case:
    """An invalid case.

    Raises:
        AssertionError: the reference takes it, or refuses it for another reason.
    """
    try:
        OPS[op](given)
    except Refused as refusal:
        if refusal.rule != rule:
            raise AssertionError(f"{op}-{name}: refused by {refusal.rule}, expected {rule}") from refusal
        return invalid(f"{op}-{name}", comment, given, refusal, flags=flags)
    raise AssertionError(f"{op}-{name}: the reference takes it, expected {rule}")
