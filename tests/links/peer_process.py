"""A mesh in a process of its own: negotiation documents as lines of JSON on stdin and stdout."""

import asyncio
import json
import sys

from protocol.identity import Identity
from python_node import loop
from python_node.mesh import Mesh


async def main() -> None:
    identity = Identity(bytes([int(sys.argv[1])]) * 32)

    async def send_signal(_to, kind, payload):
        sys.stdout.write(json.dumps([kind, payload.hex()]) + "\n")
        sys.stdout.flush()

    mesh = None

    def on_message(peer, kind, payload):
        mesh.send(peer, kind, payload)

    mesh = Mesh(identity, send_signal=send_signal, on_message=on_message)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        kind, payload = json.loads(line)
        mesh.receive_signal(sys.argv[2], kind, bytes.fromhex(payload))
    await mesh.close()


loop.run(main())
