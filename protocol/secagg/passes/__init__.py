"""The passes over long vectors that a round makes: compiled loops where they could be built, else numpy.

Both give the same bits (ADR 0021); `arrays` says what each function does. A compiled module of another revision, as a
checkout keeps one when it goes on, is not used.
"""

from typing import TYPE_CHECKING

from protocol.secagg.passes.arrays import REVISION

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
        from protocol.secagg.passes._compiled import REVISION as BUILT
    except ImportError:
        BUILT = None
    COMPILED = BUILT == REVISION
    if COMPILED:
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
    else:
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
