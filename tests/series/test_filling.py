"""Series filled, forecast and made: exact laws by the labelled road, known values kept, members
that do not depend on each other, the same numbers whatever form the series came in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import Tensor

import sciddm as sd
from sciddm import completion, filling
from sciddm.completion import Completion, windows
from sciddm.data import masks, measure, ragged
from sciddm.data.clock import Clock
from sciddm.data.items import Draws, Item, Items, of
from sciddm.data.series import SeriesCodec
from sciddm.errors import InputError, RunError
from sciddm.random import Streams
from sciddm.series.gp import GaussianSeries
from sciddm.series.kernel import Matern32, Mixed, OrnsteinUhlenbeck, Term
from sciddm.series.panel import Panel

ROOT = Path(__file__).parents[2]
HOUR = np.timedelta64(1, "h")
START = np.datetime64("2021-03-01", "ns")
LENGTH = 9.0


def law(channels: int = 1) -> Mixed:
    """Channels that go together, and a little white."""
    loads = torch.tensor([[0.8], [0.5]], dtype=torch.float64)[:channels]
    own = torch.full((channels,), 0.4, dtype=torch.float64)
    rough = Term(OrnsteinUhlenbeck(3.0), torch.zeros(channels, 0, dtype=torch.float64), own / 2)
    return Mixed((Term(Matern32(LENGTH), loads, own), rough), 0.05 * torch.ones(channels).double())


def codec(channels: int = 1, **numbers: object) -> SeriesCodec:
    names = ("a", "b")[:channels] if channels > 1 else ("target",)
    clock = Clock("hours", "2021-03-01", 1.0)
    count = np.arange(1.0, channels + 1)
    plain = {"mean": 10.1 * count, "std": 2.3 * count}
    return SeriesCodec(names, {}, clock=clock, **{**plain, **numbers})  # type: ignore[arg-type]


def model(channels: int = 1, **numbers: object) -> sd.Model:
    made = codec(channels, **numbers)
    task = sd.Task(sd.View(made.names), sample="item")
    return sd.Model(task, made, GaussianSeries(law(channels)))


def series(rows: int = 50, channels: int = 1, count: int = 3, seed: int = 0) -> Items:
    """Items of the law itself, with holes."""
    rng, items = np.random.default_rng(seed), []
    made = model(channels)
    for k in range(count):
        time = START + np.arange(rows) * HOUR
        blank = Item(f"s{k}", time, np.full((rows, channels), np.nan))
        coded = made.cells.encode(blank)
        drawn = made.series.draw(coded.panel, Streams.of(seed + 1, 1, k))
        values = made.cells.decode(drawn[0], coded)[0]
        values[rng.random(values.shape) < 0.3] = np.nan
        values[20:25] = np.nan
        items.append(replace(blank, values=values))
    return Items(made.cells.names, tuple(items))


def textbook(item: Item, made: SeriesCodec, std: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of all values (n C,) given the known ones, in physical units: dense
    Gaussian conditioning, numpy alone."""
    n, count = item.values.shape
    t = (item.time - START) / HOUR
    gap = np.abs(t[:, None] - t)
    r = np.sqrt(3) * gap / LENGTH
    smooth, rough = (1 + r) * np.exp(-r), np.exp(-gap / 3)
    loads = np.array([0.8, 0.5])[:count]
    cov = np.kron(smooth, np.outer(loads, loads) + 0.4 * np.eye(count))
    cov += np.kron(rough, 0.2 * np.eye(count)) + 0.05 * np.eye(n * count)
    scale, mean = np.tile(made.std, n), np.tile(made.mean, n)
    cov, y = cov * scale[:, None] * scale, item.values.reshape(-1)
    known = np.isfinite(y)
    inner = np.linalg.inv(cov[np.ix_(known, known)] + std**2 * np.eye(known.sum()))
    gain = cov[:, known] @ inner
    return mean + gain @ (y - mean)[known], cov - gain @ cov[known]


