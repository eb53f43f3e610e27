"""Which examples a hold-out takes (spec 05 §6), with SeedSequence and PCG64 in plain integers."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from spec.reference.refused import Refused

__all__ = ["held_examples"]

INIT_A, MULT_A = 0x43B0D7E5, 0x931E8875
INIT_B, MULT_B = 0x8B51F9DD, 0x58F38DED
MIX_LEFT, MIX_RIGHT = 0xCA01F9DD, 0x4973F715
PCG_MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645
U32, U64, U128 = (2**bits - 1 for bits in (32, 64, 128))


def held_examples(examples: int, fraction: float) -> list[int]:
    """Indexes of the examples that are held out, ascending."""
    if not 0 <= fraction < 1:
        raise Refused("hold-out-fraction", "05 §6", f"{fraction} is not in 0 <= fraction < 1")
    if fraction == 0:
        return []
    held = max(1, round(Fraction(examples * fraction)))  # the product is rounded to binary64, then to the even whole
    if held >= examples:
        raise Refused("hold-out-all", "05 §6", f"{held} of {examples} examples leave none to train on")
    draws = pcg64(seed_words(examples))
    order = sorted((next(draws), i) for i in range(examples))
    return sorted(i for _, i in order[examples - held :])


def seed_words(entropy: int) -> list[int]:
    """Four 64-bit words from one 32-bit number."""
    constant = INIT_A

    def mixed(value: int) -> int:
        nonlocal constant
        value ^= constant
        constant = constant * MULT_A & U32
        return folded(value * constant)

    pool = [mixed(entropy), mixed(0), mixed(0), mixed(0)]
    for source in range(4):
        for target in range(4):
            if source != target:
                pool[target] = folded(MIX_LEFT * pool[target] - MIX_RIGHT * mixed(pool[source]))
    words = []
    constant = INIT_B
    for i in range(8):
        value = pool[i % 4] ^ constant
        constant = constant * MULT_B & U32
        words.append(folded(value * constant))
    return [words[i] | words[i + 1] << 32 for i in range(0, 8, 2)]


def folded(value: int) -> int:
    value &= U32
    return value ^ value >> 16


def pcg64(words: list[int]) -> Iterator[int]:
    """PCG XSL-RR 128/64: 64-bit numbers without end."""
    increment = ((words[2] << 64 | words[3]) << 1 | 1) & U128
    state = increment + (words[0] << 64 | words[1])
    state = (state * PCG_MULTIPLIER + increment) & U128
    while True:
        state = (state * PCG_MULTIPLIER + increment) & U128
        value, turn = (state >> 64 ^ state) & U64, state >> 122
        yield (value >> turn | value << (64 - turn)) & U64
