"""Pictures of forecasts: what is drawn is the score, at its lead or valid time, on one scale."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import same_color
from matplotlib.dates import date2num

from sciddm import plot, score
from sciddm.errors import InputError

HELPERS = runpy.run_path(str(Path(__file__).with_name("test_plot.py")))
assert_no_text_overlaps, mesh = HELPERS["assert_no_text_overlaps"], HELPERS["mesh"]
START = np.datetime64("2019-03-27T00", "ns")
HOURS = (3 * np.arange(1, 9) * np.timedelta64(1, "h")).astype("timedelta64[ns]")


def forecast(starts: int = 6) -> tuple[xr.DataArray, xr.DataArray]:
    rng = np.random.default_rng(0)
    time = START - np.timedelta64(24, "h") + np.arange(80) * np.timedelta64(3, "h")
    coords = {
        "latitude": ("latitude", np.linspace(58, 50, 7), {"units": "degrees_north"}),
        "longitude": ("longitude", np.linspace(-10, 2, 9), {"units": "degrees_east"}),
    }
    attrs = {"long_name": "2 metre temperature", "units": "K"}
    record = xr.DataArray(
        rng.normal(280, 2, (80, 7, 9)),
        {"time": time, **coords},
        ("time", *coords),
        "t2m",
        attrs,
    )
    init = START + np.arange(starts) * np.timedelta64(12, "h")
    frame = xr.DataArray(
        rng.normal(size=(12, starts, 8, 7, 9)),
        {"init_time": init, "lead_time": HOURS, **coords},
        ("member", "init_time", "lead_time", *coords),
    )
    truth = score.at_leads(record, frame)
    size = xr.DataArray(np.sqrt(np.arange(1, 9)), dims="lead_time")
    ens = (truth + size * (frame + rng.normal(size=truth.shape))).transpose(*frame.dims)
    return ens.rename("t2m").assign_attrs(attrs), record


ENS, RECORD = forecast()
SCORES = score.by_lead(ENS, RECORD, block=2, joint=False)
PLAIN = score.by_lead(ENS + 1, RECORD, joint=False)


def test_scores_by_lead_are_the_lines_with_their_bands_and_the_ideal() -> None:
    fig = plot.by_lead({"ours": SCORES, "theirs": PLAIN}, floors={"floor": SCORES})
    panels = {ax.get_title(): ax for ax in fig.axes}
    assert list(panels) == ["fair CRPS", "RMSE of the mean", "spread / skill", "coverage"]
    for ax, name in zip(fig.axes, ("crps", "rmse", "spread_skill", "coverage"), strict=True):
        ours, theirs, floor = ax.lines[:3]
        np.testing.assert_allclose(ours.get_xdata(), 3 * np.arange(1, 9))
        np.testing.assert_allclose(ours.get_ydata(), SCORES[name])
        np.testing.assert_allclose(theirs.get_ydata(), PLAIN[name])
        np.testing.assert_allclose(floor.get_ydata(), SCORES[name])
        assert same_color(ours.get_color(), plot.LINES[0])
        assert same_color(theirs.get_color(), plot.LINES[1])
        (band,) = ax.collections  # of ours alone: theirs has none, a floor draws none
        edge = band.get_paths()[0].vertices[:, 1]
        low, high = SCORES[f"{name}_low"], SCORES[f"{name}_high"]
        np.testing.assert_allclose([edge.min(), edge.max()], [low.min(), high.max()])
        ideal = [line.get_ydata()[0] for line in ax.lines[3:]]
        assert ideal == {"spread_skill": [1.0], "coverage": [0.9]}.get(name, [])
        assert ax.get_ylabel() == ("K" if name in ("crps", "rmse") else "")
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["ours", "theirs", "floor"]
    assert fig.axes[-1].get_xlabel() == "lead time [h]"
    assert_no_text_overlaps(fig)
    assert_no_text_overlaps(
        plot.by_lead({"ours": SCORES}, ("crps", "mae", "bias", "rmse", "spread"))
    )


def test_spread_lies_over_error_with_the_correction_for_few_members() -> None:
    fig = plot.spread_skill({"ours": SCORES})
    (ax,) = fig.axes
    curve, ring, diagonal = ax.lines
    np.testing.assert_allclose(curve.get_xdata(), SCORES.rmse)
    np.testing.assert_allclose(curve.get_ydata(), SCORES.spread * np.sqrt(13 / 12))
    ratio = curve.get_ydata() / curve.get_xdata()
    np.testing.assert_allclose(ratio, SCORES.spread_skill, rtol=1e-10)
    np.testing.assert_allclose(ring.get_xydata()[0], curve.get_xydata()[0])
    np.testing.assert_allclose(diagonal.get_xdata(), diagonal.get_ydata())
    assert ax.get_xlim() == ax.get_ylim()
    assert_no_text_overlaps(fig)


def test_ranks_of_some_leads_are_the_counts() -> None:
    counts = SCORES.rank_histogram
    fig = plot.ranks_by_lead(counts, leads=3)
    shown = {ax.get_title(): ax for ax in fig.axes if ax.get_visible()}
    assert list(shown) == ["lead 3 h", "lead 15 h", "lead 24 h"]
    for ax, i in zip(shown.values(), (0, 4, 7), strict=True):
        heights = [bar.get_height() for bar in ax.patches]
        flat = float(counts[:, i].mean())
        np.testing.assert_allclose(heights, counts[:, i] / flat)
        assert ax.get_ylim() == next(iter(shown.values())).get_ylim()
    assert_no_text_overlaps(plot.ranks_by_lead(counts))


def test_spectra_by_lead_are_those_of_the_members_over_the_truth() -> None:
    dims = ("latitude", "longitude")
    fig = plot.spectra_by_lead(ENS, RECORD, dims, leads=2)
    above, below = fig.axes
    truth = score.at_leads(RECORD, ENS)
    for line, ratio, i in zip(above.lines[:2], below.lines[:2], (0, 7), strict=True):
        ours = score.power_spectrum(ENS.isel(lead_time=i), dims).mean(("member", "init_time"))
        theirs = score.power_spectrum(truth.isel(lead_time=i), dims).mean("init_time")
        kept = ((ours.wavenumber > 0) & (ours.wavenumber <= ours.nyquist * (1 + 1e-9))).values
        np.testing.assert_allclose(line.get_ydata(), ours[kept])
        np.testing.assert_allclose(ratio.get_ydata(), 10 * np.log10(ours / theirs)[kept])
    # The forecast's noise grows: rougher by the last lead.
    assert below.lines[1].get_ydata().mean() > below.lines[0].get_ydata().mean() + 1
    assert_no_text_overlaps(fig)


def test_maps_by_lead_share_a_scale_and_stand_in_columns() -> None:
    one = ENS.isel(init_time=2)
    fig = plot.lead_maps(one, RECORD, leads=3, members=2)
    maps = [ax for ax in fig.axes if ax.get_label() != "<colorbar>"]
    assert len(maps) == 5 * 3
    rows = [maps[i : i + 3] for i in range(0, 15, 3)]
    assert [row[0].get_ylabel().splitlines()[0] for row in rows] == [
        "truth", "mean of 12", "member 0", "member 1", "spread",
    ]  # fmt: skip
    assert [ax.get_title() for ax in rows[0]] == ["lead 3 h", "lead 15 h", "lead 24 h"]
    truth = score.at_leads(RECORD, one)
    for column, i in enumerate((0, 4, 7)):
        np.testing.assert_allclose(mesh(rows[0][column]).get_array(), truth[i])
        np.testing.assert_allclose(mesh(rows[1][column]).get_array(), one[:, i].mean("member"))
        np.testing.assert_allclose(mesh(rows[3][column]).get_array(), one[1, i])
        spread = one[:, i].std("member", ddof=1)
        np.testing.assert_allclose(mesh(rows[4][column]).get_array(), spread)
    assert len({id(mesh(ax).norm) for row in rows[:4] for ax in row}) == 1
    assert {mesh(ax).norm.vmin for ax in rows[4]} == {0.0}
    assert_no_text_overlaps(fig)
    assert_no_text_overlaps(plot.lead_maps(one.transpose("longitude", ...), leads=2, members=1))
    months = one.assign_coords(lead_time=("lead_time", np.arange(1, 9), {"units": "months"}))
    top = plot.lead_maps(months.drop_vars("longitude"), leads=2).axes[:2]
    assert [ax.get_title() for ax in top] == ["lead 1 month", "lead 8 months"]


def test_a_fan_runs_on_from_the_past_at_the_valid_times() -> None:
    point = {"latitude": 3, "longitude": 4}
    one, record = ENS.isel(init_time=2, **point), RECORD.isel(**point)
    start = one.init_time.values
    past = record.sel(time=slice(start - np.timedelta64(24, "h"), start))
    fig = plot.fan(one, record, past=past)
    (ax,) = fig.axes
    lines = {line.get_label(): line for line in ax.lines}
    valid = date2num(start + HOURS)
    np.testing.assert_allclose(date2num(lines["median"].get_xdata()), valid)
    np.testing.assert_allclose(lines["truth"].get_ydata(), record.sel(time=start + HOURS))
    np.testing.assert_allclose(lines["past"].get_ydata(), past)
    np.testing.assert_allclose(ax.get_xlim(), (date2num(past.time.values[0]), valid[-1]))
    assert ax.get_xlabel() == "time"
    assert_no_text_overlaps(fig)
    # A model calendar is drawn in years, on one axis with its past.
    days = xr.date_range("2000-06-01", periods=30, freq="MS", calendar="noleap", use_cftime=True)
    series = xr.DataArray(np.arange(30.0), {"time": days}, ("time",))
    lead = ("lead_time", [1, 2, 3], {"units": "months"})
    ens = xr.DataArray(
        np.zeros((3, 3)), {"init_time": days[20], "lead_time": lead}, ("member", "lead_time")
    )
    ax = plot.fan(ens, series, past=series[:21]).axes[0]
    assert ax.get_xlabel() == "time [year]"
    drawn = {line.get_label(): line.get_ydata() for line in ax.lines}
    np.testing.assert_array_equal(drawn["truth"], [21, 22, 23])


BAD = {
    "no such score": (lambda: plot.by_lead({"a": SCORES}, ("crsp",)), "Did you mean 'crps'"),
    "nothing": (lambda: plot.spread_skill({}), "nothing to draw"),
    "no scores": (lambda: plot.spread_skill({"a": RECORD.to_dataset()}), "'a' has no 'spread'"),
    "counts by latitude": (
        lambda: plot.ranks_by_lead(SCORES.rank_histogram.expand_dims(latitude=2)),
        "sum over the others",
    ),
    "several starts": (lambda: plot.lead_maps(ENS), "of one start"),
    "no leads": (lambda: plot.lead_maps(ENS[:, 0, 0]), "expected one of leads"),
    "too late": (
        lambda: plot.fan(ENS[:, 5, :, 0, 0], RECORD[:10, 0, 0]),
        "which the truth lacks",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_drawn_is_refused(case: str) -> None:
    draw, said = BAD[case]
    with pytest.raises(InputError, match=said):
        draw()
