"""What is drawn: the data, their limits, one colour scale, labels from attrs, no text on text."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from unittest.mock import patch

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.text import Text

from sciddm import plot, score
from sciddm.errors import InputError

LATITUDE = np.linspace(58.0, 50.0, 9)
LONGITUDE = np.linspace(-10.0, 2.0, 13)


def fields(members: int = 16) -> tuple[xr.DataArray, xr.DataArray]:
    rng = np.random.default_rng(0)
    coords = {
        "latitude": ("latitude", LATITUDE, {"units": "degrees_north"}),
        "longitude": ("longitude", LONGITUDE, {"units": "degrees_east"}),
    }
    attrs = {"long_name": "2 metre temperature", "units": "K"}
    truth = xr.DataArray(
        rng.normal(280, 2, (9, 13)), dims=tuple(coords), coords=coords, name="t2m", attrs=attrs
    )
    noise = xr.DataArray(rng.normal(size=(members, 9, 13)), dims=("member", *coords))
    return truth, (noise + truth).rename("t2m").assign_attrs(attrs)


def shown(fig: Figure) -> dict[str, Axes]:
    """Axes that are drawn, by the first line of the title; colour bars have none."""
    titled = [ax for ax in fig.axes if ax.get_visible() and ax.get_title()]
    return {ax.get_title().splitlines()[0]: ax for ax in titled}


def mesh(ax: Axes) -> QuadMesh:
    (found,) = [c for c in ax.collections if isinstance(c, QuadMesh)]
    return found


def bars(fig: Figure) -> list[Axes]:
    return [ax for ax in fig.axes if ax.get_label() == "<colorbar>"]


def assert_no_text_overlaps(fig: Figure) -> None:
    """No two texts of the drawn figure touch, and none leaves the page."""
    drawn: list[Text] = []
    draw = Text.draw

    def watched(text: Text, renderer: RendererBase) -> None:
        if text.get_visible() and text.get_text().strip():
            drawn.append(text)
        draw(text, renderer)

    FigureCanvasAgg(fig).draw()  # the layout moves things while it is drawn for the first time
    with patch.object(Text, "draw", watched):
        FigureCanvasAgg(fig).draw()
    boxes = [(text.get_text(), text.get_window_extent()) for text in drawn]
    assert len(boxes) > 1
    page = fig.bbox
    for text, box in boxes:
        assert box.x0 >= page.x0 - 1 and box.x1 <= page.x1 + 1, f"{text!r} leaves the page"
        assert box.y0 >= page.y0 - 1 and box.y1 <= page.y1 + 1, f"{text!r} leaves the page"
    for (one, a), (two, b) in combinations(boxes, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        along = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(across, along) <= 1, f"{one!r} is drawn over {two!r}"


def test_recovery_draws_the_eight_panels_with_their_data() -> None:
    truth, ens = fields()
    seen = truth.where(np.random.default_rng(1).random(truth.shape) < 0.2)
    fig = plot.recovery(truth, ens, seen)
    panels = shown(fig)
    names = ["truth", f"{int(seen.count())} sensors of t2m", "mean of 16 members", "spread"]
    assert set(panels) == {*names, "member 0", "member 1", "member 2", "ranks of the truth"}
    drawn = {
        "truth": truth,
        "mean of 16 members": ens.mean("member"),
        "spread": ens.std("member", ddof=1),
        "member 2": ens[2],
    }
    for name, field in drawn.items():
        np.testing.assert_allclose(mesh(panels[name]).get_array(), field, rtol=1e-12)
    assert f"rmse {float(score.rmse(ens, truth)):.3g} K" in panels["mean of 16 members"].get_title()
    ratio = float(score.spread_skill(ens, truth))
    assert f"spread/skill {ratio:.2f}" in panels["spread"].get_title()


def test_compared_fields_share_one_scale_and_spread_has_its_own_from_zero() -> None:
    truth, ens = fields()
    fig = plot.recovery(truth, ens, truth.where(truth > 281))
    panels = shown(fig)
    spread = mesh(panels.pop("spread"))
    panels.pop("ranks of the truth")
    scales = {c.norm for ax in panels.values() for c in ax.collections}
    assert len(scales) == 1  # one object: it cannot drift apart
    scale = scales.pop()
    drawn = [truth, ens.mean("member"), ens[:3]]
    assert scale.vmin == min(float(f.min()) for f in drawn)
    assert scale.vmax == max(float(f.max()) for f in drawn)
    assert spread.norm.vmin == 0.0
    assert spread.norm.vmax == float(ens.std("member", ddof=1).max())
    assert {c.cmap.name for ax in panels.values() for c in ax.collections} == {"viridis"}
    labels = {ax.get_xlabel() or ax.get_ylabel() for ax in bars(fig)}
    assert labels == {"2 metre temperature [K]", "s.d. [K]"}


def test_maps_keep_their_place_shape_and_names() -> None:
    truth, ens = fields()
    panels = shown(plot.recovery(truth, ens))
    for name, ax in panels.items():
        if name != "ranks of the truth":
            np.testing.assert_allclose(ax.get_xlim(), (-10.5, 2.5))
            np.testing.assert_allclose(ax.get_ylim(), (49.5, 58.5))  # north is up
            np.testing.assert_allclose(ax.get_aspect(), 1 / np.cos(np.deg2rad(54)))
    assert panels["truth"].get_ylabel() == "latitude [°N]"
    assert panels["member 1"].get_xlabel() == "longitude [°E]"
    # the value at the north-west corner is drawn there
    corner = mesh(panels["truth"]).get_coordinates()[0, 0]
    np.testing.assert_allclose(corner, (-10.5, 58.5))
    np.testing.assert_allclose(mesh(panels["truth"]).get_array()[0, 0], truth[0, 0])


def test_dims_in_any_order_give_the_same_picture() -> None:
    truth, ens = fields()
    turned = plot.recovery(truth.T, ens.transpose("longitude", "latitude", "member"))
    np.testing.assert_allclose(mesh(shown(turned)["truth"]).get_array(), truth)
    assert shown(turned)["truth"].get_ylabel() == "latitude [°N]"


def offsets(ax: Axes) -> np.ndarray:
    (points,) = [c for c in ax.collections if isinstance(c, PathCollection)]
    return np.column_stack([points.get_offsets(), points.get_array()])


def test_sensors_stand_where_they_were() -> None:
    truth, ens = fields()
    gridded = truth.where((truth.latitude == 55.0) & (truth.longitude <= -8.0))
    stations = xr.DataArray(
        [281.0, np.nan, 279.5],
        dims="station",
        coords={
            "latitude": ("station", [51.3, 52.0, 56.9]),
            "longitude": ("station", [-3.2, 0.0, 1.1]),
        },
    )
    coarse = truth.isel(latitude=[1, 4], longitude=[0, 6]).transpose("longitude", "latitude")
    for sensors, expected in (
        (gridded, [(-10, 55), (-9, 55), (-8, 55)]),
        (stations, [(-3.2, 51.3), (1.1, 56.9)]),
        (stations.expand_dims(time=[0]), [(-3.2, 51.3), (1.1, 56.9)]),
        (coarse, [(-10, 57), (-10, 54), (-4, 57), (-4, 54)]),
    ):
        fig = plot.recovery(truth, ens, sensors)
        title = next(name for name in shown(fig) if "sensors" in name)
        assert title.startswith(f"{len(expected)} sensors")
        found = offsets(shown(fig)[title])
        assert sorted(map(tuple, found[:, :2].tolist())) == sorted(expected)
        if sensors.name == "t2m":
            for x, y, value in found:
                assert value == float(truth.sel(latitude=y, longitude=x))


def test_sensors_of_another_variable_have_a_scale_of_their_own() -> None:
    truth, ens = fields()
    other = (truth * 0 + truth.longitude).rename("wind").assign_attrs(units="m s-1", long_name="")
    fig = plot.recovery(truth, ens, other)
    points = shown(fig)["117 sensors of wind"].collections[0]
    assert (points.norm.vmin, points.norm.vmax) == (-10.0, 2.0)
    assert points.norm is not mesh(shown(fig)["truth"]).norm
    assert "wind [m s-1]" in {ax.get_xlabel() for ax in bars(fig)}


def test_ranks_in_the_picture_are_those_of_the_score() -> None:
    truth, ens = fields()
    counts = score.rank_histogram(ens, truth)
    for ax in (
        shown(plot.recovery(truth, ens))["ranks of the truth"],
        plot.rank_histogram(counts).axes[0],
    ):
        heights = [bar.get_height() for bar in ax.patches]
        np.testing.assert_allclose(heights, counts * 17 / truth.size)
        assert ax.get_xlabel() == "rank among 16 members" and ax.get_ylim()[0] == 0.0


def test_many_ranks_are_grouped_without_losing_counts() -> None:
    counts = xr.DataArray(np.arange(65), dims="rank")
    ax = plot.rank_histogram(counts).axes[0]
    assert len(ax.patches) == 20
    area = sum(bar.get_height() * bar.get_width() for bar in ax.patches)
    np.testing.assert_allclose(area, 65)
    assert {bar.get_width() for bar in ax.patches} == {3.0, 4.0}  # as even as whole ranks allow
    np.testing.assert_allclose([ax.patches[0].get_x(), ax.get_xlim()[1]], [-0.5, 64.5])


def test_masked_cells_are_masked_in_every_map() -> None:
    truth, ens = fields()
    land = truth.longitude > 0
    fig = plot.recovery(truth.where(~land), ens.where(~land))
    for name, ax in shown(fig).items():
        if name != "ranks of the truth":
            np.testing.assert_array_equal(
                np.ma.getmaskarray(mesh(ax).get_array()), land.broadcast_like(truth)
            )
    assert mpl.colors.to_hex(plot.FIELD.get_bad()) == mpl.colors.to_hex("0.82")


def test_maps_without_a_truth_fill_the_room_with_members() -> None:
    _, ens = fields()
    panels = shown(plot.maps(ens))
    assert set(panels) == {"mean of 16 members", "spread", *(f"member {i}" for i in range(5))}
    few = shown(plot.maps(ens.isel(member=[3, 7]).assign_coords(member=[3, 7])))
    assert set(few) == {"mean of 2 members", "spread", "member 3", "member 7"}
    truth, _ = fields()
    assert "ranks of the truth" in shown(plot.maps(ens, truth))


def test_fan_holds_its_intervals_truth_and_observations() -> None:
    rng = np.random.default_rng(2)
    time = np.datetime64("2019-03-27") + np.arange(30) * np.timedelta64(1, "h")
    ens = xr.DataArray(
        rng.normal(size=(99, 30)),
        dims=("member", "time"),
        coords={"time": time},
        name="t2m",
        attrs={"units": "K"},
    )
    truth = ens[0].drop_vars("time") * 2
    fig = plot.fan(ens, truth, truth.where(np.arange(30) % 7 == 0), levels=(0.5, 0.9))
    (ax,) = fig.axes
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    np.testing.assert_allclose(lines["truth"], truth)
    np.testing.assert_allclose(lines["median"], ens.median("member"))
    assert int(np.isfinite(lines["observed"]).sum()) == 5
    wide, narrow = ax.collections
    assert (wide.get_label(), narrow.get_label()) == ("90 %", "50 %")
    # 99 members: the 5 % and 95 % points are the 5th and the 95th in order
    ordered = np.sort(ens.values, axis=0)
    path = wide.get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([path.min(), path.max()], [ordered[4].min(), ordered[94].max()])
    assert ax.get_ylabel() == "t2m [K]" and ax.get_xlabel() == "time"
    assert_no_text_overlaps(fig)


def test_fan_of_a_calendar_without_leap_years_runs_in_years() -> None:
    days = xr.date_range("2000-01-01", periods=365, calendar="noleap", use_cftime=True)
    ens = xr.DataArray(np.zeros((3, 365)), dims=("member", "time"), coords={"time": days})
    ax = plot.fan(ens).axes[0]
    np.testing.assert_allclose(ax.get_xlim(), (2000.0, 2001.0 - 1 / 365))
    assert ax.get_xlabel() == "time [year]"


def test_fan_of_leads_is_in_hours() -> None:
    lead = np.array([6, 12, 18], dtype="timedelta64[h]").astype("timedelta64[ns]")
    ens = xr.DataArray(np.zeros((3, 3)), dims=("member", "lead"), coords={"lead": lead})
    ax = plot.fan(ens).axes[0]
    assert ax.get_xlabel() == "lead [h]" and ax.get_xlim() == (6.0, 18.0)


def test_spectrum_draws_power_up_to_the_nyquist_wavenumber() -> None:
    rng = np.random.default_rng(3)
    grid = {d: (d, np.arange(16) * 0.5, {"units": "km"}) for d in ("y", "x")}
    field = xr.DataArray(
        rng.normal(size=(9, 16, 16)), dims=("member", "y", "x"), coords=grid, attrs={"units": "K"}
    )
    power = score.power_spectrum(field, ("y", "x"))
    fig = plot.spectrum({"members": power, "first": power[0]})
    (ax,) = fig.axes
    members, first = ax.lines
    kept = power.isel(wavenumber=((power.wavenumber > 0) & (power.wavenumber <= 1.0)).values)
    np.testing.assert_allclose(first.get_ydata(), kept[0])
    np.testing.assert_allclose(members.get_ydata(), kept.mean("member"))
    assert len(ax.collections) == 1  # the band of the members
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_xlabel() == "wavenumber [1/km]"
    assert ax.get_ylabel() == "mean power of a mode [(K)^2]"
    assert (members.get_color(), members.get_linestyle()) != (
        first.get_color(),
        first.get_linestyle(),
    )


def curve(levels: int, scale: float = 1.0) -> xr.DataArray:
    step = np.arange(500, 5001, 500)
    values = scale * (0.1 + np.exp(-step[:, None] / 2000) * np.linspace(1, 2, levels))
    return xr.DataArray(
        values,
        dims=("step", "log_kappa"),
        coords={"step": step, "log_kappa": np.linspace(-4, 3, levels)},
        name="validation loss",
    )


def test_learning_curves_have_a_panel_for_each_noise_level_on_one_scale() -> None:
    runs = {"with base": curve(6), "without base": curve(6, 2.0).isel(step=slice(7))}
    fig = plot.learning_curves(runs)
    drawn = [ax for ax in fig.axes if ax.get_visible()]
    assert len(drawn) == 6 and drawn[2].get_title() == "log kappa = -1.2"
    for j, ax in enumerate(drawn):
        for line, run in zip(ax.lines, runs.values(), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), run.step)
            np.testing.assert_array_equal(line.get_ydata(), run[:, j])
        assert ax.get_yscale() == "log" and ax.get_ylim() == drawn[0].get_ylim()
    assert fig.get_supylabel() == "validation loss"
    assert [t.get_text() for t in fig.legends[0].get_texts()] == list(runs)
    single = plot.learning_curves({"a": curve(6).mean("log_kappa")})
    assert len(single.axes) == 1


def long_named() -> tuple[xr.DataArray, xr.DataArray]:
    truth, ens = fields()
    attrs = {"long_name": "sea surface temperature at the foundation depth, bias corrected"}
    wide = {"latitude": LATITUDE / 10 - 5, "longitude": LONGITUDE * 8}
    return truth.assign_coords(wide).assign_attrs(attrs), ens.assign_coords(wide)


def hovmoeller() -> tuple[xr.DataArray, xr.DataArray]:
    time = np.datetime64("2000-01-01") + np.arange(9) * np.timedelta64(6, "h")
    truth, ens = (f.rename(latitude="time", longitude="x") for f in fields())
    return truth.assign_coords(time=time), ens.assign_coords(time=time)


@pytest.mark.parametrize("make", [fields, long_named, hovmoeller])
@pytest.mark.parametrize("other", [False, True])
def test_no_text_is_drawn_over_another(make: object, other: bool) -> None:
    truth, ens = make()  # type: ignore[operator]
    seen = truth.where(truth > 281)
    sensors = (seen * 1e-5).rename("solution").assign_attrs(units="kg m-2 s-1") if other else seen
    assert_no_text_overlaps(plot.recovery(truth, ens, sensors))
    assert_no_text_overlaps(plot.maps(ens, truth))


def test_no_text_is_drawn_over_another_in_curves_and_ranks() -> None:
    truth, ens = fields()
    assert_no_text_overlaps(plot.learning_curves({"with base": curve(8), "without": curve(8, 2)}))
    assert_no_text_overlaps(plot.rank_histogram(score.rank_histogram(ens, truth)))


def test_the_overlap_test_sees_an_overlap() -> None:
    fig = Figure()
    fig.text(0.5, 0.5, "one")
    fig.text(0.51, 0.5, "two")
    with pytest.raises(AssertionError, match="drawn over"):
        assert_no_text_overlaps(fig)


def test_pictures_change_nothing_global() -> None:
    before = dict(mpl.rcParams)
    truth, ens = fields()
    plot.recovery(truth, ens)
    plot.fan(ens[:, 0])
    assert dict(mpl.rcParams) == before
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def test_save_writes_a_whole_file_or_none(tmp_path: Path) -> None:
    truth, ens = fields()
    fig = plot.rank_histogram(score.rank_histogram(ens, truth))
    path = plot.save(fig, tmp_path / "new" / "ranks.png")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert plot.save(fig, tmp_path / "ranks.pdf").read_bytes()[:5] == b"%PDF-"
    with pytest.raises(InputError, match=r"unknown suffix '.pgn'.*Did you mean 'png'"):
        plot.save(fig, tmp_path / "ranks.pgn")

    def fail(*args: object, **kwargs: object) -> None:
        path.with_name(".half").write_bytes(b"half")
        raise OSError("disk full")

    old = path.read_bytes()
    fig.savefig = fail  # type: ignore[method-assign]
    with pytest.raises(OSError, match="disk full"):
        plot.save(fig, path)
    assert path.read_bytes() == old


TRUTH, ENS = fields()
BAD = {
    "several cases": (lambda: plot.maps(ENS.expand_dims(time=3)), r"select with \.isel"),
    "a series": (lambda: plot.maps(ENS[:, 0]), "plot.fan"),
    "no members": (lambda: plot.maps(TRUTH), "expected an ensemble with dim 'member'"),
    "one member": (lambda: plot.recovery(TRUTH, ENS[:1]), "at least 2"),
    "other points": (
        lambda: plot.recovery(TRUTH, ENS.assign_coords(latitude=LATITUDE + 1)),
        "differs first",
    ),
    "sensors without places": (
        lambda: plot.recovery(TRUTH, ENS, xr.DataArray([1.0, 2.0], dims="station")),
        "one dim with coordinates 'latitude' and 'longitude'",
    ),
    "no sensors": (lambda: plot.recovery(TRUTH, ENS, TRUTH * np.nan), "NaN everywhere"),
    "a map in a fan": (lambda: plot.fan(ENS), "'member' and one more dim"),
    "a level in per cent": (lambda: plot.fan(ENS[:, 0], levels=(90,)), r"shares in \(0, 1\)"),
    "counts by row": (
        lambda: plot.rank_histogram(score.rank_histogram(ENS, TRUTH, over="longitude")),
        "sum over the other dims",
    ),
    "no spectra": (lambda: plot.spectrum({}), "nothing to draw"),
    "a field as spectrum": (lambda: plot.spectrum({"u": TRUTH}), "expected 'wavenumber'"),
    "other levels": (
        lambda: plot.learning_curves({"a": curve(3), "b": curve(4)}),
        "'b' has other dims or levels",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_drawn_is_refused(case: str) -> None:
    draw, said = BAD[case]
    with pytest.raises(InputError, match=said):
        draw()
