"""Axes that begin again: sensors anywhere on the circle, and the same circle on other grids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from sciddm.data.codec import Grid
from sciddm.errors import InputError
from sciddm.observe import points

CIRCLE = Grid(("x",), {"x": 2.0 + np.arange(8) / 4}, {"x": {"period": 2.0}})


def test_a_value_is_where_it_is_after_any_number_of_turns() -> None:
    values = np.array([2.0, 3.9, 4.0, 1.875, 2.1, 8.1, -3.9])
    expected = [0.0, 7.6, 0.0, 7.5, 0.4, 0.4, 0.4]
    np.testing.assert_allclose(CIRCLE.position("x", values), expected, atol=1e-9)


def test_between_the_last_point_and_the_first_lies_the_field() -> None:
    """Linear interpolation of a cosine on the circle has its order everywhere, the seam too."""
    errors = []
    for n in (16, 32, 64):
        grid = Grid(("x",), {"x": np.arange(n) / n}, {"x": {"period": 1.0}})
        at = np.linspace(-1, 2, 301)
        where = torch.from_numpy(grid.position("x", at))[:, None]
        x = torch.cos(2 * torch.pi * torch.arange(n, dtype=torch.float64) / n)[None, None]
        seen = points([0] * len(at), where, (n,), (True,))(x)[0].numpy()
        errors.append(float(np.abs(seen - np.cos(2 * np.pi * at)).max()))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (np.abs(orders - 2) < 0.1).all()


def test_another_number_of_points_fills_the_same_circle() -> None:
    fine = CIRCLE.resized({"x": 16})
    np.testing.assert_allclose(fine.coords["x"], 2.0 + np.arange(16) / 8)
    assert fine.period("x") == 2.0
    box = Grid(("x",), {"x": np.linspace(0, 1, 5)})
    np.testing.assert_allclose(box.resized({"x": 9}).coords["x"], np.linspace(0, 1, 9))
    assert box.period("x") is None


def test_longitudes_around_the_globe_close_by_themselves() -> None:
    attrs = {"longitude": {"standard_name": "longitude", "units": "degrees_east"}}
    globe = Grid(("longitude",), {"longitude": np.arange(0, 360, 2.5).astype("f4")}, attrs)
    np.testing.assert_allclose(
        globe.position("longitude", np.array([358.75, -1.25, 0.0, 361.25])), [143.5, 143.5, 0, 0.5]
    )
    half = Grid(("longitude",), {"longitude": np.arange(0, 180, 2.5)}, attrs)
    assert half.period("longitude") is None
    with pytest.raises(InputError, match="outside the grid"):
        points([0], torch.from_numpy(half.position("longitude", np.array([190.0])))[:, None], (72,))


@pytest.mark.parametrize(
    ("axis", "period"),
    [(np.linspace(0, 1, 9), 1.0), (np.arange(8) / 8, 2.0), (np.arange(8)[::-1] / 8, 1.0),
     (np.array([0, 0.1, 0.5, 0.75]), 1.0), (np.arange(8) / 8, "1")],
)  # fmt: skip
def test_a_period_that_does_not_fit_the_points_is_refused(
    axis: np.ndarray, period: float | str
) -> None:
    with pytest.raises(InputError, match="has the period"):
        Grid(("x",), {"x": axis}, {"x": {"period": period}}).period("x")


def test_a_period_may_be_any_kind_of_number() -> None:
    """What a NetCDF file gives is a scalar of numpy."""
    for said in (np.int64(1), np.float32(1), 1):
        x = xr.DataArray(np.arange(8) / 8, dims="x", attrs={"period": said})
        grid = Grid.of(xr.Dataset(coords={"x": x}), ("x",))
        assert float(grid.position("x", np.array([17 / 16]))[0]) == pytest.approx(0.5)
