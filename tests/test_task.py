"""Observed values lowered to tensors: against xarray's own interpolation, and every bad input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import sciddm as sd
from sciddm import ensemble
from sciddm.basis import Cosine
from sciddm.covariance import Matern, Spectral
from sciddm.data.codec import Derived, Grid, Normaliser
from sciddm.denoise import Gaussian
from sciddm.ensemble import Job
from sciddm.errors import InputError
from sciddm.observe import Observation
from sciddm.pde import Poisson
from sciddm.process import VE, LogLinear
from sciddm.solve import Diffusion

NORTH = np.linspace(60.0, 50.0, 6)
EAST = np.linspace(-5.0, 2.0, 8)
GRID = Grid(
    ("latitude", "longitude"),
    {"latitude": NORTH, "longitude": EAST},
    {
        "latitude": {"standard_name": "latitude", "units": "degrees_north"},
        "longitude": {"standard_name": "longitude", "units": "degrees_east"},
    },
)
SEA = np.ones((1, 6, 8), bool)
SEA[0, 2:4, 3:5] = False
ATTRS = {"t2m": {"units": "K", "long_name": "temperature"}}
WEATHER = Normaliser(GRID, ("t2m",), ATTRS, np.full((1, 1, 1), 280.0), np.array([3.0]))
COAST = replace(WEATHER, valid=SEA)
UNIT = np.linspace(0, 1, 9)
SQUARE = Grid(("y", "x"), {"y": UNIT, "x": UNIT})
SOURCE = Normaliser(SQUARE, ("coefficient",), {}, np.full((1, 1, 1), 0.5), np.array([2.0]))
PDE = Derived(SOURCE, "solution", {"units": "1"}, Poisson())

X = torch.randn(1, 1, 6, 8, generator=torch.manual_seed(0))
FIELD = WEATHER.decode(X, xr.DataArray([0], dims="member", name="member"))["t2m"][0].drop_vars(
    "member"
)
"""A field of the model, in kelvin, and what it is inside."""
LAT = np.array([51.0, 53.3, 59.99, 50.0, 60.0])
LON = np.array([0.0, 1.0, -2.2, 2.0, -5.0])


def stations(lat: np.ndarray = LAT, lon: np.ndarray = LON, **names: str) -> xr.DataArray:
    """The field at places of any kind, by xarray's interpolation."""
    at = {
        "latitude": xr.DataArray(lat, dims="station"),
        "longitude": xr.DataArray(lon, dims="station"),
    }
    return FIELD.interp(at, method="linear").rename(names)


def only(seen: sd.Observed, codec: Normaliser | Derived = WEATHER) -> Observation:
    ((number, label, observation),) = seen.cases(codec)
    assert number == 0 and label is None
    return observation


def model(codec: Normaliser | Derived = WEATHER) -> sd.Model:
    """A smooth Gaussian prior on the grid of ``codec``, exact."""
    law = Spectral(Matern(0.5, 1.5, 1.0), (1.0, 1.0), Cosine())
    prior = Gaussian(torch.zeros(()), law, VE(clock=LogLinear(0.01, 100.0)))
    task = sd.Task(sd.View(tuple(codec.variables)), sample="time")
    return sd.Model(task, codec, Diffusion(prior, steps=12), moments=prior)


