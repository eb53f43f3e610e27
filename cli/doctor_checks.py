"""The checks of `peerplan doctor`. Each gives findings and raises nothing that is expected to go wrong."""

from __future__ import annotations

import asyncio
import os
import platform
import stat
import sys
import tempfile
import time
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import ProxyHandler, build_opener

from cli.doctor_loopback import measure_loopback
from cli.doctor_report import Finding
from plans.onnx_runtime import onnxruntime
from protocol.errors import LinkError
from protocol.identity import Identity
from protocol.secagg.passes import COMPILED
from python_node.loop import loop_name
from python_node.mesh import fast_sctp
from python_node.signaling_errors import SignalingSessionError
from python_node.signaling_link import SignalingSession

__all__ = [
    "check_clock",
    "check_folder",
    "check_identity",
    "check_loopback",
    "check_runtime",
    "check_signaling",
    "check_versions",
]

_REQUIRED = ("aiortc", "cryptography", "msgspec", "numpy", "onnx", "onnxruntime", "pynacl", "websockets")
_SLOW_LINK_MS, _SLOW_MEGABYTES = 1000.0, 10.0
_CLOCK_WARN_S = 30.0
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_FREE_WARN_BYTES = 1 << 30


def check_versions() -> list[Finding]:
    """Python, the packages a node needs, and torch, which only authors need."""
    have = {name: _version(name) for name in (*_REQUIRED, "peerplan", "torch")}
    missing = [name for name in _REQUIRED if have[name] is None]
    python = f"{platform.python_implementation()} {platform.python_version()}"
    told = ", ".join(f"{name} {have[name]}" for name in _REQUIRED if have[name])
    torch = have["torch"]
    return [
        Finding(
            check="python",
            level="ok" if sys.version_info >= (3, 11) else "fail",
            found=f"{python} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            figures={"python": platform.python_version(), "cores": os.cpu_count()},
        ),
        Finding(
            check="packages",
            level="fail" if missing else "ok",
            found=f"peerplan {have['peerplan'] or '(not installed)'}: {told}",
            remedy=f"pip install {' '.join(missing)}" if missing else "",
            figures=have,
        ),
        Finding(
            check="torch",
            level="ok",
            found=f"{torch}: plans can be traced here" if torch else "absent: nodes do not need it, authors do",
            remedy="" if torch else "to trace plans: pip install 'peerplan[author]'",
        ),
    ]


def check_runtime() -> list[Finding]:
    """The event loop, the faster transports, the passes over vectors, and what ONNX Runtime computes on."""
    loop, fast = loop_name(), fast_sctp.is_known_version()
    providers = onnxruntime.get_available_providers()
    return [
        Finding(
            check="event loop",
            level="ok" if loop == "uvloop" or sys.platform == "win32" else "warn",
            found=loop,
            remedy=""
            if loop == "uvloop" or sys.platform == "win32"
            else "about twice the throughput: pip install uvloop",
        ),
        Finding(
            check="transports",
            level="ok" if fast else "warn",
            found=f"aiortc {_version('aiortc')}: {'faster' if fast else 'standard'} SCTP and DTLS",
            remedy="" if fast else "this version is not one the faster transports know (docs/transport.md)",
        ),
        Finding(
            check="vectors",
            level="ok" if COMPILED else "warn",
            found="passes over updates are compiled" if COMPILED else "passes over updates by numpy",
            remedy="" if COMPILED else "install a C compiler and peerplan again: masking then takes a quarter less",
        ),
        Finding(
            check="onnxruntime",
            level="ok" if "CPUExecutionProvider" in providers else "fail",
            found=f"{', '.join(providers)}; plans run on CPUExecutionProvider",
            figures={"providers": providers},
        ),
    ]


async def check_loopback() -> Finding:
    """Two peers in this process, over real WebRTC."""
    try:
        result = await measure_loopback()
    except LinkError as error:
        return Finding(
            check="webrtc",
            level="fail",
            found=str(error),
            remedy="allow UDP between local addresses: a firewall or sandbox may forbid it",
        )
    slow = result.link_ms > _SLOW_LINK_MS or result.megabytes_per_s < _SLOW_MEGABYTES
    return Finding(
        check="webrtc",
        level="warn" if slow else "ok",
        found=f"two peers here linked in {result.link_ms:.0f} ms, {result.megabytes_per_s:.0f} MB/s",
        remedy="slow: is the machine busy?" if slow else "",
        figures={"link_ms": result.link_ms, "megabytes_per_s": result.megabytes_per_s},
    )


