"""Scores of generated series: one law, another law, and a machine that hands back what it saw."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sciddm import score
from sciddm.errors import InputError

LENGTH = 12


def record(steps: int, seed: int, rate: float = 0.9) -> xr.DataArray:
    """Two channels of stationary red noise of unit variance."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(steps, 2))
    for n in range(1, steps):
        x[n] = rate * x[n - 1] + np.sqrt(1 - rate**2) * x[n]
    return xr.DataArray(x, dims=("time", "channel"), name="red")


def drawn(windows: int, seed: int, rate: float = 0.9) -> xr.DataArray:
    """Independent windows of the same law."""
    whole = record(windows * LENGTH * 3, seed, rate).values.reshape(windows, 3 * LENGTH, 2)
    return xr.DataArray(whole[:, :LENGTH], dims=("window", "step", "channel"))


@pytest.fixture(scope="module")
def real() -> tuple[xr.DataArray, xr.DataArray]:
    return score.chronological(record(9000, 0), LENGTH, stride=LENGTH // 2)


def test_the_parts_share_no_step_and_lie_a_gap_apart() -> None:
    time = xr.DataArray(np.arange(200.0), dims="time")
    train, held = score.chronological(time, 10, held=0.25, gap=7)
    assert float(train.max()) == 142 and float(held.min()) == 150  # 7 steps are in neither
    assert train.dims == ("window", "step") and train.sizes["window"] == 134
    np.testing.assert_array_equal(train.isel(step=0), train["start"])
    # by default a whole window is left out
    wide, _ = score.chronological(time, 10, held=0.25)
    assert float(wide.max()) == 139
    holes = time.where(time != 60)
    kept, _ = score.chronological(holes, 10, held=0.25)
    assert kept.attrs["left_out"] == 10 and not bool(kept.isnull().any())
    with pytest.raises(InputError, match="no window of 61 on each side"):
        score.chronological(time, 61)
    with pytest.raises(InputError, match="expected time along 'tiem'"):
        score.chronological(time, 10, dim="tiem")


def test_one_law_cannot_be_told(real: tuple[xr.DataArray, xr.DataArray]) -> None:
    train, held = real
    found = score.discriminative(drawn(800, 1), train, held)
    assert float(found) == pytest.approx(0.5, abs=0.06)
    assert found.attrs["real_later"] == pytest.approx(0.5, abs=0.06)
    audit = score.nearest_training(drawn(800, 2), train, held)
    assert not bool(audit["copies"]) and float(audit["ratio"]) == pytest.approx(1, abs=0.05)
    assert float(audit["median_train"] / audit["median_held"]) == pytest.approx(1, abs=0.05)


def test_other_laws_are_told(real: tuple[xr.DataArray, xr.DataArray]) -> None:
    train, held = real
    assert float(score.discriminative(drawn(400, 1) + 3, train, held)) > 0.95
    # the same values in no order: each cell has the right law
    assert float(score.discriminative(drawn(400, 1, rate=0.0), train, held)) > 0.95
    close = score.discriminative(drawn(400, 1, rate=0.8), train, held)
    assert 0.6 < float(close) < 0.95


def test_a_copy_machine_is_flagged(real: tuple[xr.DataArray, xr.DataArray]) -> None:
    train, held = real
    rng = np.random.default_rng(3)
    copied = train.isel(window=rng.integers(0, train.sizes["window"], 500))
    audit = score.nearest_training(copied, train, held)
    assert bool(audit["copies"]) and float(audit["nearer"]) == 1
    assert float(audit["median_generated"]) < 1e-9
    # nothing else notices
    assert float(score.discriminative(copied, train, held)) == pytest.approx(0.5, abs=0.06)
    blurred = copied + 0.1 * rng.normal(size=copied.shape)
    assert bool(score.nearest_training(blurred, train, held)["copies"])
    # one window in four is copied
    mixed = xr.concat([drawn(300, 5), copied.drop_vars("start")[:100]], "window")
    assert bool(score.nearest_training(mixed, train, held)["copies"])


def test_times_that_have_changed_make_no_honest_generator_a_copier() -> None:
    later = xr.concat([record(4000, 0), record(2000, 1) * 3], "time")
    train, held = score.chronological(later, LENGTH, held=1 / 3, stride=LENGTH)
    audit = score.nearest_training(drawn(400, 2), train, held)
    assert float(audit["ratio"]) < 0.7 and not bool(audit["copies"])


def test_what_is_learned_of_one_law_serves_another_window() -> None:
    """Of N(0, 1) and rate 1/2: the best forecast misses by sqrt(3/4) as a share of the size of the
    truth, the last value by 1."""
    train, held = score.chronological(record(9000, 6, rate=0.5), LENGTH, stride=LENGTH // 2)
    found = score.predictive(drawn(1200, 1, rate=0.5), train, held, horizon=1)
    honest, same, naive = (float(found.sel(fitted_to=n)) for n in found["fitted_to"].values)
    assert same == pytest.approx(0.866, rel=0.06)
    assert honest / same == pytest.approx(1, abs=0.05)
    assert naive / same == pytest.approx(1.155, abs=0.04)
    wrong = score.predictive(drawn(1200, 1, rate=-0.5), train, held, horizon=1)
    assert float(wrong.sel(fitted_to="generated")) > 1.2
    with pytest.raises(InputError, match="horizon is 12 of windows of 12 steps"):
        score.predictive(train, train, held, horizon=12)


def test_windows_that_cannot_be_compared(real: tuple[xr.DataArray, xr.DataArray]) -> None:
    train, held = real
    with pytest.raises(InputError, match="generated has sizes .* at least 40 along 'window'"):
        score.discriminative(train.isel(window=slice(30)), train, held)
    with pytest.raises(InputError, match="generated is not finite at index"):
        score.nearest_training(train.where(train < 1), train, held)
    with pytest.raises(InputError, match="'step'"):
        score.nearest_training(train.isel(step=slice(6)), train, held)