@pytest.mark.parametrize("channels", [1, 2])
def test_imputation_is_the_textbook_posterior(channels: int) -> None:
    items = series(channels=channels, count=1)
    made = model(channels)
    found = Completion(made, items, None, 4000).draw().values[0].reshape(4000, -1)
    mean, cov = textbook(items.items[0], made.cells)
    gone = ~np.isfinite(items.items[0].values.reshape(-1))
    spread = np.sqrt(np.diag(cov)[gone])
    error = (found.mean(0) - mean)[gone] / spread
    assert np.abs(error).max() < 4.5 / np.sqrt(4000)
    sample = np.cov(found[:, gone].T)
    size = np.sqrt(np.outer(spread**2, spread**2) + cov[np.ix_(gone, gone)] ** 2)
    assert (np.abs(sample - cov[np.ix_(gone, gone)]) / size).max() < 5 / np.sqrt(4000)
    # what is known stands in every member, to the bit
    kept = items.items[0].values.reshape(-1)[~gone]
    assert np.array_equal(found[:, ~gone], np.broadcast_to(kept, (4000, kept.size)))


def test_known_values_with_an_error_are_drawn_within_it() -> None:
    items, made = series(count=1), model()
    found = Completion(made, items, None, 4000, 0, 1.5).draw().values[0][:, :, 0]
    mean, cov = textbook(items.items[0], made.cells, 1.5)
    spread = np.sqrt(np.diag(cov))
    assert np.abs((found.mean(0) - mean) / spread).max() < 4.5 / np.sqrt(4000)
    assert np.abs(found.var(0) / spread**2 - 1).max() < 5 * np.sqrt(2 / 4000)
    known = np.isfinite(items.items[0].values[:, 0])
    assert (found[:, known].std(0) < 1.5).all() and (found[:, known].std(0) > 0).all()


def test_a_member_is_the_same_whatever_is_drawn_with_it() -> None:
    items, made = series(), model()
    every = Completion(made, items, None, 40, 7).draw()
    few = Completion(made, items, None, 3, 7).draw()
    one = Completion(made, items.only(items.items[2:]), None, 5, 7).draw()
    turned = Completion(made, items.only(items.items[::-1]), None, 3, 7).draw()
    assert np.array_equal(every.values[2][:5], one.values[0])
    for k in range(3):
        assert np.array_equal(every.values[k][:3], few.values[k])
        assert np.array_equal(turned.values[2 - k], few.values[k])
    twins = items.only([items.items[0], replace(items.items[0], name="twin")])
    a, b = Completion(made, twins, None, 2, 7).draw().values
    assert not np.isclose(a, b)[:, np.isnan(items.items[0].values[:, 0])].any()
    assert not np.array_equal(Completion(made, items, None, 3, 8).draw().values[0], few.values[0])


def forms(items: Items) -> dict[str, object]:
    """The same series of one variable as each kind of input."""
    long = pd.concat(
        pd.DataFrame({"item_id": i.name, "timestamp": i.time, "target": i.values[:, 0]})
        for i in items
    )
    wide = long.pivot(index="timestamp", columns="item_id", values="target")
    ds = ragged.dataset(items, ragged.Labelled())
    return {
        "long frame": long,
        "wide frame": of(wide, columns_are_items=True),
        "Dataset": ds,
        "ragged Dataset": ragged.dataset(items),
        "Items": items,
    }


def back(result: object) -> dict[str, np.ndarray]:
    """(M, n) of each item, from any form."""
    if isinstance(result, pd.DataFrame) and "target" not in result:
        wide = result.reset_index()
        time = next(c for c in wide if wide[c].dtype.kind == "M")
        names = [c for c in wide if str(c).startswith("s")]
        return {n: wide.pivot(index="member", columns=time, values=n).to_numpy() for n in names}
    if isinstance(result, pd.DataFrame):
        return {
            str(n): part.pivot(index="member", columns="timestamp", values="target").to_numpy()
            for n, part in result.groupby("item_id")
        }
    assert isinstance(result, xr.Dataset)
    if "row_size" in result:
        cuts = np.cumsum(result["row_size"].values)[:-1]
        parts = np.split(result["target"].values, cuts, axis=1)
        return dict(zip(map(str, result["item"].values), parts, strict=True))
    return {str(n): result["target"].sel(item=n).values for n in result["item"].values}


@pytest.mark.parametrize("verb", ["impute", "forecast"])
def test_every_route_gives_the_same_numbers(verb: str, tmp_path: Path) -> None:
    items, made = series(), model()
    inputs = forms(items)
    path = tmp_path / "gauges.csv"
    inputs["long frame"].to_csv(path, index=False)  # type: ignore[attr-defined]
    inputs["CSV"] = str(path)
    ask = sd.impute if verb == "impute" else sd.forecast
    more = {} if verb == "impute" else {"steps": 6}
    found = {k: back(ask(made, v, members=5, seed=2, **more)) for k, v in inputs.items()}
    first = found["long frame"]
    assert first["s0"].shape == (5, 50 if verb == "impute" else 6)
    for name, result in found.items():
        assert sorted(result) == sorted(first), name
        for item, values in result.items():
            np.testing.assert_allclose(values, first[item], rtol=1e-6, atol=1e-6, err_msg=name)


