"""Codecs: there and back, statistics against numpy, masks, solvers, grids and labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from sciddm.data.codec import Derived, Grid, Normaliser
from sciddm.data.geometry import EARTH, distances, great_circle
from sciddm.errors import InputError
from sciddm.pde import Darcy, Poisson

RISING = np.linspace(50.0, 61.0, 5)
EAST = np.linspace(-10.0, 2.0, 7)


def weather(
    latitude: np.ndarray = RISING, *, mean: float = 281.0, std: float = 4.0, n: int = 6
) -> xr.Dataset:
    """Two variables of very different size on a small part of the Earth, in a model calendar."""
    rng = np.random.default_rng(0)
    shape = (n, len(latitude), len(EAST))
    time = xr.date_range("2001-02-27", periods=n, freq="6h", calendar="noleap", use_cftime=True)
    t2m = mean + std * rng.standard_normal(shape)
    sp = 101_325 + 800 * rng.standard_normal(shape)
    dims = ("time", "latitude", "longitude")
    return xr.Dataset(
        {
            "t2m": (dims, t2m.astype("f4"), {"units": "K", "long_name": "2 m temperature"}),
            "sp": (dims, sp.astype("f4"), {"units": "Pa", "standard_name": "surface_pressure"}),
        },
        {
            "time": ("time", time, {"long_name": "valid time"}),
            "latitude": ("latitude", latitude, {"units": "degrees_north", "axis": "Y"}),
            "longitude": ("longitude", EAST, {"units": "degrees_east", "axis": "X"}),
        },
    )


def fitted(ds: xr.Dataset, *, pointwise: bool = False) -> Normaliser:
    return Normaliser.fit(ds, ("t2m", "sp"), "time", pointwise=pointwise)


def arrays(ds: xr.Dataset) -> dict[str, np.ndarray]:
    return {str(n): v.transpose("time", ...).values for n, v in ds.data_vars.items()}


@pytest.mark.parametrize("pointwise", [False, True], ids=["one mean", "a mean field"])
@pytest.mark.parametrize("latitude", [RISING, RISING[::-1]], ids=["rising", "falling"])
def test_there_and_back_with_every_label(latitude: np.ndarray, pointwise: bool) -> None:
    ds = weather(latitude)
    codec = fitted(ds, pointwise=pointwise)
    x = codec.encode(arrays(ds))
    assert x.dtype == torch.float32 and x.shape == (6, 2, 5, 7)
    back = codec.decode(x, ds["time"])
    for name, v in ds.data_vars.items():
        assert back[name].dims == v.dims and back[name].attrs == v.attrs
        assert back[name].dtype == np.float32
        # one rounding on the way in, of a value of a few s.d., and two of the value on the way out
        eps = float(np.finfo(np.float32).eps)
        allowed = eps * (8 * float(v.std()) + 2 * float(np.abs(v).max()))
        assert float(np.abs(back[name] - v).max()) <= allowed
    xr.testing.assert_identical(back.coords.to_dataset(), ds.coords.to_dataset())
    assert [str(t) for t in back["time"].values] == [str(t) for t in ds["time"].values]


@pytest.mark.parametrize("pointwise", [False, True], ids=["one mean", "a mean field"])
def test_statistics_are_those_of_numpy_in_float64(pointwise: bool) -> None:
    """Also where float32 sums would lose the spread: a small signal on a large mean."""
    ds = weather(mean=3e5, std=2.0, n=400)
    codec = fitted(ds, pointwise=pointwise)
    for k, name in enumerate(("t2m", "sp")):
        values = ds[name].values.astype(np.float64)
        mean = values.mean(0) if pointwise else values.mean()
        np.testing.assert_allclose(codec.mean[k].squeeze(), mean, rtol=1e-14)
        std = np.sqrt(((values - mean) ** 2).mean())
        np.testing.assert_allclose(codec.std[k], std, rtol=1e-12)
    x = codec.encode(arrays(ds)).double()
    assert codec.mean.dtype == codec.std.dtype == np.float64
    np.testing.assert_allclose(x.mean((0, 2, 3)), [0, 0], atol=1e-6)
    np.testing.assert_allclose(x.square().mean((0, 2, 3)), [1, 1], rtol=1e-6)


def test_statistics_do_not_depend_on_chunks() -> None:
    ds = weather(n=60)
    whole, chunked = fitted(ds), fitted(ds.chunk(time=7, latitude=2))
    np.testing.assert_allclose(chunked.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(chunked.std, whole.std, rtol=1e-12)


@pytest.mark.parametrize("pointwise", [False, True], ids=["one mean", "a mean field"])
def test_land_is_zero_inside_and_nan_again_outside(pointwise: bool) -> None:
    ds = weather()
    land = xr.zeros_like(ds["t2m"].isel(time=0, drop=True), dtype=bool)
    land[1:3, 2:5] = True
    masked = ds.assign(t2m=ds["t2m"].where(~land))
    codec = fitted(masked, pointwise=pointwise)
    assert codec.mask is not None
    np.testing.assert_array_equal(codec.mask[0], ~land)
    assert bool(codec.mask[1].all())
    np.testing.assert_allclose(codec.std[0], _std(masked["t2m"].values, pointwise), rtol=1e-12)
    x = codec.encode(arrays(masked))
    assert bool(torch.isfinite(x).all()) and not x[:, 0, 1:3, 2:5].any()
    back = codec.decode(x + 1, ds["time"])
    np.testing.assert_array_equal(np.isnan(back["t2m"]), land.broadcast_like(ds["t2m"]))
    assert not np.isnan(back["sp"]).any()
    # and no gradient comes from there
    x.requires_grad_()
    torch.nan_to_num(codec.physical(x)).sum().backward()
    assert x.grad is not None and not x.grad[:, 0, 1:3, 2:5].any()
    assert bool((x.grad[:, 1] > 0).all())


def _std(values: np.ndarray, pointwise: bool) -> float:
    sea = ~np.isnan(values).all(0)
    values = values.astype("f8")[:, sea]
    mean = values.mean(0) if pointwise else values.mean()
    return float(np.sqrt(((values - mean) ** 2).mean()))


def test_physical_is_differentiable_and_affine() -> None:
    codec = fitted(weather())
    x, y = torch.randn(2, 3, 2, 5, 7)
    both = codec.physical(0.3 * x + 0.7 * y)
    torch.testing.assert_close(both, 0.3 * codec.physical(x) + 0.7 * codec.physical(y))
    x.requires_grad_()
    codec.physical(x).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad[0, :, 0, 0], codec.std, rtol=1e-6)


EQUATIONS = {"poisson": Poisson(), "darcy": Darcy()}


@pytest.mark.parametrize("solver", EQUATIONS.values(), ids=EQUATIONS.keys())
def test_a_derived_variable_is_the_solvers(solver: Callable[[torch.Tensor], torch.Tensor]) -> None:
    axis = np.linspace(0, 1, 9)
    grid = Grid(("y", "x"), {"y": axis, "x": axis})
    attrs = {"coefficient": {"units": "1"}}
    inner = Normaliser(grid, ("coefficient",), attrs, np.full((1, 1, 1), 7.0), np.array([1.5]))
    codec = Derived(inner, "solution", {"units": "1", "long_name": "u"}, solver)
    assert codec.channels == 1 and list(codec.variables) == ["coefficient", "solution"]
    x = torch.randn(3, 1, 9, 9, generator=torch.manual_seed(0))
    members = xr.DataArray(np.arange(3), dims="member", name="member")
    out = codec.decode(x, members)
    assert out["solution"].attrs == {"units": "1", "long_name": "u"}
    a = torch.from_numpy(out["coefficient"].values)[:, None]
    np.testing.assert_allclose(a[:, 0], 7 + 1.5 * x[:, 0], rtol=1e-6)
    expected = solver(a.double())[:, 0]
    scale = float(expected.abs().max())
    np.testing.assert_allclose(out["solution"], expected, atol=3e-6 * scale)
    assert float(np.abs(out["solution"]).max()) > 1e-4
    # the second variable is not needed to encode
    assert torch.equal(codec.encode({"coefficient": a[:, 0].numpy()}), inner.encode(
        {"coefficient": a[:, 0].numpy(), "solution": a[:, 0].numpy()}
    ))  # fmt: skip


def test_another_grid_over_the_same_box() -> None:
    codec = fitted(weather(RISING[::-1]))
    finer = codec.at(codec.grid.resized({"latitude": 9}))
    axis = finer.grid.coords["latitude"]
    assert len(axis) == 9 and axis[0] == RISING[-1] and axis[-1] == RISING[0]
    np.testing.assert_array_equal(finer.grid.coords["longitude"], EAST)
    x = torch.randn(1, 2, 9, 7)
    np.testing.assert_allclose(
        finer.physical(x)[0, 0], codec.mean[0].item() + codec.std[0] * x[0, 0], rtol=1e-6
    )
    template = finer.grid.template()
    assert template["latitude"].attrs == {"units": "degrees_north", "axis": "Y"}


def test_an_uneven_axis_that_keeps_its_size_is_kept() -> None:
    uneven = Grid(("y", "x"), {"y": np.array([0.0, 1.0, 4.0]), "x": np.linspace(0, 1, 5)})
    finer = uneven.resized({"x": 9, "y": 3})
    np.testing.assert_array_equal(finer.coords["y"], [0, 1, 4])
    assert finer.shape == (3, 9) and uneven.resized({"x": 9}).coords["y"][1] == 1


GRIDS: dict[str, tuple[str, Callable[[Normaliser], object]]] = {
    "an unknown dim": (
        "'latitud'.*Did you mean 'latitude'",
        lambda c: c.grid.resized({"latitud": 9}),
    ),
    "one point": ("1 points along 'latitude'", lambda c: c.grid.resized({"latitude": 1})),
    "a mean field on another grid": (
        r"mean field or a mask on its grid \(5, 7\); got \(9, 7\)",
        lambda c: fitted(weather(), pointwise=True).at(c.grid.resized({"latitude": 9})),
    ),
    "a mask on another grid": (
        "mean field or a mask",
        lambda c: replace(c, valid=np.ones((2, 5, 7), bool)).at(c.grid.resized({"longitude": 9})),
    ),
}


@pytest.mark.parametrize(("said", "act"), GRIDS.values(), ids=GRIDS.keys())
def test_a_grid_that_cannot_be_is_refused(said: str, act: Callable[[Normaliser], object]) -> None:
    with pytest.raises(InputError, match=said):
        act(fitted(weather()))


DATA: dict[str, tuple[str, Callable[[xr.Dataset], xr.Dataset]]] = {
    "constant": ("'t2m' is constant", lambda ds: ds.assign(t2m=ds["t2m"] * 0 + np.float32(0.1))),
    "constant and large": (
        "'t2m' is constant",
        lambda ds: ds.assign(t2m=ds["t2m"] * 0 + np.float32(281.37)),
    ),
    "zero": ("'t2m' is constant", lambda ds: ds.assign(t2m=ds["t2m"] * 0)),
    "2-D coordinates": (
        "no 1-D numeric coordinate",
        lambda ds: ds.assign_coords(latitude=list("abcde")),
    ),
}


@pytest.mark.parametrize(("said", "spoil"), DATA.values(), ids=DATA.keys())
def test_data_without_statistics_are_refused(
    said: str, spoil: Callable[[xr.Dataset], xr.Dataset]
) -> None:
    with pytest.raises(InputError, match=said):
        fitted(spoil(weather(n=50)))


def test_a_missing_variable_names_the_nearest() -> None:
    ds = weather()
    with pytest.raises(InputError, match="'t2m' is missing. Did you mean 't2n'"):
        fitted(ds).encode(arrays(ds.rename(t2m="t2n")))


STATISTICS: dict[str, dict[str, np.ndarray]] = {
    "a mean of another grid": {"mean": np.zeros((2, 5, 6))},
    "a mean too few": {"mean": np.zeros((1, 1, 1))},
    "an s.d. too many": {"std": np.ones(3)},
    "an s.d. of zero": {"std": np.array([1.0, 0.0])},
    "a negative s.d.": {"std": np.array([1.0, -1.0])},
    "an s.d. of nan": {"std": np.array([1.0, np.nan])},
    "a mean of nan": {"mean": np.full((2, 1, 1), np.nan)},
    "a mask of another grid": {"valid": np.ones((2, 7, 5), bool)},
}


@pytest.mark.parametrize("change", STATISTICS.values(), ids=STATISTICS.keys())
def test_statistics_that_fit_no_variable_are_refused(change: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match="statistics"):
        replace(fitted(weather()), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("axis", [RISING, RISING[::-1], np.array([0.0, 1.0, 4.0, 9.0])])
def test_positions_are_the_inverse_of_interpolation(axis: np.ndarray) -> None:
    """Rising, falling and uneven axes; the index of a coordinate has that coordinate."""
    grid = Grid(("y",), {"y": axis})
    index = np.linspace(0, len(axis) - 1, 41)
    at = np.interp(index, np.arange(len(axis)), axis)
    np.testing.assert_allclose(grid.position("y", at), index, atol=1e-12)
    step = axis[1] - axis[0], axis[-1] - axis[-2]
    beyond = grid.position("y", np.array([axis[0] - step[0], axis[-1] + 2 * step[1]]))
    np.testing.assert_allclose(beyond, [-1, len(axis) + 1], atol=1e-12)


@given(st.floats(-10, 2), st.integers(-2, 2))
def test_longitudes_are_found_by_whole_turns(longitude: float, turns: int) -> None:
    grid = Grid.of(weather(), ("latitude", "longitude"))
    at = grid.position("longitude", np.array([longitude + 360 * turns]))
    assert abs(at[0] - (longitude + 10) / 2) < 1e-9
    # a place is no longitude
    plane = Grid(("y", "x"), {"y": RISING, "x": EAST})
    assert turns == 0 or abs(plane.position("x", np.array([longitude + 360 * turns]))[0]) > 100


def test_longitudes_outside_stay_outside() -> None:
    grid = Grid.of(weather(), ("latitude", "longitude"))
    at = grid.position("longitude", np.array([-11.0, 3.0, -10 - 1e-9, 180.0]))
    np.testing.assert_allclose(at, [-0.5, 6.5, -5e-10, 95.0], atol=1e-10)


def test_a_dim_without_a_coordinate_counts() -> None:
    ds = xr.Dataset({"a": (("sample", "y"), np.random.default_rng(0).standard_normal((5, 4)))})
    codec = Normaliser.fit(ds, ("a",), "sample")
    np.testing.assert_array_equal(codec.grid.coords["y"], [0, 1, 2, 3])


def test_great_circles() -> None:
    quarter = np.pi / 2 * EARTH
    lat, lon = np.array([0.0, 0.0, 90.0, -90.0, 0.0]), np.array([0.0, 90.0, 17.0, 0.0, 360.0])
    d = great_circle(lat, lon)
    np.testing.assert_allclose(d[0], [0, quarter, quarter, quarter, 0], atol=1e-6)
    np.testing.assert_allclose(d[2, 3], 2 * quarter)
    np.testing.assert_array_equal(d, d.T)


def test_distances_run_as_the_grid_does_in_memory() -> None:
    grid = Grid.of(weather(), ("latitude", "longitude"))
    d = distances(grid)
    at = np.array([[lat, lon] for lat in RISING for lon in EAST])
    np.testing.assert_array_equal(d, great_circle(at[:, 0], at[:, 1]))
    one = 2 * np.arcsin(np.cos(np.deg2rad(50)) * np.sin(np.deg2rad(1)))
    np.testing.assert_allclose(d[0, 1], EARTH * one, rtol=1e-12)  # two degrees along 50 N
    plane = Grid(("y", "x"), {"y": np.array([0.0, 3.0]), "x": np.array([0.0, 4.0, 8.0])})
    np.testing.assert_allclose(distances(plane)[0], [0, 4, 8, 3, 5, np.sqrt(73)])
