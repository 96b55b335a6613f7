"""Cell weights equal the analytic area; pairs match by value or are refused."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sciddm import score
from sciddm.errors import InputError
from sciddm.score.weights import average, pair


def field(seed: int = 0, members: int | None = None) -> xr.DataArray:
    """A small labelled field (time, latitude, longitude), with members where asked."""
    rng = np.random.default_rng(seed)
    sizes = {"time": 3, "latitude": 4, "longitude": 5}
    coords = {
        "time": np.array(["2019-03-01", "2019-03-02", "2019-03-03"], dtype="datetime64[ns]"),
        "latitude": ("latitude", [60.0, 55.0, 50.0, 45.0], {"units": "degrees_north"}),
        "longitude": ("longitude", [0.0, 1.0, 2.0, 3.0, 4.0], {"units": "degrees_east"}),
    }
    if members is not None:
        sizes = {"member": members, **sizes}
    values = rng.normal(280.0, 3.0, tuple(sizes.values()))
    return xr.DataArray(values, dims=tuple(sizes), coords=coords, name="t2m", attrs={"units": "K"})


def on_latitudes(latitude: np.ndarray, name: str = "lat") -> xr.DataArray:
    return xr.DataArray(np.zeros(len(latitude)), dims=name, coords={name: latitude})


@pytest.mark.parametrize("cells", [2, 7, 180])
@pytest.mark.parametrize("down", [False, True])
def test_cells_of_a_sphere_have_their_analytic_area(cells: int, down: bool) -> None:
    edges = np.linspace(-90, 90, cells + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    exact = np.diff(np.sin(np.deg2rad(edges)))
    weights = score.cell_weights(on_latitudes(centres[::-1] if down else centres))
    np.testing.assert_allclose(weights, exact[::-1] if down else exact, rtol=1e-12)
    np.testing.assert_allclose(weights.sum(), 2.0, rtol=1e-12)


def test_a_row_on_the_pole_is_half_a_cell() -> None:
    """Edges stop at the poles: cos(90 degrees) = 0 would drop the row, a whole cell doubles it."""
    weights = score.cell_weights(on_latitudes(np.linspace(-90, 90, 7)))
    np.testing.assert_allclose(weights[0], 1 - np.sin(np.deg2rad(75)), rtol=1e-12)
    np.testing.assert_allclose(weights.sum(), 2.0, rtol=1e-12)


def test_uneven_latitudes_meet_midway() -> None:
    weights = score.cell_weights(on_latitudes(np.array([0.0, 10.0, 40.0])))
    edges = np.sin(np.deg2rad([-5.0, 5.0, 25.0, 55.0]))
    np.testing.assert_allclose(weights, np.diff(edges), rtol=1e-12)


def test_the_mean_over_the_sphere_of_sin_squared_is_a_third() -> None:
    """Integral of sin^2(lat) over the sphere / 4 pi = 1/3: the midpoint rule is O(step^2)."""
    errors = []
    for cells in (45, 90):
        edges = np.linspace(-90, 90, cells + 1)
        lat = (edges[1:] + edges[:-1]) / 2
        f = on_latitudes(lat).copy(data=np.sin(np.deg2rad(lat)) ** 2)
        errors.append(abs(float(average(f, None)) - 1 / 3))
    assert errors[1] < 1e-4
    assert 3.5 < errors[0] / errors[1] < 4.5


@pytest.mark.parametrize(
    ("obj", "said"),
    [
        (xr.DataArray(np.zeros((2, 3)), dims=("y", "x")), "no latitude"),
        (
            xr.DataArray(
                np.zeros((2, 3)), dims=("y", "x"), coords={"lat": (("y", "x"), np.ones((2, 3)))}
            ),
            "2 dims",
        ),
        (
            xr.DataArray(
                np.zeros(3),
                dims="station",
                coords={"lat": ("station", [50.0, 20.0, 60.0]), "lon": ("station", [0, 1.0, 2])},
            ),
            "scattered",
        ),
    ],
)
def test_without_a_latitude_axis_weights_are_uniform_and_say_so(
    obj: xr.DataArray, said: str
) -> None:
    weights = score.cell_weights(obj)
    assert weights.ndim == 0 and float(weights) == 1.0
    assert weights.attrs["weights"].startswith("uniform") and said in weights.attrs["weights"]
    result = score.rmse(obj.expand_dims(member=3) + 1.0, obj)
    assert said in result.attrs["weights"]


@pytest.mark.parametrize(
    ("latitude", "said"),
    [([0.0, 10.0, 5.0], "index 2"), ([0.0, 0.0, 5.0], "index 1"), ([60.0, 80.0, 100.0], "100")],
)
def test_impossible_latitudes_are_refused(latitude: list[float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        score.cell_weights(on_latitudes(np.array(latitude)))


def test_averages_are_weighted_by_area_and_skip_the_same_gap() -> None:
    truth = field()
    truth[0, 1, 2] = np.nan
    ens = (truth + 1.0).expand_dims(member=2).copy()
    ens[:, :, 0] += 1.0  # the northern row is off by two
    w = score.cell_weights(truth).values
    share = np.broadcast_to(w[None, :, None], truth.shape) * truth.notnull().values
    expected = (share[:, 0].sum() * 2 + share[:, 1:].sum()) / share.sum()
    np.testing.assert_allclose(score.bias(ens, truth), expected, rtol=1e-12)
    rows = score.bias(ens, truth, over=("time", "longitude"))
    np.testing.assert_allclose(rows, [2, 1, 1, 1], rtol=1e-10)
    assert "cell area" in score.bias(ens, truth).attrs["weights"]


def test_a_cell_that_is_gap_in_both_stays_gap() -> None:
    truth = field()
    truth[:, 1, 2] = np.nan
    ens = truth.expand_dims(member=3) + 1.0
    for result in (
        score.rmse(ens, truth, over="time"),
        score.crps(ens, truth, over="time"),
        score.brier(ens, truth, 280.0, over="time"),
        score.coverage(ens, truth, over="time"),
    ):
        assert int(result.isnull().sum()) == 1 and bool(result.isnull()[1, 2])


def test_order_of_dims_and_points_changes_nothing() -> None:
    ens, truth = field(1, members=5), field(2)
    turned = truth.isel(latitude=slice(None, None, -1), time=[2, 0, 1]).transpose(
        "longitude", "time", "latitude"
    )
    members_last = ens.transpose("latitude", "longitude", "time", "member")
    for one in (score.rmse, score.crps, score.coverage, score.spread_skill, score.relative_error):
        np.testing.assert_allclose(one(members_last, turned), one(ens, truth), rtol=1e-12)
    xr.testing.assert_identical(
        score.rank_histogram(members_last, turned), score.rank_histogram(ens, truth)
    )


def test_float32_coordinates_are_the_same_points() -> None:
    ens, truth = field(1, members=4), field(2)
    truth = truth.assign_coords(longitude=truth.longitude + 0.1)
    ens = ens.assign_coords(longitude=truth.longitude.astype(np.float32))
    assert float(score.rmse(ens, truth)) > 0


def test_sizes_of_one_are_squeezed_or_restored() -> None:
    ens, truth = field(1, members=4), field(2)
    whole = score.crps(ens.isel(time=[1]), truth.isel(time=[1]))
    np.testing.assert_array_equal(score.crps(ens.isel(time=1), truth.isel(time=[1])), whole)
    np.testing.assert_array_equal(score.crps(ens.isel(time=[1]), truth.isel(time=1)), whole)


def test_lazy_fields_give_the_same_numbers() -> None:
    ens, truth = field(1, members=6), field(2)
    lazy, true = ens.chunk(member=2, latitude=3), truth.chunk(latitude=2)
    for one in (
        score.rmse,
        score.crps,
        score.energy_score,
        score.coverage,
        score.spread_skill,
        score.rank_histogram,
        score.pit,
    ):
        np.testing.assert_allclose(one(lazy, true), one(ens, truth), rtol=1e-12)
        assert one(lazy, true).chunks is None


def test_whole_numbers_and_flags_score_as_numbers() -> None:
    ens = xr.DataArray(np.array([[0, 3], [2, 3]], dtype=np.int16), dims=("member", "x"))
    truth = xr.DataArray(np.array([1, 3], dtype=np.uint8), dims="x")
    np.testing.assert_allclose(score.crps(ens, truth, over=()), [0.0, 0.0], atol=1e-15)
    np.testing.assert_allclose(score.crps(ens > 1, truth > 1, fair=False, over=()), [0.25, 0.0])


def test_datasets_score_variable_by_variable() -> None:
    ens = xr.Dataset({"a": field(1, members=4), "b": field(3, members=4) * 2.0})
    truth = xr.Dataset({"a": field(2), "b": field(4) * 2.0, "unused": field(5)})
    both = score.crps(ens, truth)
    assert set(both.data_vars) == {"a", "b"}
    np.testing.assert_array_equal(both["b"], score.crps(ens["b"], truth["b"]))
    assert both["a"].attrs["members"] == 4 and both["a"].attrs["units"] == "K"


def shifted(dim: str) -> xr.DataArray:
    truth = field(2)
    values = truth[dim].values.copy()
    values[1] = values[1] + (np.timedelta64(1, "h") if dim == "time" else 0.25)
    return truth.assign_coords({dim: values})


def broken(values: float, member: int | None = None) -> xr.DataArray:
    ens = field(1, members=4)
    ens[dict(time=1, latitude=2, longitude=3)] = ens[dict(time=1, latitude=2, longitude=3)].where(
        ens.member != member if "member" in ens.coords else np.arange(4) != member, values
    )
    return ens


def gap(of: xr.DataArray) -> xr.DataArray:
    of = of.copy()
    of[dict(time=1, latitude=2, longitude=3)] = np.nan
    return of


GOOD = field(1, members=4)
BAD = {
    "other times": (GOOD, shifted("time"), r"'time' differs first at index 1.*01:00"),
    "other latitudes": (GOOD, shifted("latitude"), r"'latitude' differs first at index 1: 55.0"),
    "fewer points": (GOOD, field(2)[:, :3], r"\(4 points\), no point in the truth \(3 points\)"),
    "unlabelled, fewer": (
        GOOD.drop_vars("time"),
        field(2).drop_vars("time")[:2],
        "'time' has 3 points in the ensemble and 2",
    ),
    "another hour": (
        GOOD.isel(time=0),
        field(2).isel(time=1),
        r"coordinate 'time' differs: 2019-03-01.*2019-03-02.*drop_vars\('time'\)",
    ),
    "another grid": (
        GOOD.assign_coords(mask=(("latitude", "longitude"), np.ones((4, 5)))),
        field(2).assign_coords(mask=(("latitude", "longitude"), np.zeros((4, 5)))),
        "coordinate 'mask' differs",
    ),
    "dims": (GOOD, field(2).rename(longitude="x"), "'longitude'.*'x'"),
    "members under another name": (
        GOOD.rename(member="realization"),
        field(2),
        r"rename\(realization='member'\)",
    ),
    "exchanged": (GOOD, field(2, members=3), "exchanged"),
    "one member gone": (broken(np.nan, 2), field(2), "time=1, latitude=2, longitude=3"),
    "infinite member": (broken(np.inf, 0), field(2), "infinite at index time=1, latitude=2"),
    "infinite truth": (GOOD, field(2).where(field(2) > 278, -np.inf), "infinite"),
    "gap in the truth": (GOOD, gap(field(2)), "truth is NaN where the ensemble is not.*1 of 60"),
    "gap in the ensemble": (
        GOOD.where(gap(field(2)).notnull()),
        field(2),
        "ensemble is NaN where the truth is not",
    ),
    "only gaps": (GOOD * np.nan, field(2) * np.nan, "NaN everywhere"),
    "complex": (GOOD * 1j, field(2), "complex128; expected real"),
    "text": (GOOD.astype(str), field(2), "expected real numbers"),
    "empty": (GOOD[:, :0], field(2)[:0], "empty"),
    "array and Dataset": (GOOD, field(2).to_dataset(), "DataArray and Dataset"),
    "missing variable": (
        GOOD.to_dataset(name="t2"),
        field(2).to_dataset(),
        "'t2'.*Did you mean 't2m'",
    ),
    "empty Dataset": (xr.Dataset(), xr.Dataset(), "no variables"),
}


@pytest.mark.parametrize("case", BAD)
def test_fields_that_do_not_match_are_refused(case: str) -> None:
    ens, truth, said = BAD[case]
    with pytest.raises(InputError, match=said) as caught:
        score.crps(ens, truth)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_gap_is_found_in_lazy_fields_too(lazy: bool) -> None:
    ens = GOOD.chunk(latitude=1) if lazy else GOOD
    with pytest.raises(InputError, match="truth is NaN"):
        score.rmse(ens, gap(field(2)))


def test_calendars_are_not_confused() -> None:
    def at(calendar: str) -> xr.DataArray:
        days = xr.date_range("2000-01-01", periods=3, calendar=calendar, use_cftime=True)
        return xr.DataArray(np.zeros(3), dims="time", coords={"time": days})

    same = at("noleap").expand_dims(member=2)
    assert float(score.rmse(same, at("noleap"))) == 0.0
    with pytest.raises(InputError, match="360Day|Datetime360"):
        score.rmse(same, at("360_day"))


def test_over_names_its_dims() -> None:
    with pytest.raises(InputError, match=r"'lattitude'.*Did you mean 'latitude'"):
        score.crps(GOOD, field(2), over=("lattitude",))
    with pytest.raises(InputError, match="'member'"):
        score.crps(GOOD, field(2), over=("member",))


def test_the_pair_keeps_names_units_and_places() -> None:
    ens, truth = pair(GOOD.transpose("time", "member", ...), field(2).transpose())
    assert ens.dims == ("member", *truth.dims) and truth.attrs["units"] == "K"
    assert score.crps(GOOD, field(2), over=("latitude", "longitude")).dims == ("time",)
    xr.testing.assert_equal(
        score.crps(GOOD, field(2), over=("latitude", "longitude"))["time"], GOOD["time"]
    )
