"""A plan in memory and on disk: a manifest (signed or not) and blobs by digest, as a directory or one `.plan` file.

A `.plan` file is a ZIP archive without compression, with the entries of the directory:

    envelope.json        the signed manifest (DSSE), or manifest.json where nobody signed yet
    blobs/<SHA-256>      one entry per blob the manifest lists

Nothing else may be in it (spec 05 §3).
"""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from plans.errors import BundleError
from plans.limits import MAX_BLOBS, MAX_BUNDLE_BYTES
from protocol.encoding import Digest, digest_of
from protocol.envelope import PLAN_TYPE, open_envelope, seal_envelope
from protocol.manifest import MAX_MANIFEST_BYTES, PlanManifest, decode_manifest, encode_manifest

if TYPE_CHECKING:
    from protocol.identity import Identity, PeerId

__all__ = ["Plan", "SignedPlan", "load", "open_signed"]

_MANIFEST, _ENVELOPE = "manifest.json", "envelope.json"
_MAX_HEAD_BYTES = 2 * MAX_MANIFEST_BYTES
_BLOB = re.compile(r"blobs/([0-9a-f]{64})")
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, repr=False)
class Plan:
    """A manifest, its exact bytes, and every blob it lists. Made by `trace`, `load`, or `Plan.of`."""

    manifest: PlanManifest
    manifest_bytes: bytes
    blobs: Mapping[str, bytes]

    @classmethod
    def of(cls, manifest: PlanManifest, blobs: Mapping[str, bytes]) -> Plan:
        """A plan from a manifest and its blobs.

        Raises:
            BundleError: a blob is missing, is not listed, or is not what its digest says.
        """
        return cls.from_bytes(encode_manifest(manifest), blobs)

    @classmethod
    def from_bytes(cls, manifest_bytes: bytes, blobs: Mapping[str, bytes]) -> Plan:
        """A plan from a manifest's exact bytes and its blobs.

        Raises:
            ProtocolError: the bytes are no manifest.
            BundleError: a blob is missing, is not listed, or is not what its digest says.
        """
        manifest = decode_manifest(manifest_bytes)
        _check_blobs(manifest, blobs)
        return cls(manifest, manifest_bytes, MappingProxyType(dict(blobs)))

    @property
    def digest(self) -> Digest:
        """SHA-256 of the manifest's bytes: the plan's name in runs."""
        return digest_of(self.manifest_bytes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.manifest.name} {self.manifest.version}, {self.digest[:12]})"

    def graph(self, kind: str) -> bytes:
        """The ONNX bytes of a function.

        Raises:
            BundleError: the plan has no such function.
        """
        function = self.manifest.functions.get(kind)  # type: ignore[call-overload]
        if function is None:
            have = ", ".join(self.manifest.functions)
            raise BundleError(f"plan {self.manifest.name} has no function {kind!r}, only {have}")
        return self.blobs[function.graph]

    def initial(self, role: str, *, copy: bool = True) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The initial float32 vector of a role; zeros where none is given.

        Roles are "theta" with "local" at its end, "optimizer_state", "buffers", and "frozen", which stays as it is.
        Without `copy` it may be the plan's own bytes, which nobody can write to.

        Raises:
            BundleError: the vector is not in memory any more, see `without_start`.
        """
        counts = {
            "theta": self.manifest.shared_count,
            "local": self.manifest.local_count,
            "optimizer_state": self.manifest.optimizer_count,
            "buffers": self.manifest.buffer_count,
            "frozen": self.manifest.frozen_count,
        }
        digest = self.manifest.initial.get(role)  # type: ignore[call-overload]
        if digest is None:
            found = np.zeros(counts[role], np.float32)
        elif digest not in self.blobs:
            raise BundleError(f"plan {self.manifest.name}: its initial {role} was let go of in this program")
        else:
            found = np.frombuffer(self.blobs[digest], "<f4").astype(np.float32, copy=copy)
        whole = role == "theta" and self.manifest.local_count
        return np.concatenate([found, self.initial("local", copy=False)]) if whole else found

    def without_start(self) -> Self:
        """The same plan without the initial parameters and buffers, for a program that has made its first model."""
        initial = self.manifest.initial
        start = {initial.get("theta"), initial.get("buffers")} - {initial.get("frozen")}
        return replace(self, blobs=MappingProxyType({d: data for d, data in self.blobs.items() if d not in start}))

    def sign(self, identity: Identity) -> SignedPlan:
        """The same plan with the author's signature over the manifest's exact bytes."""
        envelope = seal_envelope(identity, PLAN_TYPE, self.manifest_bytes)
        return SignedPlan(self.manifest, self.manifest_bytes, self.blobs, envelope, identity.peer_id)

    def publish(self, url: str, **options: Any) -> str:
        """Publish to the signaling server at `url` and open a run; gives the run id.

        `options` are those of `python_node.author.publish`: `rounds`, `cohort_size`, `identity` and more. It is found
        through the entry point group "peerplan.publisher", since nothing here may import the node.

        Raises:
            BundleError: the package that publishes is not installed.
        """
        for found in entry_points(group="peerplan.publisher"):
            run: str = found.load()(self, url, **options)
            return run
        raise BundleError(f"plan {self.manifest.name}: nothing here can publish; install the distribution `peerplan`")

    def save(self, path: str | Path) -> Path:
        """Write the bundle: one file where the name ends in `.plan`, a directory otherwise. Gives the path.

        Raises:
            BundleError: a directory of that name exists and is not empty.
        """
        target = Path(path)
        name, head = self._head()
        entries = {name: head} | {f"blobs/{digest}": data for digest, data in sorted(self.blobs.items())}
        if target.suffix == ".plan":
            _write_file(target, entries)
        else:
            _write_directory(target, entries)
        return target

    def _head(self) -> tuple[str, bytes]:
        return _MANIFEST, self.manifest_bytes


@dataclass(frozen=True, repr=False)
class SignedPlan(Plan):
    """A plan with its author's signature: `envelope` holds the exact bytes to publish."""

    envelope: bytes
    author: PeerId

    def _head(self) -> tuple[str, bytes]:
        return _ENVELOPE, self.envelope