FORMS: dict[str, tuple[Callable[[], xr.DataArray], int]] = {
    "the grid": (lambda: FIELD, 48),
    "the grid, dims swapped": (lambda: FIELD.transpose("longitude", "latitude"), 48),
    "the grid, rising latitude": (lambda: FIELD.sortby("latitude"), 48),
    "some rows and columns": (lambda: FIELD[1::2, ::3], 9),
    "a window between the points": (
        lambda: FIELD.interp(latitude=[57.3, 51.9], longitude=[-4.4, 0.1, 1.7]),
        6,
    ),
    "gaps": (lambda: FIELD.where((FIELD > 280) & (FIELD.latitude < 59)), -1),
    "stations": (stations, 5),
    "stations, one unseen": (lambda: stations().where(LAT != 51.0), 4),
    "stations, east of Greenwich": (lambda: stations().assign_coords(longitude=(
        "station", LON % 360)), 5),
    "stations with short names": (lambda: stations(latitude="lat", longitude="lon"), 5),
    "stations along another dim": (lambda: stations().swap_dims(station="ship"), 5),
    "float32": (lambda: stations().astype("f4"), 5),
    "one station": (lambda: stations()[:1], 1),
    "a ship's track": (
        lambda: stations().rename(station="time").assign_coords(
            time=np.datetime64("2000-01-01", "ns") + np.arange(5)
        ),
        5,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("form", "count"), FORMS.values(), ids=FORMS.keys())
def test_a_field_fits_what_xarray_interpolates_from_it(
    form: Callable[[], xr.DataArray], count: int
) -> None:
    """Every residual of the field that was seen is zero, in units of its error; of another, not."""
    values = form()
    observation = only(sd.Observed(values, std=0.1))
    known = values.values[np.isfinite(values.values)].astype("f8")
    assert observation.y.shape == (known.size,) and count in (known.size, -1)
    np.testing.assert_allclose(observation.y, known / 0.1, rtol=1e-12)
    assert torch.equal(observation.variance, torch.ones((), dtype=torch.float64))
    # float32 fields of 280 K, seen to 0.1 K
    assert float(observation.residual(X).abs().max()) < 280 / 0.1 * 2e-6
    assert float(observation.residual(X + 1).abs().min()) > 2.9 / 0.1


def test_rows_are_the_sensors_in_units_of_their_error() -> None:
    """One value between four points: their weights, times the spread, over the error."""
    seen = stations(np.array([57.0]), np.array([-3.25]))
    (row,) = only(sd.Observed(seen, std=0.25)).operator.rows(torch.zeros(1, 1, 6, 8))
    expected = torch.zeros(6, 8)
    expected[1:3, 1:3] = torch.outer(torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(row[0], expected * 3.0 / 0.25)


COARSE: dict[str, dict[str, int]] = {
    "two by two": {"latitude": 2, "longitude": 2},
    "three by four": {"latitude": 3, "longitude": 4},
    "along one dim": {"longitude": 4},
    "a ragged end": {"latitude": 4, "longitude": 3},
}


@pytest.mark.parametrize("factor", COARSE.values(), ids=COARSE.keys())
@pytest.mark.parametrize("labelled", [True, False])
def test_block_means_are_those_of_xarray(factor: dict[str, int], labelled: bool) -> None:
    means = FIELD.coarsen(factor, boundary="trim").mean()  # type: ignore[attr-defined]
    means = means if labelled else means.drop_vars(["latitude", "longitude"])
    observation = only(sd.Observed(means.where(means != means[0, 0]), std=0.5, coarsen=factor))
    np.testing.assert_allclose(observation.y, means.values.ravel()[1:] / 0.5, rtol=1e-12)
    assert float(observation.residual(X).abs().max()) < 1e-3


ERRORS: dict[str, tuple[Any, list[float]]] = {
    "a number": (0.5, [0.5] * 5),
    "an integer": (2, [2.0] * 5),
    "numpy's": (np.float32(0.5), [0.5] * 5),
    "by name": ({"t2m": 0.5, "other": 1.0}, [0.5] * 5),
    "one a station": (xr.DataArray([1.0, 2, 3, 4, 5], dims="station"), [1, 2, 3, 4, 5]),
    "a dataset": (
        xr.Dataset({"t2m": ("station", [1.0, 2, 3, 4, 5])}),
        [1, 2, 3, 4, 5],
    ),
    "a scalar array": (xr.DataArray(0.5), [0.5] * 5),
}


@pytest.mark.parametrize(("std", "expected"), ERRORS.values(), ids=ERRORS.keys())
def test_each_value_has_its_own_error(std: Any, expected: list[float]) -> None:  # noqa: ANN401
    observation = only(sd.Observed(stations(), std=std))
    np.testing.assert_allclose(observation.y, stations().values / expected, rtol=1e-12)
    off = observation.residual(X + 1) - observation.residual(X)
    np.testing.assert_allclose(off[0], [-3 / e for e in expected], rtol=1e-4)


def test_an_error_without_its_value_is_not_asked_for() -> None:
    gaps = stations().where(LAT != 51.0)
    std = xr.DataArray([np.nan, 1, 1, 1, 1], dims="station")
    assert only(sd.Observed(gaps, std=std)).y.shape == (4,)


def test_both_variables_of_a_model_at_once() -> None:
    """The coefficient on some rows, the solution on the whole grid, each with its own error."""
    x = torch.randn(1, 1, 9, 9, generator=torch.manual_seed(3))
    truth = PDE.decode(x, xr.DataArray([0], dims="member", name="member")).isel(member=0, drop=True)
    rows = xr.zeros_like(truth["y"]).astype(bool)
    rows[2:5] = True
    values = xr.Dataset(
        {"solution": truth["solution"], "coefficient": truth["coefficient"].where(rows)}
    )
    observation = only(sd.Observed(values, std={"solution": 1e-4, "coefficient": 0.1}), PDE)
    assert observation.y.shape == (81 + 27,)
    np.testing.assert_allclose(observation.y[:81], truth["solution"].values.ravel() / 1e-4)
    np.testing.assert_allclose(observation.y[81:], truth["coefficient"][2:5].values.ravel() / 0.1)
    assert float(observation.residual(x).abs().max()) < 1e-3
    # through the solver, the solution is seen as well
    rows_of = observation.operator.rows(torch.zeros(1, 1, 9, 9))
    assert not rows_of[0].any()  # on the edge the solution is 0, whatever the coefficient
    assert bool(rows_of[40].abs().min() >= 0) and float(rows_of[40].abs().max()) > 0


TIMES = xr.date_range("2000-02-28", periods=3, calendar="noleap", use_cftime=True)


@pytest.mark.parametrize("dim", ["time", "sample", "valid_time", "day"])
@pytest.mark.parametrize("last", [False, True])
def test_cases_are_seen_one_by_one(dim: str, last: bool) -> None:
    """Patterns that change from case to case, labels that stay what they are."""
    labels = np.array([17, 3, 40]) if dim == "sample" else TIMES
    fields = xr.concat([FIELD + k for k in range(3)], dim).assign_coords({dim: labels})
    fields = fields.where(fields[dim].copy(data=[0, 1, 2]) != FIELD.latitude.copy(data=range(6)))
    fields = fields.transpose(..., dim) if last else fields
    std = xr.DataArray([0.1, 0.2, 0.4], dims=dim)
    cases = list(sd.Observed(fields, std=std).cases(WEATHER))
    assert [number for number, _, _ in cases] == [0, 1, 2]
    for k, (_, label, observation) in enumerate(cases):
        assert label is not None and label.values == labels[k] and label.name == dim
        kept = np.delete(FIELD.values, k, axis=0)
        np.testing.assert_allclose(observation.y, (kept.ravel() + k) / (0.1 * 2**k), rtol=1e-6)
        # the field of case k, seen exactly: the mean of the residuals is its offset
        gap = observation.residual(X) * 0.1 * 2**k
        np.testing.assert_allclose(gap, np.full((1, 40), k), atol=1e-3)


def test_stations_that_report_in_turn() -> None:
    """(time, station): fixed places, each hour those that were on the air."""
    hours = xr.DataArray(np.arange(3), dims="time", coords={"time": TIMES})
    values = (stations() + hours).where(hours != xr.DataArray(np.arange(5), dims="station"))
    cases = list(sd.Observed(values.rename("t2m"), std=0.5).cases(WEATHER))
    for k, (_, label, observation) in enumerate(cases):
        assert label is not None and label.item() == TIMES[k]
        np.testing.assert_allclose(observation.y, np.delete(stations() + k, k) / 0.5, rtol=1e-12)
        gap = observation.residual(X) * 0.5
        np.testing.assert_allclose(gap, np.full((1, 4), k), atol=1e-3)


def test_a_variable_without_cases_is_seen_in_each() -> None:
    """A constant beside a record: the same sensors of the coefficient for every sample."""
    rng = np.random.default_rng(0)
    values = xr.Dataset(
        {
            "coefficient": (("y", "x"), rng.standard_normal((9, 9))),
            "solution": (("sample", "y", "x"), rng.standard_normal((2, 9, 9))),
        },
        {"y": UNIT, "x": UNIT, "sample": [4, 9]},
    )
    inner = (values["y"] % 1 > 0) & (values["x"] % 1 > 0)
    values["solution"] = values["solution"].where(inner, 0.0)  # as on its boundary
    cases = list(sd.Observed(values, std=0.5).cases(PDE))
    assert [int(label) for _, label, _ in cases if label is not None] == [4, 9]
    for k, (_, _, observation) in enumerate(cases):
        np.testing.assert_allclose(observation.y[:81], values["coefficient"].values.ravel() * 2)
        np.testing.assert_allclose(observation.y[81:], values["solution"][k].values.ravel() * 2)


def test_duplicate_sensors_both_count() -> None:
    """Two equal sensors are one of half the variance; two that differ, their mean."""
    two = xr.concat([stations()[:1], stations()[:1] + 1], "station")
    observation = only(sd.Observed(two, std=0.2))
    rows = observation.operator.rows(torch.zeros(1, 1, 6, 8))
    assert torch.equal(rows[0], rows[1]) and observation.y.shape == (2,)
    one = sd.Observed(stations()[:1] + 0.5, std=0.2 / np.sqrt(2))
    pair, single = (
        sd.krige(model(), s, members=16)["t2m"] for s in (sd.Observed(two, std=0.2), one)
    )
    # the errors are drawn otherwise, the gain is the same
    assert abs(float(pair.mean() - single.mean())) < 0.2
    gain = [_mean(s) for s in (sd.Observed(two, std=0.2), one)]
    torch.testing.assert_close(gain[0], gain[1], rtol=1e-5, atol=1e-6)


def _mean(seen: sd.Observed) -> Tensor:
    from sciddm.guide import linear_posterior

    prior = model().gaussian
    assert prior is not None
    return linear_posterior(prior, only(seen), torch.zeros(1, 1, 6, 8))[0]


def test_a_sensor_beside_land_is_seen_and_one_on_it_is_not() -> None:
    """An interpolation weight of zero on a point without a value is no hole in the posterior."""
    beside = stations(np.array([58.0, 54.0]), np.array([-2.0, -3.0]))
    observation = only(sd.Observed(beside, std=0.1), COAST)
    assert bool(torch.isfinite(observation.residual(X)).all())
    rows = observation.operator.rows(torch.zeros(1, 1, 6, 8))
    assert float(rows[0, 0, 1, 3]) == 30 and rows[0].count_nonzero() == 1
    post = sd.recover(model(COAST), sd.Observed(beside, std=0.1), members=8)
    land = ~SEA[0]
    np.testing.assert_array_equal(np.isnan(post["t2m"]), np.broadcast_to(land, (8, 6, 8)))
    assert 0.5 < post.attrs["misfit_sd"] < 1.5


def test_units_spelt_otherwise_are_the_same() -> None:
    assert only(sd.Observed(stations().assign_attrs(units="kelvin"), std=0.1)).y.shape == (5,)


def test_coordinates_without_a_dim_are_kept() -> None:
    at = stations().assign_coords(time=TIMES[1], height=2.0)
    for draw in (sd.recover, sd.krige):
        post = draw(model(), sd.Observed(at, std=0.1), members=2)
        assert post["time"].item() == TIMES[1] and float(post["height"]) == 2.0
        assert dict(post.sizes) == {"member": 2, "latitude": 6, "longitude": 8}


Bad = tuple[str, Callable[[], tuple[Any, ...]]]
OK = stations()
BAD: dict[str, Bad] = {
    "no labels": ("ndarray; expected a DataArray", lambda: (OK.values, 0.1)),
    "no name": ("'None'.*There are: t2m", lambda: (OK.rename(None), 0.1)),
    "an unknown name": ("'t2n'.*Did you mean 't2m'", lambda: (OK.rename("t2n"), 0.1)),
    "an unknown name of several": (
        "'rain'.*There are: t2m",
        lambda: (xr.Dataset({"t2m": OK, "rain": OK}), 0.1),
    ),
    "other units": (
        "in 'degC', the model in 'K'",
        lambda: (OK.assign_attrs(units="degC"), 0.1),
    ),
    "text": ("<U32 values; expected numbers", lambda: (OK.astype(str), 0.1)),
    "complex": ("complex128 values", lambda: (OK.astype(complex), 0.1)),
    "true and false": ("bool values", lambda: (OK > 280, 0.1)),
    "infinite": ("infinite", lambda: (OK.where(LAT != 51, np.inf), 0.1)),
    "minus infinite": ("infinite", lambda: (OK.where(LAT != 51, -np.inf), 0.1)),
    "error 0": (r"error of 't2m' at \(0,\) is 0", lambda: (OK, 0.0)),
    "a negative error": ("is -0.1; expected a positive", lambda: (OK, -0.1)),
    "an infinite error": ("is inf", lambda: (OK, np.inf)),
    "an error of nan": ("is nan", lambda: (OK, np.nan)),
    "one error of nan": (
        r"at \(2,\) is nan",
        lambda: (OK, xr.DataArray([1, 1, np.nan, 1, 1.0], dims="station")),
    ),
    "no error": ("error of 't2m' is None", lambda: (OK, None)),
    "an error in words": ("error of 't2m' is 'small'", lambda: (OK, "small")),
    "no error of this name": (
        "No error is given for 't2m'. Did you mean 't2n'",
        lambda: (OK, {"t2n": 1.0}),
    ),
    "errors of text": (
        "<U1 values",
        lambda: (OK, xr.DataArray(list("abcde"), dims="station")),
    ),
    "too few errors": (
        "sizes {'station': 2}",
        lambda: (OK, xr.DataArray([0.1, 0.1], dims="station")),
    ),
    "errors along another dim": (
        "sizes {'time': 5}",
        lambda: (OK, xr.DataArray([0.1] * 5, dims="time")),
    ),
    "errors of other stations": (
        "other coordinates along 'station'",
        lambda: (
            OK.assign_coords(station=list("abcde")),
            (0.1 + 0 * OK).assign_coords(station=list("abcdf")),
        ),
    ),
    "south of the domain": (
        "Observation 0 of .t2m. lies outside the grid, at latitude = 49.99",
        lambda: (OK.assign_coords(latitude=("station", LAT - 1.01)), 0.1),
    ),
    "far east": (
        "outside the grid.* 5 do",
        lambda: (OK.assign_coords(longitude=("station", LON + 90)), 0.1),
    ),
    "no position": (
        "Observed point 1 of 't2m' has no position",
        lambda: (OK.assign_coords(latitude=("station", np.where(LON == 1, np.nan, LAT))), 0.1),
    ),
    "no latitude": (
        "needs a coordinate 'latitude'",
        lambda: (OK.drop_vars("latitude"), 0.1),
    ),
    "a grid without coordinates": (
        "needs a coordinate 'longitude'",
        lambda: (FIELD.drop_vars("longitude"), 0.1),
    ),
    "positions in words": (
        "<U1 values; expected numbers",
        lambda: (FIELD.assign_coords(longitude=list("abcdefgh")), 0.1),
    ),
    "a dim too many": (
        r"dims \('level', 'latitude', 'longitude'\); expected the grid",
        lambda: (FIELD.expand_dims(level=[1, 2]), 0.1),
    ),
    "two case dims": (
        "two case dims",
        lambda: (FIELD.expand_dims(time=[1, 2], sample=[1]), 0.1),
    ),
    "blocks of another size": (
        "Block means of 't2m' have sizes .*expected {'latitude': 3, 'longitude': 8}",
        lambda: (FIELD, 0.1, {"latitude": 2}),
    ),
    "blocks along no dim": (
        "blocks name a dim 'lat'.*There are: latitude, longitude",
        lambda: (FIELD, 0.1, {"lat": 2}),
    ),
    "blocks of nothing": ("blocks of 0", lambda: (FIELD, 0.1, {"latitude": 0})),
    "blocks upside down": (
        "lie elsewhere along 'latitude'",
        lambda: (
            FIELD.coarsen(latitude=2).mean().sortby("latitude"),  # type: ignore[attr-defined]
            0.1,
            {"latitude": 2},
        ),
    ),
}  # fmt: skip
LAND: dict[str, Bad] = {
    "on land": (
        "value 0 of 't2m' lies on masked points",
        lambda: (stations(np.array([56.0]), np.array([-1.0])), 0.1),
    ),
    "near land": (
        "value 1 of 't2m' lies on masked points",
        lambda: (stations(np.array([60.0, 57.0]), np.array([-5.0, -1.5])), 0.1),
    ),
    "a grid with values on land": ("masked points.* 4 do", lambda: (FIELD, 0.1)),
    "blocks over land": (
        "masked points.* 2 do",
        lambda: (
            FIELD.coarsen(latitude=2, longitude=2).mean(),  # type: ignore[attr-defined]
            0.1,
            {"latitude": 2, "longitude": 2},
        ),
    ),
}
EVERY = [(key, WEATHER, row) for key, row in BAD.items()]
EVERY += [(key, COAST, row) for key, row in LAND.items()]


@pytest.mark.parametrize(
    ("codec", "row"), [(c, r) for _, c, r in EVERY], ids=[k for k, _, _ in EVERY]
)
def test_what_cannot_be_used_is_refused_and_nothing_is_written(
    codec: Normaliser, row: Bad, tmp_path: Path
) -> None:
    said, arguments = row
    with pytest.raises(InputError, match=said) as error:
        ensemble.run(Job(model(codec), sd.Observed(*arguments()), 2), tmp_path / "post.zarr")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=said):
        sd.recover(model(codec), sd.Observed(*arguments()), members=2)
    with pytest.raises(InputError, match=said):
        sd.krige(model(codec), sd.Observed(*arguments()), members=2)
