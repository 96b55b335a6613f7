"""Pictures of series: bands are the quantiles, gaps are where members differ."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from sciddm import cli, plot, score
from sciddm.errors import InputError

HELPERS = runpy.run_path(str(Path(__file__).with_name("test_plot.py")))
assert_no_text_overlaps = HELPERS["assert_no_text_overlaps"]
RNG = np.random.default_rng(0)
TIME = np.datetime64("2013-01-01", "ns") + np.arange(200) * np.timedelta64(1, "h")
ATTRS = {"long_name": "air temperature", "units": "K"}


def filled(items: int = 2) -> tuple[xr.Dataset, xr.Dataset, np.ndarray]:
    """Members of series with gaps, the truth, and what was missing (item, time)."""
    truth = RNG.normal(280, 3, (items, 200)).cumsum(-1) / 20
    missing = np.zeros((items, 200), bool)
    missing[0, 60:90], missing[0, 150], missing[-1, 10:20] = True, True, True
    draws = truth + np.where(missing, RNG.normal(size=(30, items, 200)), 0.0)
    coords = {"item": [f"s{i}" for i in range(items)], "time": TIME}
    one = xr.DataArray(draws, coords, ("member", "item", "time"), attrs=ATTRS)
    true = xr.DataArray(truth, coords, ("item", "time"), attrs=ATTRS)
    return one.to_dataset(name="temp"), true.to_dataset(name="temp"), missing


RESULT, TRUE, MISSING = filled()


def lines(ax: Axes, label: str) -> list[np.ndarray]:
    return [np.asarray(li.get_ydata(), float) for li in ax.lines if li.get_label() == label]


def bands(ax: Axes, label: str) -> list[np.ndarray]:
    return [c.get_paths()[0].vertices[:, 1] for c in ax.collections if c.get_label() == label]


def texts(fig: Figure) -> list[str]:
    return [t.get_text() for t in fig.legends[0].get_texts()]


def test_gaps_hold_the_quantiles_of_the_members_between_the_known_points() -> None:
    fig = plot.series.gaps(RESULT, TRUE, levels=(0.5, 0.9))
    first, second = fig.axes
    assert first.get_title() == "s0 air temperature [K]"
    for ax, i, runs in ((first, 0, ((59, 91),)), (second, 1, ((9, 21),))):
        ens = RESULT.temp.values[:, i]
        for band, median, true, (a, b) in zip(
            bands(ax, "90 %"), lines(ax, "median"), lines(ax, "truth"), runs, strict=True
        ):
            low, high = np.quantile(ens[:, a:b], [0.05, 0.95], 0, method="weibull")
            assert band.min() == pytest.approx(low.min())
            assert band.max() == pytest.approx(high.max())
            np.testing.assert_allclose(median, np.median(ens[:, a:b], 0))
            np.testing.assert_allclose(true, TRUE.temp.values[i, a:b])
        (seen,) = lines(ax, "known")
        start = 60 - 45 if i == 0 else 0
        expected = np.where(MISSING[i], np.nan, TRUE.temp.values[i])
        np.testing.assert_allclose(seen, expected[start : start + len(seen)])
    assert texts(fig) == ["90 %", "50 %", "median", "truth", "known"]
    assert_no_text_overlaps(fig)


def test_a_ragged_result_is_drawn_item_by_item_at_its_own_times() -> None:
    parts = [RESULT.temp.values[:, 0, 40:110], RESULT.temp.values[:, 1, :30]]
    ragged = xr.Dataset(
        {
            "temp": (("member", "obs"), np.concatenate(parts, 1), ATTRS),
            "row_size": (("item",), [70, 30], {"sample_dimension": "obs"}),
        },
        {"time": ("obs", np.concatenate([TIME[40:110], TIME[:30]])), "item": ["a", "b"]},
    )
    fig = plot.series.gaps(ragged)
    assert [ax.get_title() for ax in fig.axes] == ["a air temperature [K]", "b air temperature [K]"]
    median = np.median(parts[1][:, 9:21], 0)
    np.testing.assert_allclose(lines(fig.axes[1], "median")[0], median)
    single = plot.series.draw(RESULT.isel(item=0, drop=True))
    assert len(single.axes) == 1


def forecast() -> tuple[xr.Dataset, xr.Dataset]:
    lead = (np.arange(1, 13) * np.timedelta64(1, "h")).astype("m8[ns]")
    start = TIME[150]
    draws = TRUE.temp.sel(time=start + lead).values + RNG.normal(size=(40, 2, 12))
    ens = xr.Dataset(
        {"temp": (("member", "item", "lead_time"), draws, ATTRS)},
        {"lead_time": lead, "init_time": start, "valid_time": ("lead_time", start + lead),
         "item": TRUE.item},
    )  # fmt: skip
    return ens, TRUE


def test_forecasts_go_on_from_the_past_at_the_times_for_which_they_hold() -> None:
    ens, record = forecast()
    past = record.isel(time=slice(0, 151))
    fig = plot.series.forecasts(ens, record, past=past, context=2.0)
    assert [ax.get_title() for ax in fig.axes] == [f"s{i} air temperature [K]" for i in range(2)]
    for i, ax in enumerate(fig.axes):
        (median,), (true,), (before,) = (lines(ax, k) for k in ("median", "truth", "past"))
        np.testing.assert_allclose(median[1:], np.median(ens.temp.values[:, i], 0))
        np.testing.assert_allclose(true, record.temp.values[i, 151:163])
        np.testing.assert_allclose(before, record.temp.values[i, 127:151])
        assert median[0] == before[-1]
    assert_no_text_overlaps(fig)
    assert len(plot.series.draw(ens).axes) == 2


def test_the_band_of_the_pit_holds_a_calibrated_histogram_as_often_as_it_says() -> None:
    truth = xr.DataArray(RNG.normal(size=4000), dims="case")
    ens = xr.DataArray(RNG.normal(size=(39, 4000)), dims=("member", "case"))
    values = score.pit(ens, truth)
    (ax,) = plot.series.pit(values, bins=20).axes
    height = np.array([bar.get_height() for bar in ax.patches if bar.get_width() == 0.05])
    np.testing.assert_allclose(height, np.histogram(values, 20, (0, 1))[0] / 200)
    (band,) = (p for p in ax.patches if p.get_label() == "95 % if calibrated")
    low, high = band.get_y(), band.get_y() + band.get_height()
    assert stats.binom(4000, 0.05).cdf(high * 200) - stats.binom(4000, 0.05).cdf(
        low * 200 - 1
    ) == pytest.approx(0.95, abs=0.01)
    inside = ((height >= low) & (height <= high)).mean()
    assert inside >= 0.8
    (few,) = plot.series.pit(values, independent=100).axes
    assert next(p for p in few.patches if p.get_label()).get_height() > 4 * band.get_height()
    narrow = score.pit(0.3 * ens, truth)
    (bad,) = plot.series.pit(narrow).axes
    assert max(bar.get_height() for bar in bad.patches) > 3


def test_a_result_of_series_is_known_by_its_labels_and_drawn_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = RESULT.assign_attrs(known_values="exact")
    ours["item"].attrs["cf_role"] = "timeseries_id"
    assert plot.series.drawn(ours) and plot.series.drawn(ours.isel(item=0, drop=True))
    field = ours.rename(item="y")
    field["y"].attrs.clear()
    assert not plot.series.drawn(RESULT.drop_attrs()) and not plot.series.drawn(field)
    ours.to_netcdf(tmp_path / "filled.nc", engine="h5netcdf")
    TRUE.to_netcdf(tmp_path / "truth.nc", engine="h5netcdf")
    names = [str(tmp_path / n) for n in ("filled.nc", "truth.nc", "gaps.png")]
    assert cli.main(["plot", names[0], "--truth", names[1], "-o", names[2], "--json"]) == 0
    assert '"temp"' in capsys.readouterr().out and Path(names[2]).stat().st_size > 10_000


def test_refusals_are_one_line() -> None:
    ens, _ = forecast()
    same = RESULT.isel(member=[0]).isel(time=slice(100, 120))
    for call, said in (
        (lambda: plot.series.gaps(TRUE), "needs members"),
        (lambda: plot.series.gaps(same), "nothing was missing"),
        (lambda: plot.series.gaps(RESULT, levels=(1.5,)), "shares in"),
        (lambda: plot.series.forecasts(RESULT), "from sd.forecast"),
        (lambda: plot.series.gaps(RESULT.expand_dims(case=2)), "at most one dim"),
        (lambda: plot.series.pit(TRUE.temp), "score.pit"),
    ):
        with pytest.raises(InputError, match=said):
            call()
    assert isinstance(plot.series.forecasts(ens), Figure)