def open_signed(envelope: bytes, blobs: Mapping[str, bytes]) -> SignedPlan:
    """A signed plan from an envelope and its blobs, as they come from a signaling server or from disk.

    Raises:
        ProtocolError: the envelope does not verify, or holds no manifest.
        BundleError: a blob is missing, is not listed, or is not what its digest says.
    """
    opened = open_envelope(envelope, PLAN_TYPE, what="plan envelope", max_bytes=_MAX_HEAD_BYTES)
    plan = Plan.from_bytes(opened.payload, blobs)
    return SignedPlan(plan.manifest, plan.manifest_bytes, plan.blobs, envelope, opened.signer)


def load(path: str | Path) -> Plan | SignedPlan:
    """Read a bundle from a directory or a `.plan` file; a signed one is verified.

    Raises:
        BundleError: no bundle, unexpected or oversized entries, or blobs that are not what the manifest names.
        ProtocolError: a signature that does not verify, or a manifest that contradicts itself.
    """
    source = Path(path)
    if source.is_dir():
        entries = _read_directory(source)
    elif source.is_file():
        entries = _read_file(source)
    else:
        raise BundleError(f"{source}: no bundle there; expected a directory or a .plan file")
    heads = [name for name in (_ENVELOPE, _MANIFEST) if name in entries]
    if len(heads) != 1:
        raise BundleError(f"{source}: expected {_ENVELOPE} or {_MANIFEST}, got {' and '.join(heads) or 'neither'}")
    head = entries.pop(heads[0])
    blobs = {name.removeprefix("blobs/"): data for name, data in entries.items()}
    return open_signed(head, blobs) if heads[0] == _ENVELOPE else Plan.from_bytes(head, blobs)


