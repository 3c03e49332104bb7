"""What is kept of logits, against the whole of them in float64; and bfloat16 without torch."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pytest_ascend_vlm.engines.transformers.kept_logits import at_tokens, most_likely, rmse
from pytest_ascend_vlm.golden.bfloat16 import from_bits, to_bits

VOCABULARY = 152_000

TABLES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40),
    elements=st.floats(-100, 100, width=32),
)


def logsumexp(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Of each row, in float64 all at once."""
    return np.asarray(np.log(np.exp(logits.astype(np.float64)).sum(axis=1)))


# --- what is kept --------------------------------------------------------------------------------


@given(TABLES, st.integers(1, 50))
def test_the_likeliest_tokens_are_those_of_a_full_sort(
    logits: npt.NDArray[np.float32], count: int
) -> None:
    kept = most_likely(logits, count)
    assert kept.logits.tolist() == (-np.sort(-logits, axis=1)[:, :count]).tolist()
    assert kept.logits.tolist() == np.take_along_axis(logits, kept.token_ids, axis=1).tolist()
    assert all(len(set(row)) == len(row) for row in kept.token_ids.tolist())
    assert kept.logsumexp == pytest.approx(logsumexp(logits))


@given(TABLES, st.data())
def test_chosen_tokens_keep_their_order_and_the_whole_vocabularys_sum(
    logits: npt.NDArray[np.float32], data: st.DataObject
) -> None:
    rows, vocabulary = logits.shape
    tokens = hnp.arrays(np.int64, (rows, 3), elements=st.integers(0, vocabulary - 1))
    listed = data.draw(tokens)
    kept = at_tokens(logits, listed)
    assert kept.token_ids.tolist() == listed.tolist()
    assert kept.logits.tolist() == [
        [logits[row, token] for token in tokens] for row, tokens in enumerate(listed)
    ]
    assert kept.logsumexp == pytest.approx(logsumexp(logits))


@given(TABLES, st.floats(-5, 5, width=32))
def test_the_error_is_over_every_number(logits: npt.NDArray[np.float32], error: float) -> None:
    other = logits.copy()
    other[-1, -1] += np.float32(error)
    expected = np.sqrt(np.square(other.astype(np.float64) - logits).mean())
    assert rmse(other, logits) == pytest.approx(expected)
    assert rmse(logits, logits) == 0


def test_logits_beyond_what_an_exponential_takes_are_summed() -> None:
    logits = np.array([[1000.0, 1000.0], [-1000.0, -1000.0]], dtype=np.float32)
    expected = [1000 + math.log(2), -1000 + math.log(2)]
    assert most_likely(logits, 1).logsumexp == pytest.approx(expected)


def test_a_real_vocabulary_takes_less_memory_than_its_two_tables_once_more() -> None:
    rows = 64
    tracemalloc.start()
    try:
        exact = np.random.default_rng(0).standard_normal((rows, VOCABULARY), dtype=np.float32)
        rounded = exact.round(1)
        kept = most_likely(exact, 32)
        again = at_tokens(rounded, kept.token_ids)
        error = rmse(rounded, exact)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * (exact.nbytes + rounded.nbytes) < 2**30
    assert kept.token_ids.shape == kept.logits.shape == again.logits.shape == (rows, 32)
    assert kept.logsumexp.shape == again.logsumexp.shape == (rows,)
    assert error == pytest.approx(0.1 / math.sqrt(12), rel=0.01)


# --- bfloat16 ------------------------------------------------------------------------------------

EVERY = np.arange(2**16, dtype=np.uint16)


def test_every_bfloat16_number_survives() -> None:
    assert np.array_equal(to_bits(from_bits(EVERY)), EVERY)
    known = np.array([0x3F80, 0xC0A0, 0x7F80], dtype=np.uint16)
    assert from_bits(known).tolist() == [1.0, -5.0, math.inf]


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        (1 + 2**-9, 1.0),  # nearer below
        (1 + 3 * 2**-9, 1 + 2**-7),  # nearer above
        (1 + 2**-8, 1.0),  # a tie: 1 is even
        (1 + 3 * 2**-8, 1 + 2**-6),  # a tie: what is above is even
        (-1 - 3 * 2**-8, -1 - 2**-6),
        (3.4e38, math.inf),
    ],
)
def test_other_numbers_are_rounded_to_the_nearest_and_ties_to_even(
    value: float, rounded: float
) -> None:
    assert from_bits(to_bits(np.array([value]))).tolist() == [rounded]


@given(st.integers(1, 2**23 - 1), st.booleans())
def test_what_is_not_a_number_does_not_become_one(payload: int, is_negative: bool) -> None:
    bits = 0x7F800000 | payload | is_negative << 31
    value = np.array([bits], dtype=np.uint32).view(np.float32)
    assert np.isnan(from_bits(to_bits(value))).all()


def test_torch_rounds_alike() -> None:
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(2**32, size=1_000_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[~np.isnan(values)]
    expected = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    assert np.array_equal(from_bits(to_bits(values)), expected)
