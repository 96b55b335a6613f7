"""Series to panels and back: inverses, what is known, scales, clocks, windows by step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from sciddm.classes import CLASSES
from sciddm.data import masks, measure
from sciddm.data.clock import Clock
from sciddm.data.items import Item, Items, of
from sciddm.data.panels import Panels
from sciddm.data.series import SeriesCodec, stacked
from sciddm.errors import InputError
from sciddm.tree import Encoder, decode

RNG = np.random.default_rng(0)
SCALES = (None, measure.MeanAbsolute(), measure.Centred(), measure.FromLast())


def frame(rows: int = 60) -> pd.DataFrame:
    """Three stations of two variables, hourly, of several lengths and with holes."""
    time = pd.date_range("2020-01-31", periods=rows, freq="h")
    parts = []
    for k, name in enumerate("xyz"):
        n = rows - 7 * k
        a = RNG.standard_normal(n) + 5 * k
        b = np.exp(RNG.standard_normal(n))
        part = pd.DataFrame({"item_id": name, "timestamp": time[:n], "a": a, "b": b})
        part.loc[RNG.choice(n, 6), "a"] = np.nan
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def codec(items: Items, *, regular: bool, **numbers: object) -> SeriesCodec:
    return SeriesCodec.fit(items, Clock.of(items, regular=regular), **numbers)  # type: ignore


@pytest.mark.parametrize("regular", [True, False])
@pytest.mark.parametrize("scale", SCALES)
def test_decode_is_the_inverse_of_encode(regular: bool, scale: measure.Scale | None) -> None:
    items = of(frame(), target=["a", "b"])
    made = codec(items, regular=regular, item=scale, window=50, warps=(None, measure.Log()))
    for item in made.conform(items):
        part = item.rows(slice(3, 40))
        coded = made.encode(part)
        back = made.decode(coded.panel.value, coded)[0]
        known = np.isfinite(part.values)
        np.testing.assert_allclose(back[known], part.values[known], rtol=1e-12)
        assert coded.panel.known.sum() == known.sum()
        assert coded.panel.wanted.sum() == (~known).sum()
        assert np.isfinite(back).all()  # every cell has a place, what is wanted too


def test_panels_hold_unit_variance_and_cells_stand_at_their_own_times() -> None:
    items = of(frame(), target=["a", "b"])
    for regular in (True, False):
        made = codec(items, regular=regular)
        item = made.conform(items).items[0]
        panel = made.encode(item).panel
        assert panel.dense == ((2, 60) if regular else None)
        assert panel.time.unique().tolist() == list(range(60))
        values = np.full((60, 2), np.nan)
        at = panel.known[0]
        rows, columns = panel.time[0, at].long().numpy(), panel.channel[0, at].numpy()
        values[rows, columns] = panel.value[0, at].numpy() * made.std[columns] + made.mean[columns]
        np.testing.assert_allclose(values, item.values, rtol=1e-12)
    every = stacked([made.encode(i) for i in made.conform(items)])
    for c in (0, 1):
        here = every.value[every.known & (every.channel == c)]
        assert abs(float(here.mean())) < 1e-12 and float(here.var(unbiased=False)) == pytest.approx(
            1
        )


def test_a_dense_panel_is_filled_up_in_front_and_nothing_there_is_real() -> None:
    items = of(frame(), target=["a", "b"])
    made = codec(items, regular=True, window=48, periods=(24.0,))
    part = made.conform(items).items[1].rows(slice(10, 30))
    panel = made.encode(part).panel
    real = panel.real.view(2, 48)
    assert panel.dense == (2, 48) and real[:, 28:].all() and not real[:, :28].any()
    steps = panel.time.view(2, 48).diff(dim=1)
    assert torch.allclose(steps, torch.ones_like(steps))  # the grid goes on in front
    wave = panel.covariates[0, 0].view(2, 48)[0, 28:]
    hours = made.clock.numbers(part.time)
    assert np.allclose(wave, np.sin(2 * np.pi * hours / 24), atol=1e-6)


def test_scales_of_an_item_see_only_what_is_known() -> None:
    items = of(frame(), target=["a", "b"])
    for scale in SCALES[1:]:
        made = codec(items, regular=True, item=scale)
        item = made.conform(items).items[0]
        known = np.isfinite(item.values) & (np.arange(60) < 40)[:, None]
        lied = item.values.copy()
        lied[40:] = 1e6
        one = made.coded(item, known, np.isfinite(item.values))
        two = made.coded(replace(item, values=lied), known, np.isfinite(item.values))
        assert torch.equal(one.panel.value[one.panel.known], two.panel.value[two.panel.known])
        # k times the series gives the same panel
        bigger = made.coded(replace(item, values=3 * item.values), known, known)
        alike = made.coded(item, known, known).panel
        assert torch.allclose(bigger.panel.value, alike.value, atol=1e-9)


def test_a_window_of_which_nothing_is_known_has_the_usual_size() -> None:
    items = of(frame(), target=["a", "b"])
    made = codec(items, regular=True, item=measure.Centred())
    blank = Item("new", items.items[0].time, np.full((60, 2), np.nan))
    coded = made.encode(blank)
    assert made.typical is not None and np.array_equal(coded.location, made.typical[0])
    assert np.array_equal(coded.scale, made.typical[1])


def test_errors_are_in_the_units_of_the_panel() -> None:
    items = of(frame(), target=["a", "b"])
    made = codec(items, regular=False, item=measure.Centred(), warps=(None, measure.Log()))
    item = made.conform(items).items[0]
    std = np.full(item.values.shape, 1e-6)
    one = made.encode(item, std=std)
    two = made.encode(replace(item, values=item.values + 1e-6))
    known = np.isfinite(item.values)
    fixed = replace(two, location=one.location, scale=one.scale)
    back = made.decode(one.panel.value + one.panel.error, one)[0]
    np.testing.assert_allclose((back - item.values)[known], 1e-6, rtol=1e-4)
    assert fixed.panel.error is None


@pytest.mark.parametrize(
    ("unit", "stamps", "step"),
    [
        ("months", pd.to_datetime(["2000-01-31", "2000-02-29", "2000-03-31", "2000-05-31"]), 1.0),
        ("years", pd.to_datetime(["2000-07-01", "2001-07-01", "2002-07-01", "2004-07-01"]), 1.0),
        ("days", pd.to_datetime(["2000-01-01", "2000-01-08", "2000-01-15", "2000-01-29"]), 7.0),
    ],
)
def test_a_row_is_put_where_a_regular_series_lacks_one(
    unit: str, stamps: pd.DatetimeIndex, step: float
) -> None:
    items = of(pd.DataFrame({"timestamp": stamps, "y": [1.0, 2, 3, 5]}), keep="first")
    clock = Clock.of(items, regular=True)
    assert (clock.unit, clock.step) == (unit, step)
    item = clock.regular(items.items[0])
    assert len(item) == 5 and np.isnan(item.values[3, 0])
    assert set(items.items[0].time) <= set(item.time)
    assert np.array_equal(np.diff(clock.numbers(item.time)), [step] * 4)


def test_a_row_between_two_steps_is_refused_by_name() -> None:
    time = np.array(["2000-01-01T00", "2000-01-01T01", "2000-01-01T02:20"], "M8[ns]")
    item = Item("gauge 7", time, np.zeros((3, 1)))
    with pytest.raises(InputError, match="'gauge 7'.*02:20.*row 2.*irregular"):
        Clock("hours", "2000-01-01", 1.0).regular(item)
    with pytest.raises(InputError, match="dates; the model was fitted to numbers"):
        Clock().numbers(time)


def test_a_codec_is_saved_whole() -> None:
    items = of(frame(), target=["a", "b"])
    law = masks.Either((masks.Ahead(4), masks.Both((masks.Share(0.1, 0.5), masks.Blocks(2, 5)))))
    made = codec(items, regular=True, item=measure.FromLast(), masks=law, periods=(24.0, 168.0),
                 warps=(measure.Asinh(2.0), measure.Log(0.5)), window=20)  # fmt: skip
    encoder = Encoder()
    again = decode(encoder.encode(made), encoder.tensors, CLASSES)
    assert again.masks == law and again.clock == made.clock and again.warps == made.warps
    part = made.conform(items).items[0].rows(slice(0, 20))
    assert torch.equal(again.encode(part).panel.value, made.encode(part).panel.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda i: replace(i, variables=("a", "c")), "no variable 'b'"),
        (lambda i: replace(i, units={"a": "K"}), "'a' is in 'K', the model in 'degC'"),
        (lambda i: i.only([]), "no items"),
    ],
)
def test_items_that_do_not_fit_are_refused(change: object, said: str) -> None:
    items = replace(of(frame(), target=["a", "b"]), units={"a": "degC"})
    with pytest.raises(InputError, match=said):
        codec(items, regular=True).conform(change(items))  # type: ignore[operator]


def test_a_logarithm_of_nothing_is_refused_with_the_variable() -> None:
    items = of(frame(), target=["a", "b"])
    with pytest.raises(InputError, match="'a': Got the value -.* above -0"):
        codec(items, regular=True, warps=(measure.Log(), None))


def test_masks_hide_what_they_say() -> None:
    rng = np.random.default_rng(1)
    ahead = masks.Ahead(5)(20, 2, rng)
    assert ahead[15:].all() and not ahead[:15].any()
    shares = [masks.Share(0.2, 0.4)(400, 3, rng).mean() for _ in range(50)]
    assert min(shares) > 0.15 and max(shares) < 0.45 and np.std(shares) > 0.03
    for _ in range(50):
        block = masks.Blocks(3, 6, alone=True)(30, 2, rng)
        assert 3 <= block.sum() <= 6 and block.any(0).sum() == 1
        assert np.abs(np.diff(block.any(1).astype(int))).sum() <= 2  # one stretch
    both = masks.Both((masks.Ahead(5), masks.Share(0.5, 0.5)))
    assert both.ahead == 5 and both(20, 1, rng)[15:].all()
    assert masks.Either((masks.Ahead(5), masks.Share(0, 1))).ahead is None


@pytest.mark.parametrize("regular", [True, False])
def test_training_panels_are_a_function_of_the_step(regular: bool) -> None:
    items = of(frame(), target=["a", "b"])
    made = codec(items, regular=regular, window=24, masks=masks.Ahead(6))
    one, two = Panels(items, made, batch=5, seed=3), Panels(items, made, batch=5, seed=3)
    two.at(0)
    panel = one.at(7)
    for name in ("time", "channel", "value", "known", "real"):
        assert torch.equal(getattr(panel, name), getattr(two.at(7), name))
    assert not torch.equal(panel.value, one.at(8).value)
    assert not torch.equal(Panels(items, made, batch=5, rank=1).at(7).value, panel.value)
    every = np.concatenate([i.values.reshape(-1) for i in items])
    for row in range(5):
        at = panel.real[row]
        k = panel.channel[row, at].numpy()
        values = panel.value[row, at].numpy() * made.std[k] + made.mean[k]
        for v in values:  # wanted cells hold the truth too
            assert np.nanmin(np.abs(every - v)) < 1e-9
        late = panel.time[row] >= panel.time[row, at].max() - 5
        assert not panel.known[row, late].any() and panel.known[row, at & ~late].all()


def test_short_items_are_named_and_left_out_of_training() -> None:
    items = of(frame(), target=["a", "b"])
    short = items.items[0].rows(slice(0, 4))
    made = codec(items, regular=True, window=24, masks=masks.Ahead(6))
    with pytest.warns(UserWarning, match="1 of 3 items.*'x'"):
        panels = Panels(items.only([short, *items.items[1:]]), made)
    assert len(panels) == (53 - 23) + (46 - 23)
    with pytest.raises(InputError, match="none of 7 rows"):
        Panels(items.only([short]), made)
