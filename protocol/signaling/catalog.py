"""Signed plans and their blobs (spec 03 §4): published once, fetched by anyone who is connected."""

from __future__ import annotations

from typing import Annotated

import msgspec

from protocol.encoding import Hex64, Name
from protocol.envelope import Envelope
from protocol.signaling.base import MAX_PAGE, Event, Record, Reply, Request

__all__ = [
    "BlobNeed",
    "BlobProgress",
    "BlobSlice",
    "GetBlob",
    "GetPlan",
    "ListPlans",
    "PlanEntry",
    "PlanReply",
    "PlanStatus",
    "Plans",
    "PublishPlan",
]

Offset = Annotated[int, msgspec.Meta(ge=0, le=1 << 32)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)]


class PublishPlan(Request, frozen=True, kw_only=True):
    """Put a signed plan into the catalog; answered by `plan_status` with the blobs that are still missing."""

    envelope: Envelope


class BlobNeed(Record, frozen=True, kw_only=True):
    """A blob the signaling server has only `offset` bytes of."""

    digest: Hex64
    size: Offset
    offset: Offset


class PlanStatus(Reply, frozen=True, kw_only=True):
    """The plan's digest, and what is missing before runs of it can be opened."""

    plan: Hex64
    missing: Annotated[tuple[BlobNeed, ...], msgspec.Meta(max_length=256)]


class BlobProgress(Event, frozen=True, kw_only=True):
    """Acknowledges uploaded parts: `offset` of `size` bytes are safely held; equal means stored and checked."""

    digest: Hex64
    offset: Offset
    size: Offset


class GetPlan(Request, frozen=True, kw_only=True):
    """Ask for a signed plan by the digest of its manifest."""

    plan: Hex64


class PlanReply(Reply, frozen=True, kw_only=True):
    """The envelope as its author signed it."""

    plan: Hex64
    envelope: Envelope


class GetBlob(Request, frozen=True, kw_only=True):
    """Ask for `length` bytes of a blob from `offset` on; the peer paces the download by asking."""

    digest: Hex64
    offset: Offset
    length: Annotated[int, msgspec.Meta(ge=1, le=4 << 20)]


class BlobSlice(Reply, frozen=True, kw_only=True):
    """`length` bytes (fewer at the end of the blob) follow at once in binary frames, in order."""

    digest: Hex64
    offset: Offset
    length: Offset
    size: Offset


class ListPlans(Request, frozen=True, kw_only=True):
    """One page of the catalog, oldest first; `after` is `next` of the page before."""

    after: int = 0
    limit: Limit = 50


class PlanEntry(Record, frozen=True, kw_only=True):
    """One line of the catalog; `published_at` is seconds since 1970 by the signaling server's clock."""

    plan: Hex64
    name: Name
    version: Name
    author: Hex64
    published_at: float
    complete: bool


class Plans(Reply, frozen=True, kw_only=True):
    """A page; `next` is absent on the last."""

    plans: tuple[PlanEntry, ...]
    next: int | None = None