def _check_blobs(manifest: PlanManifest, blobs: Mapping[str, bytes]) -> None:
    listed = {blob.digest: blob for blob in manifest.blobs}
    for digest in blobs:
        if digest not in listed:
            raise BundleError(f"plan {manifest.name}: blob {digest[:12]} is not in the manifest")
    for digest, blob in listed.items():
        data = blobs.get(digest)
        if data is None:
            raise BundleError(f"plan {manifest.name}: blob {digest[:12]} ({blob.role}) is missing")
        if len(data) != blob.size:
            raise BundleError(f"plan {manifest.name}: blob {digest[:12]} has {len(data)} bytes, expected {blob.size}")
        if digest_of(data) != digest:
            raise BundleError(f"plan {manifest.name}: blob {digest[:12]} ({blob.role}) has other bytes than it names")


def _write_directory(target: Path, entries: Mapping[str, bytes]) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BundleError(f"{target}: exists already; expected a new or empty directory")
    (target / "blobs").mkdir(parents=True, exist_ok=True)
    for name, data in entries.items():
        (target / name).write_bytes(data)


def _write_file(target: Path, entries: Mapping[str, bytes]) -> None:
    """The archive appears whole or not at all, and the same plan gives the same bytes."""
    partial = target.with_name(target.name + ".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), data)
    partial.replace(target)


def _read_directory(source: Path) -> dict[str, bytes]:
    files = {}
    for path in source.rglob("*"):
        if path.is_symlink():
            raise BundleError(f"{source}: {path.name} is a link; a bundle holds plain files")
        if path.is_file():
            files[path.relative_to(source).as_posix()] = path
    _check_entries(source, ((name, path.stat().st_size) for name, path in files.items()))
    return {name: path.read_bytes() for name, path in files.items()}


def _read_file(source: Path) -> dict[str, bytes]:
    if source.stat().st_size > MAX_BUNDLE_BYTES:
        raise BundleError(f"{source}: {source.stat().st_size} bytes, at most {MAX_BUNDLE_BYTES} are read")
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
            for member in members:
                _check_member(source, member)
            _check_entries(source, ((member.filename, member.file_size) for member in members))
            return {member.filename: archive.read(member) for member in members}
    # zipfile raises all of these on damaged archives
    except (
        zipfile.BadZipFile,
        OSError,
        EOFError,
        ValueError,
        NotImplementedError,
        RuntimeError,
        struct.error,
    ) as error:
        raise BundleError(f"{source}: not a readable .plan file: {error}") from None


def _check_member(source: Path, member: zipfile.ZipInfo) -> None:
    name = member.filename[:80]
    if member.orig_filename != member.filename:
        raise BundleError(f"{source}: entry {name!r} has a name that hides another")
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        raise BundleError(f"{source}: entry {name!r} is compressed; a .plan file is stored as it is")
    if member.flag_bits & 0x1:
        raise BundleError(f"{source}: entry {name!r} is encrypted")


def _check_entries(source: Path, entries: Iterable[tuple[str, int]]) -> None:
    """Names and sizes, before a byte of any entry is read."""
    seen: set[str] = set()
    total = 0
    for name, size in entries:
        if name in seen:
            raise BundleError(f"{source}: entry {name!r} is there twice")
        seen.add(name)
        if name in (_MANIFEST, _ENVELOPE):
            if size > _MAX_HEAD_BYTES:
                raise BundleError(f"{source}: {name} has {size} bytes, at most {_MAX_HEAD_BYTES} are read")
        elif not _BLOB.fullmatch(name):
            raise BundleError(f"{source}: unexpected entry {name[:80]!r}; a bundle holds a manifest and blobs alone")
        total += size
        if len(seen) > MAX_BLOBS + 2 or total > MAX_BUNDLE_BYTES:
            raise BundleError(f"{source}: more than {MAX_BLOBS} blobs or {MAX_BUNDLE_BYTES} bytes")