def test_a_forecast_is_the_textbook_posterior_of_times_to_come() -> None:
    items, made = series(count=1), model()
    out = sd.forecast(made, ragged.dataset(items, ragged.Labelled()), steps=5, members=4000)
    assert out["target"].dims == ("member", "item", "lead_time")
    assert out["lead_time"].values.tolist() == [int(h * 3600e9) for h in range(1, 6)]
    assert out["init_time"].values == items.items[0].time[-1]
    item = items.items[0]
    values = np.vstack([item.values, np.full((5, 1), np.nan)])
    longer = Item("s0", START + np.arange(55) * HOUR, values)
    mean, cov = textbook(longer, made.cells)
    x, spread = out["target"].values[:, 0], np.sqrt(np.diag(cov)[50:])
    assert np.abs((x.mean(0) - mean[50:]) / spread).max() < 4.5 / np.sqrt(4000)
    assert np.abs(x.var(0) / spread**2 - 1).max() < 5 * np.sqrt(2 / 4000)


def test_forecasts_of_several_starts_know_nothing_of_what_came() -> None:
    items, made = series(count=2), model()
    ds = ragged.dataset(items, ragged.Labelled())
    starts = [START + 30 * HOUR, START + 40 * HOUR]
    both = sd.forecast(made, ds, steps=4, members=6, start=starts)
    assert both["target"].dims == ("init_time", "member", "item", "lead_time")
    cut = items.only([i.rows(slice(0, 31)) for i in items])
    alone = sd.forecast(made, ragged.dataset(cut, ragged.Labelled()), steps=4, members=6,
                        start=starts[0])  # fmt: skip
    assert np.array_equal(both["target"].values[0], alone["target"].values)


def test_the_first_leads_do_not_depend_on_how_many_are_asked_for() -> None:
    items, made = series(), model(masks=masks.Ahead(6), window=40)
    few, many = (filling.ahead(made, items, steps=n, members=3, seed=1)[0] for n in (2, 6))
    for a, b in zip(few.values, many.values, strict=True):
        assert a.shape[1] == 2 and np.array_equal(a, b[:, :2])


def test_gaps_of_a_long_series_are_each_drawn_by_one_window_with_both_sides() -> None:
    rng = np.random.default_rng(3)
    wanted = rng.random((5000, 2)) < 0.02
    wanted[1000:1040, 0] = wanted[2500:2560] = wanted[4990:] = wanted[:3] = True
    item = Item("x", START + np.arange(5000) * HOUR, np.where(wanted, np.nan, 1.0))
    parts = windows(item, wanted, 100)
    given = np.zeros_like(wanted, dtype=int)
    for rows, own in parts:
        assert rows.stop - rows.start == 100 and rows.start >= 0 and rows.stop <= 5000
        given[rows] += own
        assert not (own & ~wanted[rows]).any()
        for c in range(2):  # a gap that is given out begins and ends within the window
            edges = np.flatnonzero(np.diff(np.concatenate([[0], own[:, c].astype(int), [0]])))
            for a, b in edges.reshape(-1, 2):
                left, right = rows.start + a - 1, rows.start + b
                assert left < 0 or not wanted[left, c]
                assert right >= 5000 or not wanted[right, c]
                assert left < 0 or a >= 1
                assert right >= 5000 or b <= 99
    assert np.array_equal(given, wanted.astype(int))
    with pytest.raises(InputError, match="a gap of 60 rows.*hold 50"):
        windows(item, wanted, 50)


def test_windows_around_gaps_are_the_whole_series_to_a_law_that_forgets() -> None:
    items = series(rows=300, count=1, seed=4)
    values = items.items[0].values.copy()
    values[200:206] = np.nan
    items = items.only([replace(items.items[0], values=values)])
    whole, parts = model(), model(window=150)
    a = Completion(whole, items, None, 1000).draw().values[0][:, :, 0]
    cut = Completion(parts, items, None, 1000)
    b = cut.draw().values[0][:, :, 0]
    assert len(cut.parts()) > 2
    for _, rows, own in cut.parts():  # what a window gives out is its own draw, of one piece
        drawn = cut.window(items.items[0].rows(rows), own)[:, own[:, 0], 0]
        assert np.array_equal(b[:, rows][:, own[:, 0]], drawn)
    mean, cov = textbook(items.items[0], whole.cells)
    spread = np.sqrt(np.diag(cov).clip(1e-18))
    gone = np.isnan(values[:, 0])
    for x in (a, b):
        assert np.abs((x.mean(0) - mean) / spread)[gone].max() < 5 / np.sqrt(1000)
        assert np.abs(x.var(0) / spread**2 - 1)[gone].max() < 6 * np.sqrt(2 / 1000)


