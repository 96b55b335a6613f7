"""The forced Burgers data set: its scheme against exact solutions, its law, and its bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sciddm import recipe
from sciddm.errors import InputError

RECIPE = recipe.load(Path(__file__).parents[2] / "datasets" / "burgers_forced.py", "datasets")
NU = RECIPE.VISCOSITY


def test_a_weak_sine_decays_as_heat_does() -> None:
    x = np.arange(1, 60) / 60
    u = RECIPE._advance(1e-7 * np.sin(np.pi * x)[None], lambda t: 0 * x[None], 0.0, 1.5, x[0])
    # the symbol of the second difference, and exact time
    rate = NU * (2 * 60 * np.sin(np.pi / 120)) ** 2
    np.testing.assert_allclose(u[0], 1e-7 * np.exp(-1.5 * rate) * np.sin(np.pi * x), rtol=1e-6)


def test_a_manufactured_film_is_met_to_second_order() -> None:
    """u = (1 + t) sin(pi x) under the force that makes it a solution."""
    errors = []
    for n in (40, 80):
        x = np.arange(1, n) / n
        s, c = np.sin(np.pi * x), np.cos(np.pi * x)

        def force(t: float, s: np.ndarray = s, c: np.ndarray = c) -> np.ndarray:
            return (s + (1 + t) ** 2 * np.pi * s * c + NU * np.pi**2 * (1 + t) * s)[None]

        u = RECIPE._advance(s[None], force, 0.0, 0.5, x[0])
        errors.append(float(np.abs(u[0] - 1.5 * s).max()))
    assert errors[0] < 0.02 and np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)


def test_the_law_is_the_one_that_the_card_states() -> None:
    x = np.linspace(0, 1, 201)
    u, force = RECIPE._draw(range(400), x, 0)
    assert 1.7 < u.max() < 2.0 and -2.0 < u.min() < -1.7
    right, left = x[u[u.max(1) > 1].argmax(1)], x[u[u.min(1) < -1].argmin(1)]
    assert 0.15 < right.min() < 0.22 and 0.37 < right.max() < 0.42
    assert 0.58 < left.min() < 0.63 and 0.78 < left.max() < 0.85
    # amplitudes of variance 0.75, one bump and seven halves of one: three standard errors
    energy = np.mean([force(t) ** 2 for t in np.linspace(0, 8, 17)])
    c, w = np.meshgrid(np.linspace(0, 1, 41), np.linspace(0.1, 0.4, 31))
    share = np.mean([np.exp(-(((v - c) / w) ** 2)).mean() for v in np.linspace(0, 1, 41)])
    assert energy == pytest.approx(4.5 * 0.75 * share**2, rel=0.15)


def test_a_sample_is_the_same_whatever_else_is_made() -> None:
    ds, some = RECIPE.fields(3, 24), RECIPE.fields(1, 24, start=2)
    for name in ("velocity", "force"):
        np.testing.assert_array_equal(some[name], ds[name].isel(sample=[2]))
    assert ds["time"].values[-1] == 8.0 and ds.sizes == {"sample": 3, "time": 16, "x": 24}


@pytest.mark.parametrize("numbers", [{"grid": 10}, {"grid": 3}, {"seed": -1}])
def test_numbers_without_a_meaning_are_refused(numbers: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a multiple of 3"):
        RECIPE.make(tmp_path / "store.zarr", **numbers)
    assert not (tmp_path / "store.zarr").exists()
