"""The page at /join: a browser tab that takes part, served from a fixed list of built files.

`make js` builds the page into a folder of files and `files.json`, which lists them. Only what is listed is served,
and a request names a listed path exactly or gets 404: no path ever becomes a file name. Files are compressed when
built and held in memory, each at most 512 KiB on the wire, because a plain HTTP answer has to be out within seconds
(docs/adr/0013). The one answer that is made when it is asked for says which STUN and TURN servers there are.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Literal

import msgspec

from signaling.errors import ConfigError
from signaling.ice_servers import IceServers

__all__ = ["BUILT", "Answer", "JoinPage"]

BUILT = Path(__file__).parent / "join"
"""Where `make js` puts the page."""

_MAX_FILE_BYTES = 512 << 10
_PAGE = "/join"
_ICE = f"{_PAGE}/ice-servers.json"
_SECURITY = (
    (
        "Content-Security-Policy",
        (
            "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data: blob:; "
            "connect-src 'self'; worker-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        ),
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)
_NOT_BUILT = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>peerplan: the page is not built</title>
<h1>This page is not built yet</h1>
<p>This signaling server works; only its page for browsers is missing. Whoever runs it builds the page with
<code>make js</code> in a checkout of peerplan (Node.js 20 is needed) and starts the server again.</p>
<p>Until then take part with <code>peerplan node</code>.</p>
"""


class _Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    file: str
    type: str
    encoding: Literal["gzip", "identity"]
    sha256: str


class _Listing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    files: list[_Listed]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A plain HTTP answer; a HEAD request gets it without `body`, `length` stays that of the whole."""

    status: HTTPStatus
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    length: int = 0


@dataclass(frozen=True, kw_only=True)
class _File:
    data: bytes
    type: str
    is_compressed: bool
    digest: str


class JoinPage:
    """The built page, or the advice to build it."""

    def __init__(self, files: dict[str, _File], ice: IceServers) -> None:
        self._files = files
        self._ice = ice

    @classmethod
    def load(cls, folder: Path, ice: IceServers) -> JoinPage:
        """Read the files that `files.json` lists; a folder without it is a page that was not built.

        Raises:
            ConfigError: a listed file is missing, too large, or another one than was built.
        """
        listing = folder / "files.json"
        if not listing.is_file():
            return cls({}, ice)
        try:
            listed = msgspec.json.decode(listing.read_bytes(), type=_Listing).files
            return cls({entry.path: _read(folder, entry) for entry in listed}, ice)
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(f"the page in {folder}: {error}; build it again with `make js`") from None

    @property
    def is_built(self) -> bool:
        """Whether there is a page to be served."""
        return _PAGE in self._files

    def owns(self, path: str) -> bool:
        """Whether a request for `path` is the page's to answer."""
        return path == _PAGE or path.startswith(f"{_PAGE}/")

    def answer(
        self, method: str, path: str, *, now_s: float, accept_encoding: str = "", if_none_match: str = ""
    ) -> Answer:
        """What a request gets at `now_s` (Unix time). `path` carries no query."""
        if method not in ("GET", "HEAD"):
            return _text(HTTPStatus.METHOD_NOT_ALLOWED, f"{method[:16]} is not served here, GET and HEAD are\n")
        if not self.is_built:
            return _whole(HTTPStatus.SERVICE_UNAVAILABLE, _NOT_BUILT, "text/html; charset=utf-8", method)
        if path == f"{_PAGE}/":
            return Answer(status=HTTPStatus.PERMANENT_REDIRECT, headers=(("Location", f"..{_PAGE}"), *_SECURITY))
        if path == _ICE:
            headers = [("Cache-Control", "no-store"), *_SECURITY]  # credentials are in it: no cache keeps them
            return _whole(HTTPStatus.OK, self._ice.told(now_s), "application/json", method, headers)
        file = self._files.get(path)
        if file is None:
            return _text(HTTPStatus.NOT_FOUND, f"there is no {path[:80]!r} here\n")
        plain = file.is_compressed and not _takes_gzip(accept_encoding)
        tag = f'"{file.digest}-plain"' if plain else f'"{file.digest}"'
        headers = [("ETag", tag), ("Cache-Control", "no-cache"), ("Vary", "Accept-Encoding"), *_SECURITY]
        if tag in (part.strip().removeprefix("W/") for part in if_none_match.split(",")):
            return Answer(status=HTTPStatus.NOT_MODIFIED, headers=tuple(headers))
        if file.is_compressed and not plain:
            headers.append(("Content-Encoding", "gzip"))
        data = gzip.decompress(file.data) if plain else file.data
        return _whole(HTTPStatus.OK, data, file.type, method, headers)


def _read(folder: Path, entry: _Listed) -> _File:
    path = folder / entry.file
    data = path.read_bytes()
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(
            f"the page in {folder}: {entry.file} has {len(data)} bytes, expected {_MAX_FILE_BYTES} at most"
        )
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.sha256:
        raise ConfigError(
            f"the page in {folder}: {entry.file} has digest {digest[:12]}, files.json says {entry.sha256[:12]}; "
            f"build it again with `make js`"
        )
    return _File(data=data, type=entry.type, is_compressed=entry.encoding == "gzip", digest=digest)


def _takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding header allows gzip (RFC 9110 §12.5.3)."""
    for part in accepted.split(","):
        coding, _, weight = part.partition(";")
        if coding.strip().lower() in ("gzip", "*"):
            return weight.replace(" ", "").lower() not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _whole(
    status: HTTPStatus, data: bytes, kind: str, method: str, headers: list[tuple[str, str]] | None = None
) -> Answer:
    given = list(_SECURITY) if headers is None else headers
    told = (("Content-Type", kind), *given)
    return Answer(status=status, headers=told, body=b"" if method == "HEAD" else data, length=len(data))


def _text(status: HTTPStatus, text: str) -> Answer:
    headers = [("Allow", "GET, HEAD"), *_SECURITY] if status is HTTPStatus.METHOD_NOT_ALLOWED else None
    return _whole(status, text.encode(), "text/plain; charset=utf-8", "GET", headers)
