"""Uploads that alternate make a signaling server hash what it holds again and again: that is paid for."""

import asyncio
from types import SimpleNamespace

from protocol.signaling import BLOB_PART_BYTES
from signaling import Limits
from signaling.connection import Connection


class Engine:
    """As much of an engine as an upload needs; every blob is half there."""

    def __init__(self):
        self.config = SimpleNamespace(limits=Limits(messages_per_s=100.0, message_burst=10))
        self.blobs = SimpleNamespace(
            upload=lambda digest, _peer, _size: SimpleNamespace(
                digest=digest, offset=20 * BLOB_PART_BYTES, close=lambda: None
            )
        )

    async def in_store(self, _call):
        return 40 * BLOB_PART_BYTES

    async def in_thread(self, call):
        return call()


async def test_taking_up_a_large_partial_upload_costs_as_much_as_sending_it():
    connection = Connection(Engine(), None, "ab" * 32)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await connection._begin_upload("cd" * 32)
    await connection._begin_upload("ef" * 32)
    assert loop.time() - began > 0.25  # forty parts, ten at once and then a hundred a second
    assert list(connection._uploads) == ["ef" * 32]
