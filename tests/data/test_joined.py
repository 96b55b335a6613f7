"""Items joined into one record: phases are kept, gaps are NaN, values as the codec sees them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sciddm.data.clock import Clock
from sciddm.data.items import Item, Items
from sciddm.data.joined import joined
from sciddm.data.measure import Centred, Log
from sciddm.data.series import SeriesCodec
from sciddm.errors import InputError


def hourly(name: str, first: str, rows: int) -> Item:
    """Values that say their hour of the day, and one above it."""
    time = np.datetime64(first, "ns") + np.arange(rows) * np.timedelta64(1, "h")
    hour = (time - time.astype("M8[D]")) / np.timedelta64(1, "h")
    return Item(name, time, np.stack([hour, np.exp(hour / 24)], axis=1))


EVERY = Items(
    ("a", "b"), (hourly("x", "2020-01-01T03", 30), hourly("y", "2020-03-05T17", 50)), units={}
)


def test_rows_stay_at_their_phase_and_items_are_far_apart() -> None:
    clock = Clock("hours", "2020-01-01", 1.0)
    codec = SeriesCodec.fit(EVERY, clock, warps=(None, Log()))
    record = joined(EVERY, codec, 24, 40)
    hour = record[:, 0] * codec.std[0] + codec.mean[0]
    seen = np.isfinite(hour)
    assert seen.sum() == 80
    assert np.allclose(hour[seen], np.flatnonzero(seen) % 24)
    logs = record[:, 1] * codec.std[1] + codec.mean[1]
    assert np.allclose(24 * logs[seen], hour[seen])
    assert np.allclose(record[seen].mean(0), 0) and np.allclose(record[seen].std(0), 1)
    between = np.flatnonzero(np.diff(np.flatnonzero(seen)) > 1)
    assert len(between) == 1
    assert 40 <= np.diff(np.flatnonzero(seen)).max() - 1 < 64


def test_one_item_alone_has_nothing_but_its_phase_before_it() -> None:
    alone = replace(EVERY, items=EVERY.items[:1])
    codec = SeriesCodec.fit(alone, Clock("hours", "2020-01-01", 1.0))
    assert len(joined(alone, codec, 24, 40)) == 3 + 30
    assert len(joined(alone, codec)) == 30


def test_what_has_no_step_or_a_scale_of_its_own_is_refused() -> None:
    clock = Clock("hours", "2020-01-01", 1.0)
    with pytest.raises(InputError, match="regular clock"):
        joined(EVERY, SeriesCodec.fit(EVERY, replace(clock, step=None)))
    with pytest.raises(InputError, match="no scale of items"):
        joined(EVERY, SeriesCodec.fit(EVERY, clock, item=Centred()))