def test_absent_rows_and_further_times_are_drawn() -> None:
    items, made = series(count=1), model()
    item = items.items[0]
    absent = np.delete(np.arange(50), [11, 12, 31])
    thin = items.only([item.rows(absent)])
    blank = item.values.copy()
    blank[[11, 12, 31]] = np.nan
    full = items.only([replace(item, values=blank)])
    a, b = (Completion(made, i, None, 4).draw() for i in (thin, full))
    assert np.array_equal(a.values[0], b.values[0]) and len(a.items.items[0]) == 50
    at = [item.time[-1] + 2 * HOUR, item.time[-1] + 4 * HOUR]
    more = filling.imputed(made, items, members=2, at=at)
    assert len(more.items.items[0]) == 54  # every step up to it
    loose = replace(made.cells, clock=Clock("hours", "2021-03-01"))
    between = filling.imputed(replace(made, codec=loose), items, members=2,
                              at=[START + np.timedelta64(90, "m")])  # fmt: skip
    assert len(between.items.items[0]) == 51 and np.isfinite(between.values[0]).all()


def test_new_series_have_the_law() -> None:
    new = sd.generate(model(2), members=3000, length=6)
    assert new["a"].dims == ("member", "time")
    assert str(new["time"].values[1])[:13] == "2021-03-01T01"
    x = np.stack([(new["a"] - 10.1) / 2.3, (new["b"] - 20.2) / 4.6], -1).reshape(3000, -1)
    blank = Item("", START + np.arange(6) * HOUR, np.full((6, 2), np.nan))
    _, cov = textbook(blank, replace(codec(2), std=np.ones(2)))
    assert np.abs(np.cov(x.T) - cov).max() < 6 * cov.max() / np.sqrt(3000)


def test_intervals_take_the_place_of_members() -> None:
    items, made = series(count=1), model()
    frame = forms(items)["long frame"]
    out = sd.impute(made, frame, members=400, levels=(80,))
    assert list(out)[2:] == ["target", "target-median", "target-lo-80", "target-hi-80"]
    assert len(out) == 50
    gone = ~np.isfinite(items.items[0].values[:, 0])
    _, cov = textbook(items.items[0], made.cells)
    width = (out["target-hi-80"] - out["target-lo-80"]).to_numpy()
    assert np.allclose(width[~gone], 0)
    assert np.allclose(width[gone] / (2 * 1.2816 * np.sqrt(np.diag(cov)[gone])), 1, atol=0.25)


class Lost(GaussianSeries):
    def draw(self, panel: Panel, rng: Streams) -> Tensor:
        return super().draw(panel, rng) / 0


