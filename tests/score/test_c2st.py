"""The classifier test: a half for one law, the best possible accuracy for two, blind to neither
width, place, correlation nor shape."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm

from sciddm import score
from sciddm.errors import InputError

RUNS = 20


def draws(
    seed: int, n: int = 400, size: int = 6, width: float = 1.0, shift: float = 0.0
) -> xr.DataArray:
    """Smooth fields (member, x): neighbours are correlated."""
    rng = np.random.default_rng(seed)
    gap = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    root = np.linalg.cholesky(np.exp(-gap / 3.0))
    values = shift + width * rng.normal(size=(n, size)) @ root.T
    return xr.DataArray(values, dims=("member", "x"), coords={"x": np.arange(size)}, name="u")


def flagged(result: xr.DataArray) -> bool:
    return bool(result > result.attrs["limit"])


@pytest.mark.parametrize("size", [1, 6])
def test_one_law_is_not_told_apart(size: int) -> None:
    results = [
        score.c2st(draws(2 * k, 200, size), draws(2 * k + 1, 200, size)) for k in range(RUNS)
    ]
    accuracy = np.array([float(r) for r in results])
    assert abs(accuracy.mean() - 0.5) < 3 * accuracy.std() / np.sqrt(RUNS) + 0.005
    assert accuracy.std() < 2 * np.sqrt(1 / (8 * 200))
    assert sum(map(flagged, results)) <= 2


def test_pairs_of_one_condition_are_held_out_together() -> None:
    """A draw whose twin of the other side is in training would be taken for its twin."""
    accuracy = []
    for k in range(10):
        rng = np.random.default_rng(k)
        y = rng.normal(size=(150, 12))
        a, b = (
            xr.DataArray(np.hstack([rng.normal(size=(150, 1)), y]), dims=("case", "x"))
            for _ in range(2)
        )
        accuracy.append(float(score.c2st(a, b, "case", components=13)))
    assert abs(np.mean(accuracy) - 0.5) < 0.03


@pytest.mark.parametrize(
    ("width", "shift"), [(0.7, 0.0), (1.4, 0.0), (1.0, 0.5)], ids=["narrow", "wide", "shifted"]
)
def test_wrong_samplers_are_flagged(width: float, shift: float) -> None:
    """At least 19 of 20 runs, at 400 draws a side."""
    runs = (
        score.c2st(draws(2 * k), draws(2 * k + 1, width=width, shift=shift)) for k in range(RUNS)
    )
    assert sum(map(flagged, runs)) >= 0.95 * RUNS


def half() -> float:
    """Of two centred normals with s.d. 1 and 1/2: the narrow one is likelier below ``edge``."""
    edge = np.sqrt(2 / 3 * np.log(2))
    return float(0.5 + norm.cdf(2 * edge) - norm.cdf(edge))


@pytest.mark.parametrize(
    ("width", "shift", "best"),
    [(1.0, 1.0, norm.cdf(0.5)), (1.0, 3.0, norm.cdf(1.5)), (0.5, 0.0, half())],
    ids=["one sd apart", "three sd apart", "half as wide"],
)
def test_the_accuracy_is_nearly_the_best_possible(width: float, shift: float, best: float) -> None:
    found = score.c2st(draws(0, 1500, 1), draws(1, 1500, 1, width=width, shift=shift))
    assert float(found) == pytest.approx(best, abs=0.025)


def shape(x: np.ndarray) -> np.ndarray:
    """Two humps of zero mean and unit variance."""
    return 0.95 * np.sign(x) + np.sqrt(1 - 0.95**2) * np.roll(x, 1)


def turned(x: np.ndarray) -> np.ndarray:
    """The same marginals, other correlations."""
    return x * np.where(np.arange(x.shape[1]) % 2, -1, 1)


@pytest.mark.parametrize(
    ("change", "size"), [(shape, 1), (turned, 6)], ids=["humps", "correlation"]
)
def test_what_mean_and_width_do_not_see(
    change: Callable[[np.ndarray], np.ndarray], size: int
) -> None:
    a, b = draws(0, 600, size), draws(1, 600, size)
    assert not flagged(score.c2st(a, b))
    assert flagged(score.c2st(a, b.copy(data=change(b.values))))


def test_it_does_not_depend_on_order_units_or_numbers() -> None:
    a, b = draws(0), draws(1, width=0.8)
    first = float(score.c2st(a, b))
    assert float(score.c2st(a, b)) == first
    assert float(score.c2st(a, b, seed=1)) != first
    shuffled = b.isel(x=[3, 0, 5, 1, 4, 2]).transpose("x", "member")
    assert float(score.c2st(a, shuffled)) == pytest.approx(first, abs=1e-12)
    assert float(score.c2st(250 + 1e-3 * a, 250 + 1e-3 * b)) == pytest.approx(first, abs=0.01)
    many = score.c2st(draws(2, 60), draws(3, 900))
    assert float(many) < many.attrs["limit"] and many.attrs["draws"] == [60, 900]


def test_fields_datasets_and_gaps() -> None:
    """More coordinates than draws, land alike in both, and a dim of cases instead of members."""
    rng = np.random.default_rng(0)
    a = xr.DataArray(rng.normal(size=(50, 12, 10)), dims=("case", "y", "x"), name="t")
    b = xr.DataArray(1.5 * rng.normal(size=(50, 12, 10)), dims=("case", "y", "x"), name="t")
    land = xr.DataArray(rng.random((12, 10)) < 0.2, dims=("y", "x"))
    both = score.c2st(
        xr.Dataset({"t": a.where(~land), "s": a}),
        xr.Dataset({"t": b.where(~land), "s": a[::-1]}),
        "case",
    )
    assert set(both.data_vars) == {"t", "s"}
    assert flagged(both["t"]) and not flagged(both["s"])
    assert both["t"].attrs["units"] == "1" and "C2ST" in both["t"].attrs["estimator"]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda a: score.c2st(a, a, "case"), "expected its draws along 'case'"),
        (lambda a: score.c2st(a, a.isel(member=slice(9))), "at least 20"),
        (lambda a: score.c2st(a, a.assign_coords(x=a.x + 1)), "differs first at index 0"),
        (lambda a: score.c2st(a, a.where(a > 0)), "not finite"),
        (lambda a: score.c2st(a, a.isel(x=0)), "select or rename"),
        (lambda a: score.c2st(a, a, folds=1), "folds"),
        (lambda a: score.c2st(a, a, components=0), "0 components"),
        (lambda a: score.c2st(a, a.to_dataset()), "two DataArrays or two Datasets"),
    ],
    ids=["dim", "few", "points", "gaps", "dims", "folds", "components", "kinds"],
)
def test_bad_input(call: Callable[[xr.DataArray], object], match: str) -> None:
    with pytest.raises(InputError, match=match):
        call(draws(0, 40))
