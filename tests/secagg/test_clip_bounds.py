"""The clips that terms may name are those with which both ends of the arithmetic hold."""

from __future__ import annotations

import numpy as np
import pytest

from protocol.errors import EncodingError
from protocol.secagg.apply import Aggregate, apply_aggregate
from protocol.secagg.quantise import Quantised
from protocol.terms import decode_terms
from tests.secagg.ring import read_whole

TERMS = (
    b'{"name":"x","plan":"%b","nonce":"%b","rounds":1,"cohort_size":3,"min_cohort":3,"min_survivors":3,"clip":%%b,'
    b'"local":{"batch_size":1,"learning_rate":1}}' % (b"0" * 64, b"0" * 64)
)


@pytest.mark.parametrize("clip", [b"0", b"-1", b"1e-31", b"1e-300", b"5e-324", b"1000001", b"1e999"])
def test_clip_out_of_bounds_is_refused(clip: bytes) -> None:
    with pytest.raises(EncodingError, match="run terms"):
        decode_terms(TERMS % clip)


@pytest.mark.parametrize("clip", [b"1e-30", b"1e6"])
@pytest.mark.parametrize("value_bits", [8, 28])
def test_clips_at_the_bounds_quantise_and_apply(clip: bytes, value_bits: int) -> None:
    bound, largest = decode_terms(TERMS % clip).clip, (1 << (value_bits - 1)) - 1
    update = np.array([bound, -bound, 0.0], np.float32)
    elements = Quantised(update, (), weight_fraction=1.0, clip=bound, largest_value=largest, rounding_key=bytes(32))
    words = read_whole(elements, 8).view(np.int32)
    assert abs(words[:2] - [largest, -largest]).max() <= 1 + largest * 2**-23  # the update's own rounding
    assert words[2:4].tolist() == [0, largest]
    aggregate = Aggregate(sums=words[:4], survivors=frozenset({0}))
    new = apply_aggregate(np.zeros(3, np.float32), aggregate, clip=bound, largest_value=largest)
    np.testing.assert_allclose(new, update, rtol=2 / largest)
