"""The plan manifest (spec 05): what a plan reads, holds and runs. The author signs its exact bytes."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from protocol.encoding import Hex64, Name, decode_json, encode_json
from protocol.errors import ManifestError, SchemaMismatchError

__all__ = [
    "MAX_MANIFEST_BYTES",
    "Blob",
    "DataField",
    "DatasetSchema",
    "Function",
    "Metric",
    "ParameterTensor",
    "PlanManifest",
    "Port",
    "Training",
    "decode_manifest",
    "encode_manifest",
    "explain_misfit",
]

MAX_MANIFEST_BYTES = 2 << 20
MAX_VECTOR = 1 << 28
MAX_LOCAL = 1 << 26

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_VECTOR)]
Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 32)]
Dimension = Annotated[int, msgspec.Meta(ge=-1, le=MAX_VECTOR)]
Shape = Annotated[tuple[Dimension, ...], msgspec.Meta(max_length=8)]
DType = Literal["float32", "float64", "int32", "int64", "uint8", "bool"]
Kinds = Literal["train", "evaluate", "predict", "query"]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of manifest records: frozen and strict."""


class Blob(_Record, frozen=True, kw_only=True):
    """Bytes named by their SHA-256; `role` says what for."""

    digest: Hex64
    size: Size
    role: Name


class DataField(_Record, frozen=True, kw_only=True):
    """One field of a dataset: `shape` is that of one example, without the leading axis; -1 is any length.

    `below`, on whole numbers, promises 0 <= value < below (class labels, token ids).
    """

    name: Name
    dtype: DType
    shape: Shape
    below: Annotated[int, msgspec.Meta(ge=1, le=MAX_VECTOR)] | None = None


class DatasetSchema(_Record, frozen=True, kw_only=True):
    """What a node advertises of one dataset; `examples` only where the owner allows it."""

    name: Name
    fields: Annotated[tuple[DataField, ...], msgspec.Meta(max_length=64)]
    examples: Count | None = None


class ParameterTensor(_Record, frozen=True, kw_only=True):
    """Where one named tensor lies in a flat vector."""

    name: str
    shape: Shape
    offset: Count


class Port(_Record, frozen=True, kw_only=True):
    """One input or output of a graph; -1 in a shape is a dimension only known at run time."""

    name: Name
    dtype: DType
    shape: Shape


class Function(_Record, frozen=True, kw_only=True):
    """An ONNX graph: the blob that holds it and its exact ports."""

    graph: Hex64
    inputs: Annotated[tuple[Port, ...], msgspec.Meta(max_length=64)]
    outputs: Annotated[tuple[Port, ...], msgspec.Meta(max_length=64)]


class Metric(_Record, frozen=True, kw_only=True):
    """A sum over examples; divided by the number of examples it is `name`.

    `bound` is the largest value one example can add; larger ones are clipped when the metric is masked.
    """

    name: Name
    bound: Annotated[float, msgspec.Meta(gt=0, le=1e6)]


class Training(_Record, frozen=True, kw_only=True):
    """The author's defaults for local training; the terms of a run may replace them."""

    optimizer: Name
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=1e3)]
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]


class PlanManifest(_Record, frozen=True, kw_only=True):
    """Everything a node must know to decide on a plan and run it.

    Vectors are flat: `parameters` of `theta` float32 [parameter_count], `optimizer_state` float32 [optimizer_count],
    `buffers` float32 [buffer_count]. `initial` names blobs of little-endian float32 by role ("theta",
    "optimizer_state", "buffers"); a role that is absent starts at zero. The role "frozen" names what every graph
    reads and no run changes: it is part of the plan, never of a model, an update or a sum.

    The last `local_count` parameters of theta are local: each peer trains its own and keeps them. They are part of no
    model, update or sum. The role "theta" names the shared ones before them, "local" what the local ones start from.
    """

    format: Literal["peerplan-plan/1"] = "peerplan-plan/1"
    name: Name
    version: Name
    description: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    opset: Annotated[int, msgspec.Meta(ge=17, le=22)]
    inputs: Annotated[tuple[DataField, ...], msgspec.Meta(max_length=64)]
    targets: Annotated[tuple[DataField, ...], msgspec.Meta(max_length=64)]
    parameters: Annotated[tuple[ParameterTensor, ...], msgspec.Meta(max_length=65536)]
    parameter_count: Count
    optimizer_count: Count
    buffer_count: Count
    local_count: Annotated[int, msgspec.Meta(ge=0, le=MAX_LOCAL)] = 0
    metrics: Annotated[tuple[Metric, ...], msgspec.Meta(max_length=32)]
    training: Training | None
    functions: dict[Kinds, Function]
    initial: dict[Literal["theta", "local", "optimizer_state", "buffers", "frozen"], Hex64]
    blobs: Annotated[tuple[Blob, ...], msgspec.Meta(max_length=256)]

    @property
    def data_fields(self) -> tuple[DataField, ...]:
        """Everything the plan reads of a dataset: inputs, then targets."""
        return self.inputs + self.targets

    @property
    def shared_count(self) -> int:
        """Parameters of theta that travel: all but the local ones at its end."""
        return self.parameter_count - self.local_count

    @property
    def frozen_count(self) -> int:
        """Length of the frozen vector, float32; 0 where the plan has none."""
        digest = self.initial.get("frozen")
        return 0 if digest is None else self.blob(digest).size // 4

    def blob(self, digest: str) -> Blob:
        """The listed blob of that digest.

        Raises:
            ManifestError: the manifest lists no such blob.
        """
        for blob in self.blobs:
            if blob.digest == digest:
                return blob
        raise ManifestError(f"plan {self.name}: no blob {digest[:12]} is listed")