def test_a_member_that_diverges_is_said_with_its_item() -> None:
    items, made = series(), model()
    broken = replace(made, sampler=Lost(law()))
    with pytest.raises(RunError, match="Member 0 of item 's0' diverged between 2021-03-01 and"):
        sd.impute(broken, items, members=3)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda m, i: sd.recover(m, sd.Observed(xr.DataArray(1.0), 1.0)), "not fields"),
        (lambda m, i: sd.forecast(m, i, steps=9, forcings=xr.Dataset()), "forcings"),
        (lambda m, i: sd.forecast(m, i, steps=3000), "windows hold 2048"),
        (lambda m, i: sd.impute(m, i, std=-1.0), "positive numbers"),
        (lambda m, i: sd.impute(m, i, members=0), "0 for members"),
        (lambda m, i: sd.generate(m, steps=5), "leave them out"),
        (lambda m, i: sd.forecast(m, i, start="1999-01-01"), "None of 3 items"),
        (lambda m, i: sd.impute(m, i, at=["noon"]), "expected dates"),
        (lambda m, i: m.forecaster, "not fields"),
        (lambda m, i: sd.forecast(replace(m, codec=replace(m.cells, masks=masks.Ahead(4))), i,
                                  steps=5), "trained on 4"),
        (lambda m, i: sd.impute(m, pd.DataFrame({"timestamp": i.items[0].time[:3], "a": 1.0,
                                                 "b": 2.0})), "no variable 'target'"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_in_one_line(ask: object, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        ask(model(), series())  # type: ignore[operator]
    assert "\n" not in str(error.value)


def test_an_item_without_values_is_skipped_by_name() -> None:
    items = series()
    empty = replace(items.items[1], values=np.full((50, 1), np.nan))
    with pytest.warns(UserWarning, match="1 of 3 items have no value.*'s1'"):
        out = sd.forecast(model(), items.only([items.items[0], empty, items.items[2]]), steps=2,
                          members=2)  # fmt: skip
    assert sorted(out["item_id"].unique()) == ["s0", "s2"]


def test_a_spike_is_the_strangest_stretch() -> None:
    items, made = series(rows=120, count=2, seed=9), model()
    values = np.where(np.isnan(items.items[0].values), 10.0, items.items[0].values)
    odd = values.copy()
    odd[77] += 40
    train = items.only([replace(items.items[0], values=values)])
    test = items.only([replace(items.items[0], values=odd)])
    for more in ({}, {"against": train}):
        out = sd.anomaly(made, ragged.dataset(test, ragged.Labelled()), rows=16, every=4, **more)
        at = pd.Timestamp(out["time"].values[int(np.argmax(out["anomaly"].values[0]))])
        assert pd.Timestamp(START + 77 * HOUR) <= at < pd.Timestamp(START + 93 * HOUR)
    part = train.items[0].rows(slice(4, 20))
    scores = sd.anomaly(made, train.only([part]), rows=16).items[0].values
    mean, cov = textbook(replace(part, values=np.full((16, 1), np.nan)), made.cells)
    z = (part.values[:, 0] - mean) / made.cells.std
    cov = cov / made.cells.std**2
    nats = 0.5 * (z @ np.linalg.solve(cov, z) + np.linalg.slogdet(2 * np.pi * cov)[1]) / 16
    assert scores[0, 0] == pytest.approx(nats, rel=1e-6)


def test_a_model_of_series_is_saved_and_refuses_fields(tmp_path: Path) -> None:
    made = model(2, item=measure.Centred(), typical=np.ones((2, 2)), masks=masks.Ahead(3))
    again = sd.load(made.save(tmp_path / "gp"))
    items = series(channels=2)
    a, b = (Completion(m, items, None, 3).draw().values for m in (made, again))
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    for name in ("fields", "diffusion", "forecaster"):
        with pytest.raises(InputError, match="sd.impute"):
            getattr(again, name)
    wrong = replace(again, codec=again.codec, sampler=again.sampler)
    assert wrong.series is again.sampler and completion.longest(again.cells) == 1024


def test_gaps_of_fields_are_filled_through_recover() -> None:
    poisson = sd.load(ROOT / "models/poisson")
    whole = sd.generate(poisson, members=1, seed=5).isel(member=0, drop=True)
    seen = np.random.default_rng(0).random(whole["solution"].shape) < 0.1
    full = sd.impute(poisson, whole.where(xr.DataArray(seen, whole["solution"].coords)), members=1)
    for name in whole:
        miss = (full[name] - whole[name]).values[0] / float(whole[name].std())
        assert np.isfinite(miss).all() and np.abs(miss[seen]).std() < 0.02
        assert np.abs(miss).std() < 0.15
    assert full.attrs["known_values"] == "within their error" and "known_std" in full.attrs
    with pytest.raises(InputError, match="not series"):
        poisson.series  # noqa: B018
    with pytest.raises(InputError, match="None of .*variable of the model"):
        sd.impute(poisson, xr.Dataset({"target": (("x",), np.ones(4))}))


def test_known_values_are_the_mean_of_their_members_to_the_last_digit() -> None:
    x = np.array([31.6, 316.1, np.nan, 95.3, 0.1])
    held = np.where(np.isnan(x), 1.0, x)[None, :, None].repeat(7, 0)
    held[:, 2, 0] = np.arange(7) / 3
    item = Item("one", np.arange(5.0), x[:, None])
    columns = Draws(Items(("x",), (item,)), (held,)).columns(0, (90,))
    known = np.isfinite(x)
    assert (columns["x"][known] == x[known]).all()
    assert columns["x"][2] == pytest.approx(1.0) and columns["x-lo-90"][2] < 0.2
