"""Vectors of what a round ends with: apply.json, for every server optimizer."""

from __future__ import annotations

import math
import struct
from typing import Any

from spec.reference.apply import Optimizer
from spec.reference.judge import bad, good
from spec.reference.output import Case, vector_file
from spec.reference.stream import Stream

__all__ = ["apply_files"]

ADAPTIVE = ("fedavgm", "fedadam", "fedyogi")


def _f32(*values: float) -> str:
    return struct.pack(f"<{len(values)}f", *values).hex()


def _optimizer(kind: str, **numbers: float) -> dict[str, Any]:
    return {"kind": kind, "learning_rate": 1.0, "beta1": 0.9, "beta2": 0.99, "tau": 0.001} | numbers


PLAIN: dict[str, Any] = {"optimizer": _optimizer("fedavg"), "moments": ""}


def apply_cases() -> Case:
    stream = Stream("apply")
    base: dict[str, Any] = {"theta": _f32(0.5, -0.25, 0.0, 1e-40), "buffers": _f32(1.0), "survivors": 3}
    base |= PLAIN | {
        "weight_lost": False,
        "clip": 0.0125,
        "value_bits": 16,
        "ring_bits": 20,
        "sums": [1, 2**20 - 1, 7, 0, 65536 - 1, 300, 17, 2**20 - 9],
    }
    huge = base | {"theta": _f32(3.4028234663852886e38), "buffers": "", "sums": [98301, 1], "clip": 1e6}
    half_way = PLAIN | {
        "weight_lost": False,
        "theta": _f32(1.0, 1.0),
        "buffers": "",
        "survivors": 3,
        "clip": 2.0**-24,
        "value_bits": 16,
    }
    half_way |= {"ring_bits": 20, "sums": [100, 300, 100]}
    lost = base | {"weight_lost": True, "sums": [1, 2**20 - 1, 7, 0, 65536 - 1, 0, 0, 0]}
    # 49 * (1 / 49) is below 1 in binary64: only (s * clip) / W is half-way between two binary32 numbers here
    order = PLAIN | {
        "theta": _f32(0.0),
        "buffers": "",
        "survivors": 63,
        "clip": 1.0,
        "value_bits": 26,
        "ring_bits": 32,
        "weight_lost": False,
    }
    order |= {"sums": [49 * (2**24 + 3), 49]}
    cases = [
        good("apply", "order", "s * (clip / W) would give 2^24 + 2, the spec's order gives 2^24 + 4", order),
        good("apply", "small", "signs, a subnormal, a buffer and a tail of three", base),
        good("apply", "weight-lost", "W is |U|·L = 98301; the tail keeps its zero", lost),
        good("apply", "ties", "sums that fall half-way between two binary32 numbers go to the even one", half_way),
        good("apply", "huge", "near the largest binary32, yet inside", huge),
    ]
    for k, v, n in ((16, 12, 16), (20, 16, 16), (24, 16, 64), (32, 24, 64)):
        limit = n * (2 ** (v - 1) - 1)
        sums = [(stream.below(2 * limit + 1) - limit) % 2**k for _ in range(40)]
        sums[36] = 1 + stream.below(limit)
        old = [(stream.below(2**24) - 2**23) / 2**22 for _ in range(36)]
        given = PLAIN | {
            "theta": _f32(*old[:32]),
            "buffers": _f32(*old[32:]),
            "survivors": n,
            "clip": 0.1,
            "weight_lost": False,
        }
        given |= {"value_bits": v, "ring_bits": k, "sums": sums}
        cases.append(good("apply", f"k{k}-v{v}-n{n}", "random sums of the whole range", given))
        for name, s in (("above", limit + 1), ("below", -limit - 1)):
            if abs(s) < 2 ** (k - 1):
                fault = given | {"sums": [s % 2**k, *sums[1:]]}
                cases.append(bad("apply", f"{name}-k{k}", "one coordinate is beyond |U|·L", fault, "sum-range"))
    cases += [
        bad("apply", "weight-zero", "nobody used an example", base | {"sums": [1] * 5 + [0, 0, 0]}, "weight-zero"),
        bad("apply", "weight-negative", "W = -1", base | {"sums": [1] * 5 + [2**20 - 1, 0, 0]}, "weight-zero"),
    ]
    cases += [*_steps(), *_edges(), *_fused()]
    return vector_file(
        "apply",
        "07 §9",
        "Ring sums to the new model; theta, buffers and moments are little-endian binary32",
        cases,
    )


