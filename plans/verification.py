"""Decide whether a signed plan may run: its author, its blobs and its graphs, in that order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from plans.bundle import Plan, SignedPlan, load, open_signed
from plans.errors import UnsafePlanError
from plans.validate import validate
from protocol.errors import SignatureError
from protocol.identity import short

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["verify"]


def verify(plan: Plan | str | Path, *, authors: Collection[str] | None = None) -> SignedPlan:
    """Check a plan's signature, blobs and graphs, and give it back; `authors` are the peer ids that may sign.

    Raises:
        BundleError, ProtocolError: the plan is damaged or its signature does not verify.
        SignatureError: nobody signed, or somebody who is not among `authors`.
        UnsafePlanError: a graph that no node runs.
    """
    found = load(plan) if isinstance(plan, str | Path) else plan
    if not isinstance(found, SignedPlan):
        raise SignatureError(f"plan {found.manifest.name}: nobody signed it")
    signed = open_signed(found.envelope, found.blobs)
    if signed.manifest_bytes != found.manifest_bytes:
        raise UnsafePlanError(f"plan {found.manifest.name}: the signed manifest is not the one shown")
    if authors is not None and signed.author not in authors:
        raise SignatureError(f"plan {signed.manifest.name}: signed by {short(signed.author)}, who is not accepted")
    validate(signed)
    return signed
