"""The passes over long vectors that a round makes: compiled loops where they could be built, else numpy.

Both give the same bits (ADR 0021); `arrays` says what each function does.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protocol.secagg.passes.arrays import (
        add_mask,
        add_packed,
        add_two_masks,
        advance,
        mean,
        pack,
        quantise,
        unpack_signed,
    )

    COMPILED: bool
else:
    try:
        from protocol.secagg.passes._compiled import (
            add_mask,
            add_packed,
            add_two_masks,
            advance,
            mean,
            pack,
            quantise,
            unpack_signed,
        )

        COMPILED = True
    except ImportError:
        from protocol.secagg.passes.arrays import (
            add_mask,
            add_packed,
            add_two_masks,
            advance,
            mean,
            pack,
            quantise,
            unpack_signed,
        )

        COMPILED = False

__all__ = [
    "COMPILED",
    "add_mask",
    "add_packed",
    "add_two_masks",
    "advance",
    "mean",
    "pack",
    "quantise",
    "unpack_signed",
]
