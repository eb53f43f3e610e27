"""Lends the faster transports to the library's connections, where the versions are known ones (ADR 8)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Final

import aiortc.rtcpeerconnection as _connection_module

from python_node.mesh.fast_sctp.dtls import FastDtlsTransport
from python_node.mesh.fast_sctp.receiving import FastSctpTransport

__all__ = ["installed", "is_known_version"]

_KNOWN: Final = {"aiortc": "1.16.", "aioice": "0.13."}


def is_known_version() -> bool:
    """Whether the installed aiortc and aioice are those these transports were written against."""
    return all(version(name).startswith(prefix) for name, prefix in _KNOWN.items())


@contextmanager
def installed(*, enabled: bool) -> Iterator[bool]:
    """Let connections made inside use the faster transports; yields whether they do."""
    if not enabled or not is_known_version():
        yield False
        return
    names = vars(_connection_module)
    before = {name: names[name] for name in ("RTCDtlsTransport", "RTCSctpTransport")}
    names.update(RTCDtlsTransport=FastDtlsTransport, RTCSctpTransport=FastSctpTransport)
    try:
        yield True
    finally:
        names.update(before)
