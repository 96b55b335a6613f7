"""Normal scores of ranks: a rising map that makes any variable normal, and its inverse."""

from __future__ import annotations

import numpy as np
import pytest

from sciddm.classes import CLASSES
from sciddm.data.measure import NormalScore
from sciddm.errors import InputError
from sciddm.tree import Encoder, decode

DRAWS = np.random.default_rng(0).lognormal(sigma=1.5, size=4000)


def test_values_become_normal_and_come_back() -> None:
    warp = NormalScore.fit(DRAWS)
    scores = warp.forward(DRAWS)
    assert abs(scores.mean()) < 0.02 and abs(scores.std() - 1) < 0.02
    level = np.linspace(0.02, 0.98, 25)
    np.testing.assert_allclose(
        np.quantile(scores, level), [-s for s in np.quantile(scores, 1 - level)], atol=0.15
    )
    np.testing.assert_allclose(warp.back(scores), DRAWS, rtol=1e-9)
    assert len(warp.values) <= 35


def test_it_rises_everywhere_and_its_slope_is_its_derivative() -> None:
    warp = NormalScore.fit(DRAWS)
    x = np.sort(np.random.default_rng(1).uniform(-5, DRAWS.max() + 5, 300))
    assert (np.diff(warp.forward(x)) > 0).all()
    step = 1e-7
    numeric = (warp.forward(x + step) - warp.forward(x - step)) / (2 * step)
    np.testing.assert_allclose(warp.slope(x), numeric, rtol=1e-4)
    assert np.isnan(warp.forward(np.array([np.nan]))).all()
    assert warp.back(np.array([-40.0, 40.0])).tolist() == [DRAWS.min(), DRAWS.max()]


def test_equal_values_share_the_middle_of_their_ranks() -> None:
    warp = NormalScore.fit(np.array([1.0, 1.0, 2.0, 3.0, 3.0, np.nan]))
    np.testing.assert_allclose(warp.forward(np.array([1.0, 2.0, 3.0])), [-0.84162, 0, 0.84162],
                               atol=1e-5)  # fmt: skip
    with pytest.raises(InputError, match="constant"):
        NormalScore.fit(np.array([2.0, 2.0]))


def test_saved_as_data() -> None:
    warp, coder = NormalScore.fit(DRAWS), Encoder()
    again = decode(coder.encode(warp), coder.tensors, CLASSES)
    assert np.array_equal(again.forward(DRAWS), warp.forward(DRAWS))