def check_folder(folder: Path) -> Finding:
    """A state folder: private, writable, with room."""
    if not folder.exists():
        above = next(parent for parent in folder.parents if parent.exists())
        usable = os.access(above, os.W_OK | os.X_OK)
        return Finding(
            check="state folder",
            level="ok" if usable else "fail",
            found=f"{folder}: made on first use" if usable else f"{folder}: cannot be made, {above} is not writable",
            remedy="" if usable else "choose another with --state",
        )
    mode = stat.S_IMODE(folder.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        return Finding(
            check="state folder",
            level="fail",
            found=f"{folder}: others may enter it (mode {mode:04o}, expected 0700)",
            remedy=f"chmod 700 {folder}",
        )
    key = folder / "identity.key"
    if os.name == "posix" and key.exists() and (mode := stat.S_IMODE(key.stat().st_mode)) & 0o077:
        return Finding(
            check="state folder",
            level="fail",
            found=f"{key}: others may use this key (mode {mode:04o}, expected 0600)",
            remedy=f"chmod 600 {key}",
        )
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"doctor")
    except OSError as error:
        return Finding(
            check="state folder", level="fail", found=f"{folder}: {error.strerror or error}", remedy="use --state DIR"
        )
    room = os.statvfs(folder) if hasattr(os, "statvfs") else None
    free = room.f_bavail * room.f_frsize if room else None
    little = free is not None and free < _FREE_WARN_BYTES
    return Finding(
        check="state folder",
        level="warn" if little else "ok",
        found=f"{folder}: private, writable" + (f", {free / 1e9:.1f} GB free" if free is not None else ""),
        remedy="little room: models and checkpoints are kept there" if little else "",
        figures={"free_bytes": free},
    )


def check_identity(path: Path) -> Finding:
    """The author's key: absent is fine, readable by others is not."""
    if not path.exists():
        return Finding(
            check="author key", level="ok", found=f"{path}: none yet", remedy="to publish: peerplan identity --create"
        )
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        return Finding(
            check="author key",
            level="fail",
            found=f"{path}: others may use this key (mode {mode:04o}, expected 0600)",
            remedy=f"chmod 600 {path}",
        )
    return Finding(check="author key", level="ok", found=f"{path}: private")


async def check_signaling(url: str, expected_server: str | None) -> Finding:
    """A session with the signaling server under a fresh identity."""
    started = time.perf_counter()
    try:
        async with await SignalingSession.connect(
            url, Identity(os.urandom(32)), expected_server=expected_server
        ) as session:
            took_ms = 1000 * (time.perf_counter() - started)
            server = session.server
    except SignalingSessionError as error:
        return Finding(
            check="signaling",
            level="fail",
            found=str(error),
            remedy="is it running, and is the URL the one it prints?",
        )
    parts = urlsplit(url)
    open_text = parts.scheme == "ws" and parts.hostname not in _LOCAL
    return Finding(
        check="signaling",
        level="warn" if open_text else "ok",
        found=f"{url}: authenticated in {took_ms:.0f} ms, identity {server}",
        remedy="no TLS: use wss:// beyond this machine" if open_text else "",
        figures={"connect_ms": took_ms, "server": server},
    )


async def check_clock(url: str) -> Finding:
    """This clock against the signaling server's, from the date of an HTTP answer (to the second)."""
    parts = urlsplit(url)
    address = urlunsplit(
        ({"ws": "http", "wss": "https"}.get(parts.scheme, "https"), parts.netloc, "/healthz", "", "")
    )
    try:
        date, here = await asyncio.to_thread(_ask_date, address)
    except (URLError, OSError, ValueError) as error:
        return Finding(check="clock", level="warn", found=f"not compared: {error}", remedy="see the line above")
    off_s = here - date
    wrong = abs(off_s) > _CLOCK_WARN_S
    return Finding(
        check="clock",
        level="warn" if wrong else "ok",
        found="agrees with the signaling server's"
        if abs(off_s) < 2  # an HTTP date has whole seconds
        else f"{abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} the signaling server's",
        remedy="set it by NTP: link negotiation refuses documents that are too old" if wrong else "",
        figures={"ahead_s": off_s},
    )


def _ask_date(address: str) -> tuple[float, float]:
    # as the session dials: this machine without a proxy, others by way of the one that is set
    local = urlsplit(address).hostname in _LOCAL
    opener = build_opener(ProxyHandler({})) if local else build_opener()
    with opener.open(address, timeout=5) as answer:
        date = answer.headers["Date"]
    if date is None:
        raise ValueError(f"{address} tells no date")
    return parsedate_to_datetime(date).timestamp(), time.time()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
