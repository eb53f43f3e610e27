"""The passes over vectors, of both kinds, against plain integers and exact fractions; and against each other."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.secagg import passes
from protocol.secagg.passes import arrays

RINGS = [16, 20, 24, 32]
LENGTHS = st.sampled_from([0, 8, 16, 24, 1016, 1024, 1032, 2048, 4104])
WORDS = st.integers(0, 2**32 - 1)
BUILT_FROM = (1, "c20dd9b0795527a1487ccab256fc4b555951404335674bda04fd7a96ddf17621")
"""The revision, and the SHA-256 of the C sources that are it."""
SPECIAL = [0.0, -0.0, 1e-45, -1e-45, 1.1754944e-38, 3.4028235e38, -3.4028235e38, 0.1, -0.1]


def words(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**32, count, np.uint32)


@given(st.sampled_from(RINGS), st.lists(WORDS, max_size=40), LENGTHS, WORDS)
def test_packed_elements_are_their_low_bits_one_after_another(
    ring_bits: int, first: list[int], length: int, seed: int
) -> None:
    values = np.concatenate([np.array(first + [0] * (-len(first) % 8), np.uint32), words(seed, length)])
    out = bytearray(b"\xff" * (len(values) * ring_bits // 8 + 16))
    passes.pack(values, memoryview(out)[: len(out) - 16], ring_bits)
    low = [value & ((1 << ring_bits) - 1) for value in values.tolist()]
    whole = sum(value << (ring_bits * i) for i, value in enumerate(low))
    assert bytes(out[:-16]) == whole.to_bytes(len(out) - 16, "little")
    assert out[-16:] == b"\xff" * 16, "wrote behind the end"

    packed = bytes(out[:-16])
    before = words(seed + 1, len(values))
    total = before.copy()
    passes.add_packed(total, packed, ring_bits)
    assert total.tolist() == [(a + b) % 2**32 for a, b in zip(before.tolist(), low, strict=True)]

    signed = np.empty(len(values), np.int32)
    bounds = passes.unpack_signed(signed, packed, ring_bits)
    half = 1 << (ring_bits - 1)
    expected = [value - 2 * half if value >= half else value for value in low]
    assert signed.tolist() == expected
    assert bounds == ((min(expected), max(expected)) if expected else (0, 0))


@given(LENGTHS, WORDS, st.booleans(), st.booleans())
def test_masks_are_added_and_taken_away_modulo_two_to_the_32(
    length: int,
    seed: int,
    add_one: bool,  # noqa: FBT001  # drawn by name
    add_two: bool,  # noqa: FBT001
) -> None:
    part, one, two = words(seed, length), words(seed + 1, length), words(seed + 2, length)
    plain = part.tolist()
    single, double = part.copy(), part.copy()
    passes.add_mask(single, one, add_one)
    passes.add_two_masks(double, one, two, add_one, add_two)
    signs = 1 if add_one else -1, 1 if add_two else -1
    assert single.tolist() == [(p + signs[0] * a) % 2**32 for p, a in zip(plain, one.tolist(), strict=True)]
    expected = [
        (p + signs[0] * a + signs[1] * b) % 2**32 for p, a, b in zip(plain, one.tolist(), two.tolist(), strict=True)
    ]
    assert double.tolist() == expected


def binary64(value: Fraction) -> Fraction:
    """The nearest binary64 value, ties to even."""
    return Fraction(value.numerator / value.denominator)


def exact_quantise(x: float, word: int, fraction: float, clip: float, scale: float, largest: int) -> int:
    """Spec 07 §10 in fractions, rounded after each operation as binary64 rounds."""
    scaled = binary64(Fraction(x) * Fraction(fraction))
    clipped = min(max(scaled, Fraction(-clip)), Fraction(clip))
    value = binary64(binary64(clipped * Fraction(scale)) + Fraction(word >> 8, 2**24))
    return max(value.numerator // value.denominator, -largest)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(width=32, allow_nan=False, allow_infinity=False), WORDS), min_size=1, max_size=50),
    st.floats(0.001, 1.0),
    st.sampled_from([1e-6, 0.0125, 0.1, 1.0, 2.5, 1e6]),
    st.sampled_from([1, 7, 127, 2047, 32767, 2**23 - 1, 2**27 - 1]),
)
def test_quantising_is_exact(items: list[tuple[float, int]], fraction: float, clip: float, largest: int) -> None:
    near = [float(np.float32(k * clip / largest)) for k in (-largest, -2, -1, 1, 2, largest)]
    items = items + [(value, word) for value in near + SPECIAL for word in (0, 0xFFFFFFFF)]
    update = np.array([x for x, _ in items], np.float32)
    out = np.array([word for _, word in items], np.uint32)
    scale = largest / clip
    assert passes.quantise(out, update, fraction, clip, scale, float(largest))
    expected = [
        exact_quantise(float(x), word, fraction, clip, scale, largest)
        for x, (_, word) in zip(update, items, strict=True)
    ]
    assert out.view(np.int32).tolist() == expected


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 15, 16, 1000, 4095])
def test_quantising_tells_of_what_is_not_finite(bad: float, at: int) -> None:
    update = np.full(4096, 3.4028235e38, np.float32)  # whose squares overflow, and which is finite
    assert passes.quantise(words(1, 4096), update, 1.0, 0.1, 1270.0, 127.0)
    update[at] = bad
    assert not passes.quantise(words(1, 4096), update, 1.0, 0.1, 1270.0, 127.0)


@given(
    st.lists(st.tuples(st.integers(-(2**31), 2**31 - 1), st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=60),
    st.sampled_from([0.0125, 0.1, 1.0, 3.7]),
    st.integers(1, 2**31),
)
def test_mean_and_advance_round_as_written(items: list[tuple[int, float]], clip: float, weight: int) -> None:
    sums = np.array([total for total, _ in items], np.int32)
    model = np.array([value for _, value in items], np.float32)
    change, out = np.empty(len(items), np.float64), np.empty(len(items), np.float32)
    passes.mean(change, sums, clip, float(weight))
    expected = [binary64(binary64(Fraction(total) * Fraction(clip)) / weight) for total, _ in items]
    assert change.tolist() == [float(value) for value in expected]
    passes.advance(out, model, change)
    further = [float(Fraction(float(x)) + value) for x, value in zip(model, expected, strict=True)]
    assert out.tobytes() == np.array(further).astype(np.float32).tobytes()


def calls(module: ModuleType) -> dict[str, object]:
    """Each function with buffers that do not fit each other."""
    w, f, d, i = (np.zeros(16, kind) for kind in (np.uint32, np.float32, np.float64, np.int32))
    return {
        "pack": lambda: module.pack(w, bytearray(39), 20),
        "pack, no ring": lambda: module.pack(w, bytearray(36), 18),
        "pack, no eights": lambda: module.pack(w[:12], bytearray(30), 20),
        "pack, ring of none": lambda: module.pack(w, bytearray(0), 0),
        "add_packed": lambda: module.add_packed(w, bytes(41), 20),
        "add_packed, other ring": lambda: module.add_packed(w, bytes(40), 24),
        "unpack_signed": lambda: module.unpack_signed(i, bytes(32), 20),
        "add_mask": lambda: module.add_mask(w, w[:8].copy(), True),
        "add_two_masks": lambda: module.add_two_masks(w, w.copy(), w[:8].copy(), True, False),
        "quantise": lambda: module.quantise(w, f[:8], 1.0, 1.0, 127.0, 127.0),
        "quantise, too large": lambda: module.quantise(w, f, 1.0, 1.0, 2.0**31, 2.0**31),
        "quantise, no number": lambda: module.quantise(w, f, 1.0, float("nan"), 127.0, 127.0),
        "mean": lambda: module.mean(d, i[:8], 1.0, 1.0),
        "advance": lambda: module.advance(f, f.copy(), d[:8]),
    }


@pytest.mark.parametrize("name", list(calls(arrays)))
def test_buffers_that_do_not_fit_are_refused(chosen_passes: ModuleType, name: str) -> None:
    with pytest.raises(ValueError, match=r"expected|do not fill"):
        calls(chosen_passes)[name]()


def test_compiled_passes_refuse_buffers_they_cannot_read_or_write(chosen_passes: ModuleType) -> None:
    if chosen_passes is arrays:
        return
    odd = np.frombuffer(bytearray(65), np.uint8)[1:]
    good = np.zeros(16, np.uint32)
    with pytest.raises(ValueError, match="aligned"):
        chosen_passes.add_mask(odd, good, True)
    with pytest.raises((BufferError, ValueError)):
        chosen_passes.add_mask(np.zeros(32, np.uint32)[::2], good, True)
    with pytest.raises((BufferError, ValueError, TypeError)):
        chosen_passes.pack(good, bytes(40), 20)
    for wrong in (None, 5, "text"):
        with pytest.raises(TypeError):
            chosen_passes.add_mask(good, wrong, True)
    read_only = good.copy()
    read_only.flags.writeable = False
    with pytest.raises((BufferError, ValueError)):
        chosen_passes.add_mask(read_only, good, True)


def test_compiled_passes_give_no_memory_away(chosen_passes: ModuleType) -> None:
    good, out = np.zeros(16, np.uint32), bytearray(40)
    for _ in range(1000):
        with pytest.raises(ValueError, match="do not fill"):
            chosen_passes.pack(good, memoryview(out)[:39], 20)
        chosen_passes.pack(good, out, 20)
    out += b"one more"  # refused while anybody holds the buffer
    assert sys.getrefcount(good) <= 3


def test_passes_are_compiled_where_peerplan_is_tested() -> None:
    assert passes.COMPILED or not os.environ.get("CI"), "CI has a C compiler: the extension must have been built"


def test_without_the_compiled_module_numpy_is_used() -> None:
    code = (
        "import sys; sys.modules['protocol.secagg.passes._compiled'] = None\n"
        "from protocol.secagg import passes; from protocol.secagg.passes import arrays\n"
        "assert not passes.COMPILED and passes.pack is arrays.pack"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("revision", [None, arrays.REVISION - 1, arrays.REVISION + 1])
def test_a_module_of_another_revision_is_not_used(revision: int | None) -> None:
    """A checkout that went on keeps what was built before: functions of the same names, other arguments or bits."""
    attributes = {"REVISION": revision} if revision is not None else {}
    code = (
        "import sys, types; from protocol.secagg.passes import __all__ as names\n"
        "for name in [name for name in sys.modules if name.startswith('protocol.secagg')]: del sys.modules[name]\n"
        "name = 'protocol.secagg.passes._compiled'; module = sys.modules[name] = types.ModuleType(name)\n"
        f"vars(module).update(dict.fromkeys(names, print) | {attributes})\n"
        "from protocol.secagg import passes; from protocol.secagg.passes import arrays\n"
        "assert not passes.COMPILED and passes.pack is arrays.pack"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_revision_is_raised_with_the_sources() -> None:
    sources = b"".join(Path(arrays.__file__).with_name(name).read_bytes() for name in ("loops.h", "_compiled.c"))
    message = (
        "raise REVISION in arrays.py and _compiled.c where arguments or results change, and write both down here"
    )
    assert (arrays.REVISION, hashlib.sha256(sources).hexdigest()) == BUILT_FROM, message


@pytest.mark.parametrize("flags", ["-funsafe-math-optimizations", "-Ofast"])
def test_flags_of_whoever_installs_change_no_bit(chosen_passes: ModuleType, tmp_path: Path, flags: str) -> None:
    """CFLAGS come first in both commands of the build, and what pyproject.toml says last."""
    if chosen_passes is arrays:
        return
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())
    (extension,) = project["tool"]["setuptools"]["ext-modules"]
    built = build(
        tmp_path,
        compiling=["-O2", flags, *extension["extra-compile-args"]],
        linking=[flags, *extension["extra-link-args"]],
    )
    expect_right(built, os.environ)


def test_sources_refuse_flags_by_which_operations_are_not_rounded_by_themselves(
    chosen_passes: ModuleType, tmp_path: Path
) -> None:
    if chosen_passes is arrays:
        return
    build(tmp_path, compiling=["-O2"])
    for flag in ("-ffast-math", "-funsafe-math-optimizations"):
        with pytest.raises(subprocess.CalledProcessError):
            build(tmp_path, compiling=["-O2", flag])


def build(folder: Path, *, compiling: list[str], linking: list[str] | None = None) -> Path:
    """The extension, built by gcc as setuptools does it."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.fail("gcc built the extension of CI") if os.environ.get("CI") else pytest.skip("no gcc")
    source, compiled, built = (
        Path(arrays.__file__).with_name("_compiled.c"),
        folder / "passes.o",
        folder / "passes.so",
    )
    include = f"-I{sysconfig.get_path('include')}"
    subprocess.run([compiler, *compiling, "-fPIC", include, "-c", str(source), "-o", str(compiled)], check=True)
    subprocess.run([compiler, "-shared", *(linking or []), str(compiled), "-o", str(built)], check=True)
    return built


def expect_right(built: Path, environment: Mapping[str, str]) -> None:
    """The tests here pass with another build of the extension."""
    command = [sys.executable, "-m", "tests.secagg.sanitised", str(built)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_compiled_passes_are_clean_by_the_sanitisers(chosen_passes: ModuleType, tmp_path: Path) -> None:
    """The same tests again, with every access and every undefined operation watched."""
    if chosen_passes is arrays:
        return
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    built = build(tmp_path, compiling=["-O1", "-g", "-ffp-contract=off", *checks], linking=checks)
    command = ["gcc", "-print-file-name=libasan.so"]
    runtime = subprocess.run(command, check=True, capture_output=True, text=True)
    environment = {
        "LD_PRELOAD": runtime.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",  # so that every object has guarded ends
    }
    expect_right(built, os.environ | environment)
