"""Move blobs to and from a signaling server: windowed, resumed after a lost connection, digest-checked."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Self

from protocol.envelope import Envelope
from protocol.identity import short
from protocol.signaling import BLOB_PART_BYTES, BlobNeed, BlobProgress
from python_node.signaling_errors import SignalingDownError, SignalingUntrustedError
from python_node.signaling_link import SignalingSession

__all__ = ["Progress", "download_blob", "publish"]

Progress = Callable[[str, int, int], None]
"""Told the digest, the bytes done and the bytes in all, after every step."""

WINDOW_PARTS = 4
"""Parts of 256 KiB sent before the first is acknowledged."""

SLICE_BYTES = 1 << 20
MAX_STALLS = 5
"""Lost connections in a row without one byte of progress, after which a transfer gives up."""


async def publish(
    session: SignalingSession,
    envelope: Envelope,
    blobs: Mapping[str, bytes | Path],
    *,
    progress: Progress | None = None,
) -> str:
    """Publish a signed plan and upload what is missing of its blobs; gives the plan's digest.

    `blobs` maps each listed digest to its bytes or to a file. Continues where a lost connection left off.

    Raises:
        SignalingRefusedError: the plan or a blob is refused.
        SignalingDownError: the connection broke several times without progress.
        KeyError: `blobs` lacks one that is missing on the other side.
    """
    stalls, best = 0, -1
    while True:
        status = await session.publish_plan(envelope)
        if not status.missing:
            return status.plan
        held = sum(need.offset for need in status.missing) - sum(need.size for need in status.missing)
        stalls = 0 if held > best or best == -1 else stalls + 1
        best = held
        if stalls >= MAX_STALLS:
            raise SignalingDownError(session.url, f"the upload of plan {short(status.plan)} broke {stalls} times")
        try:
            for need in status.missing:
                await _upload(session, need, blobs[need.digest], progress)
        except ConnectionError:
            continue


async def _upload(session: SignalingSession, need: BlobNeed, source: bytes | Path, progress: Progress | None) -> None:
    acknowledged: asyncio.Queue[BlobProgress | Exception] = asyncio.Queue()
    session.on_progress(need.digest, acknowledged.put_nowait)
    sent = done = need.offset
    try:
        with _Source(source) as file:
            while done < need.size:
                while sent < need.size and sent - done < WINDOW_PARTS * BLOB_PART_BYTES:
                    data = await asyncio.to_thread(file.read, sent, min(BLOB_PART_BYTES, need.size - sent))
                    if not data:
                        raise ValueError(f"blob {need.digest[:12]}: the source ends at {sent} of {need.size} bytes")
                    await session.send_part(need.digest, sent, data)
                    sent += len(data)
                answer = await acknowledged.get()
                if isinstance(answer, Exception):
                    raise answer
                done = answer.offset
                if progress is not None:
                    progress(need.digest, done, need.size)
    finally:
        session.on_progress(need.digest, None)


async def download_blob(
    session: SignalingSession, digest: str, size: int, target: Path, *, progress: Progress | None = None
) -> None:
    """Fetch a blob into the file `target`, which appears whole and checked or not at all.

    `size` is what the signed manifest says; `target` with the suffix ".part" keeps what an earlier try received.

    Raises:
        SignalingRefusedError: the signaling server lacks it.
        SignalingUntrustedError: its bytes are not what the digest or the size say.
        SignalingDownError: the connection broke several times without progress.
    """
    part = target.with_name(target.name + ".part")
    await asyncio.to_thread(lambda: target.parent.mkdir(parents=True, exist_ok=True))
    with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        state, at = await asyncio.to_thread(_resume, file, size)
        while at < size:
            data = await _slice(session, digest, at, size)
            await asyncio.to_thread(file.write, data)
            state.update(data)
            at += len(data)
            if progress is not None:
                progress(digest, at, size)
        if state.hexdigest() != digest:
            await asyncio.to_thread(part.unlink)
            raise SignalingUntrustedError(session.url, f"blob {digest[:12]} has SHA-256 {state.hexdigest()[:12]}")
        await asyncio.to_thread(_settle, file, part, target)


async def _slice(session: SignalingSession, digest: str, at: int, size: int) -> bytes:
    for _ in range(MAX_STALLS):
        try:
            head, data = await session.blob_slice(digest, at, min(SLICE_BYTES, size - at))
        except ConnectionError:
            continue
        if head.size != size or not data:
            raise SignalingUntrustedError(session.url, f"blob {digest[:12]} has {head.size} bytes, expected {size}")
        return data
    raise SignalingDownError(session.url, f"the download of blob {digest[:12]} broke {MAX_STALLS} times at byte {at}")


def _resume(file: BinaryIO, size: int) -> tuple[hashlib._Hash, int]:
    state, at = hashlib.sha256(), 0
    while tile := file.read(SLICE_BYTES):
        state.update(tile)
        at += len(tile)
    if at > size:
        file.seek(0)
        file.truncate()
        return hashlib.sha256(), 0
    return state, at


def _settle(file: BinaryIO, part: Path, target: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    part.replace(target)


class _Source:
    """Bytes or a file, read at an offset."""

    def __init__(self, source: bytes | Path) -> None:
        self._bytes = source if isinstance(source, bytes) else None
        self._file = source.open("rb") if isinstance(source, Path) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, offset: int, length: int) -> bytes:
        if self._bytes is not None:
            return self._bytes[offset : offset + length]
        assert self._file is not None
        self._file.seek(offset)
        return self._file.read(length)