def encode_manifest(manifest: PlanManifest) -> bytes:
    """The JSON bytes an author signs."""
    return encode_json(manifest)


def decode_manifest(data: bytes) -> PlanManifest:
    """Parse a manifest and check that it agrees with itself.

    Raises:
        EncodingError, LimitExceededError: the bytes are no manifest.
        ManifestError: a listed blob is missing, vectors overlap or names repeat.
    """
    manifest = decode_json(data, PlanManifest, what="plan manifest", max_bytes=MAX_MANIFEST_BYTES)
    _check_blobs(manifest)
    _check_parameters(manifest)
    names = [field.name for field in manifest.data_fields]
    if len(set(names)) != len(names):
        raise ManifestError(f"plan {manifest.name}: data fields repeat a name: {', '.join(sorted(names))}")
    if "train" in manifest.functions and manifest.training is None:
        raise ManifestError(f"plan {manifest.name}: has a train function but no training defaults")
    return manifest


def _check_blobs(manifest: PlanManifest) -> None:
    digests = [blob.digest for blob in manifest.blobs]
    if len(set(digests)) != len(digests):
        raise ManifestError(f"plan {manifest.name}: a blob is listed twice")
    for function in manifest.functions.values():
        manifest.blob(function.graph)
    sizes = {
        "theta": manifest.shared_count,
        "local": manifest.local_count,
        "optimizer_state": manifest.optimizer_count,
        "buffers": manifest.buffer_count,
    }
    for role, digest in manifest.initial.items():
        got = manifest.blob(digest).size
        if role == "frozen":
            # its length stands nowhere else: the blob is the vector
            if not got or got % 4 or got > 4 * MAX_VECTOR:
                raise ManifestError(f"plan {manifest.name}: frozen has {got} bytes, expected 4 per number")
            continue
        expected = 4 * sizes[role]
        if expected != got:
            raise ManifestError(f"plan {manifest.name}: initial {role} has {got} bytes, expected {expected}")


def _check_parameters(manifest: PlanManifest) -> None:
    at = 0
    for tensor in manifest.parameters:
        size = 1
        for dimension in tensor.shape:
            if dimension < 0:
                raise ManifestError(f"plan {manifest.name}: parameter {tensor.name} has an open dimension")
            size *= dimension
        if tensor.offset != at:
            raise ManifestError(f"plan {manifest.name}: parameter {tensor.name} at {tensor.offset}, expected {at}")
        at += size
    if at != manifest.parameter_count:
        raise ManifestError(f"plan {manifest.name}: parameters end at {at}, expected {manifest.parameter_count}")
    starts = {tensor.offset for tensor in manifest.parameters if tensor.offset}
    if manifest.local_count and manifest.shared_count not in starts:
        raise ManifestError(
            f"plan {manifest.name}: {manifest.local_count} of {manifest.parameter_count} parameters are local, "
            "expected whole tensors at the end, and one before them"
        )


def explain_misfit(manifest: PlanManifest, dataset: DatasetSchema) -> str | None:
    """None where the dataset fits the plan; otherwise one sentence naming both sides."""
    have = {field.name: field for field in dataset.fields}
    for want in manifest.data_fields:
        got = have.get(want.name)
        if got is None:
            return (
                f"plan {manifest.name} reads field {want.name!r}; "
                f"dataset {dataset.name} has {', '.join(sorted(have)) or 'no fields'}"
            )
        fits = len(got.shape) == len(want.shape) and all(
            w in (-1, g) for w, g in zip(want.shape, got.shape, strict=True)
        )
        if got.dtype != want.dtype or not fits:
            return (
                f"plan {manifest.name} reads {want.name!r} as {want.dtype}{list(want.shape)}; "
                f"dataset {dataset.name} has {got.dtype}{list(got.shape)}"
            )
    return None


def require_fit(manifest: PlanManifest, dataset: DatasetSchema) -> None:
    """Raise where `explain_misfit` finds a reason.

    Raises:
        SchemaMismatchError: the dataset does not fit.
    """
    reason = explain_misfit(manifest, dataset)
    if reason is not None:
        raise SchemaMismatchError(reason)
