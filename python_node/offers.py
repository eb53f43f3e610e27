"""Offers: the signed documents of a run and its plan, checked before anything of them is believed (spec 03 §5)."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import plans
from plans import SignedPlan
from protocol.encoding import encode_json
from protocol.envelope import PLAN_TYPE, RUN_TYPE, open_envelope
from protocol.errors import ProtocolError
from protocol.identity import short
from protocol.manifest import PlanManifest, decode_manifest
from protocol.signaling import Offer
from protocol.terms import decode_terms
from python_node.membership import Terms
from python_node.signaling_blobs import download_blob
from python_node.signaling_link import SignalingSession
from python_node.state import NodeState

__all__ = ["fetch_plan", "open_offer"]


def open_offer(offer: Offer) -> tuple[Terms, PlanManifest, bytes]:
    """Terms, manifest and the plan's envelope as signed, after checking that they belong together.

    Raises:
        ProtocolError: a signature, a digest or the author does not fit.
    """
    envelope, plan_envelope = encode_json(offer.envelope), encode_json(offer.plan_envelope)
    run = open_envelope(envelope, RUN_TYPE, what="run terms")
    plan = open_envelope(plan_envelope, PLAN_TYPE, what="plan")
    terms = decode_terms(run.payload)
    if run.digest != offer.run or terms.plan != plan.digest or run.signer != plan.signer:
        raise ProtocolError(
            f"offer {short(offer.run)}: signaling sent terms {short(run.digest)} by {short(run.signer)} "
            f"with plan {short(plan.digest)} by {short(plan.signer)}; they do not belong together"
        )
    named = Terms(run=run.digest, author=run.signer, terms=terms, envelope=envelope)
    return named, decode_manifest(plan.payload), plan_envelope


async def fetch_plan(
    session: SignalingSession, state: NodeState, manifest: PlanManifest, envelope: bytes
) -> SignedPlan:
    """A plan's blobs, from disk or the catalog, validated.

    Raises:
        ProtocolError, PlanError, OSError: they cannot be had, or are no plan that a node runs.
    """
    blobs: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory(prefix="peerplan-") as folder:
        for blob in manifest.blobs:
            held = await asyncio.to_thread(state.blob, blob.digest)
            if held is None:
                target = Path(folder) / blob.digest
                await download_blob(session, blob.digest, blob.size, target)
                held = await asyncio.to_thread(target.read_bytes)
                await asyncio.to_thread(state.save_blob, blob.digest, held)
            blobs[blob.digest] = held
    return await asyncio.to_thread(lambda: plans.verify(plans.open_signed(envelope, blobs)))