def _steps() -> list[Case]:
    """Ordinary rounds of every server optimizer: the first one, and one with moments."""
    stream = Stream("apply/steps")

    def random(count: int, scale: float) -> list[float]:
        return [scale * (stream.below(2**24) - 2**23) / 2**23 for _ in range(count)]

    limit = 5 * (2**15 - 1)
    base: dict[str, Any] = {"survivors": 5, "weight_lost": False, "clip": 0.25, "value_bits": 16, "ring_bits": 20}
    cases = []
    for kind in ("fedavg", *ADAPTIVE):
        o = _optimizer(kind, learning_rate=0.037, beta1=0.83, beta2=0.957, tau=0.0021)
        sums = [(stream.below(2 * limit + 1) - limit) % 2**20 for _ in range(20)] + [1 + stream.below(limit), 9]
        given = base | {"theta": _f32(*random(16, 1.0)), "buffers": _f32(*random(4, 3.0)), "sums": sums}
        first = given | {"optimizer": o, "moments": Optimizer(**o).initial(16).hex()}
        comment = "the first round; buffers take the mean update as it is"
        cases.append(good("apply", f"{kind}-first", comment, first))
        if kind != "fedavg":
            moments = random(16, 0.1) + [abs(v) for v in random(16, 0.01)]
            later = first | {"moments": _f32(*moments[: 16 * Optimizer(**o).moments])}
            cases.append(good("apply", f"{kind}-later", "a later round, with moments of any size", later))
            lost = later | {"weight_lost": True, "sums": [*sums[:20], 0, 0]}
            cases.append(good("apply", f"{kind}-weight-lost", "W is |U|·L: the moments see the short step", lost))
            none = later | {"optimizer": o | {"beta1": 0, "beta2": 0}}
            cases.append(good("apply", f"{kind}-no-memory", "beta1 and beta2 are zero", none))
    return cases


def _edges() -> list[Case]:
    tiny = [1.4e-45, -1.4e-45, 1e-40, -1e-38]
    base: dict[str, Any] = {"theta": _f32(0.0, 1e-40, 1.0, -1.0), "buffers": "", "survivors": 3}
    base |= {"weight_lost": False, "value_bits": 16, "ring_bits": 20, "clip": 1.0, "sums": [0, 0, 0, 0, 1]}
    huge = base | {"theta": _f32(3.4028234663852886e38, -3.4028234663852886e38), "value_bits": 28, "ring_bits": 32}
    huge |= {"clip": 1e6, "sums": [3 * (2**27 - 1), 2**32 - 3 * (2**27 - 1), 1]}
    cases = []
    for kind in ADAPTIVE:
        count = Optimizer(kind=kind).moments
        dead = base | {
            "optimizer": _optimizer(kind, tau=1e-9),
            "moments": _f32(*(tiny + [abs(v) for v in tiny])[: 4 * count]),
        }
        cases.append(good("apply", f"{kind}-subnormal", "no update: moments decay among the subnormal numbers", dead))
        o = _optimizer(kind, learning_rate=1e3, tau=1e-9)
        wild = huge | {"optimizer": o, "moments": Optimizer(**o).initial(2).hex()}
        cases.append(good("apply", f"{kind}-huge", "the largest step at the largest theta stays finite", wild))
    equal = base | {"theta": _f32(0.0, 0.0, 0.0), "sums": [1, 1, 2**20 - 1, 2], "clip": 1.0}
    equal |= {"optimizer": _optimizer("fedyogi"), "moments": _f32(0.0, 0.0, 0.0, 0.25, 0.125, 0.5)}
    comment = "v equal to, below and above the squared update: it stays, grows, shrinks"
    return [*cases, good("apply", "fedyogi-sign", comment, equal)]


def _fused() -> list[Case]:
    """Cases that a fused multiply-add answers with a small number where two roundings give zero."""
    old = struct.unpack("<f", struct.pack("<f", 0.1))[0]
    base: dict[str, Any] = {"buffers": "", "survivors": 3, "weight_lost": False, "value_bits": 16, "ring_bits": 20}
    base |= {"theta": _f32(0.0), "sums": [2**20 - 1, 1]}
    momentum = base | {"optimizer": _optimizer("fedavgm"), "moments": _f32(old), "clip": 0.9 * old}
    clip = 0.9 * old / (1.0 - 0.9)
    while (1.0 - 0.9) * clip != 0.9 * old:
        clip = math.nextafter(clip, 0.0 if (1.0 - 0.9) * clip > 0.9 * old else 1e9)
    first = base | {"optimizer": _optimizer("fedadam"), "moments": _f32(old, 1e-6), "clip": clip}
    m = struct.unpack("<f", struct.pack("<f", 0.3))[0]
    rate = old / m
    step = base | {"theta": _f32(-old), "sums": [1, 1], "clip": m, "moments": _f32(0.0)}
    step |= {"optimizer": _optimizer("fedavgm", learning_rate=rate)}
    return [
        good("apply", "fedavgm-fused", "beta1 m + d is zero only if beta1 m is rounded first", momentum, "fused"),
        good("apply", "fedadam-fused", "beta1 m + (1 - beta1) d likewise", first, "fused"),
        good("apply", "fedavgm-fused-step", "theta + learning_rate m likewise", step, "fused"),
    ]


def apply_files() -> dict[str, Case]:
    """Files by name."""
    return {"apply.json": apply_cases()}
