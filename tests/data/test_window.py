"""Batches: the same for the same step, each window once, chunks read once, nothing across a gap."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from sciddm.data import split, store, window
from sciddm.errors import InputError, RunError


def numbered(n: int = 100, splits: bool = True) -> xr.Dataset:
    """Every value says where it stands: sample + y / 10 + x / 100."""
    s, y, x = np.arange(n)[:, None, None], np.arange(3)[:, None] / 10, np.arange(2) / 100
    ds = xr.Dataset(
        {
            "a": (("sample", "y", "x"), (s + y + x).astype("f4")),
            "b": (("sample", "y", "x"), (-s - y - x).astype("f8")),
        },
        attrs={"sciddm_sample_dim": "sample"},
    )
    return split.attach(ds, {"train": [0, 71], "test": [75, n]}) if splits else ds


@pytest.fixture
def stored(tmp_path: Path) -> xr.Dataset:
    return store.open(store.write(numbered(), tmp_path / "s.zarr", chunks={"sample": 8}))


def epoch(batches: window.Batches, number: int = 0) -> list[int]:
    steps = range(number * len(batches), (number + 1) * len(batches))
    return [int(v) for k in steps for v in batches.at(k)["a"][:, 0, 0]]


def test_a_batch_is_a_pure_function_of_seed_and_step(stored: xr.Dataset) -> None:
    """Any order of asking, any cache, a fresh object: the same bytes."""
    train = split.select(stored, "train")
    names = ["a", "b"]
    one = window.Batches(train, names, batch=4, seed=3, mix=2)
    reference = [one.at(k) for k in range(40)]
    small = window.Batches(train, names, batch=4, seed=3, mix=2, cache_bytes=4 * 8 * 12 * 4)
    for k in np.random.default_rng(0).permutation(40):
        fresh = window.Batches(train, names, batch=4, seed=3, mix=2)
        for other in (small.at(int(k)), fresh.at(int(k))):
            assert all(np.array_equal(other[n], reference[k][n]) for n in names)
    other_seed = window.Batches(train, names, batch=4, seed=4, mix=2)
    assert any(not np.array_equal(other_seed.at(k)["a"], reference[k]["a"]) for k in range(3))


def test_the_order_is_fixed_for_good() -> None:
    """A run of last year can be resumed: numpy promises these bits on every platform."""
    batches = window.Batches(numbered(splits=False), ["a"], batch=6, seed=0)
    assert batches.index(0).tolist() == [4, 38, 56, 55, 68, 7]


def test_values_are_those_of_the_index(stored: xr.Dataset) -> None:
    test = split.select(stored, "test")
    batches = window.Batches(test, ["b", "a"], batch=5, seed=0)
    for k in range(2 * len(batches)):
        got, index = batches.at(k), batches.index(k)
        assert list(got) == ["b", "a"]
        assert got["a"].dtype == got["b"].dtype == np.float32
        assert np.array_equal(got["a"], test.a.values[index])
        assert np.array_equal(got["b"], test.b.values[index].astype("f4"))


@given(
    n=st.integers(1, 90),
    chunk=st.integers(1, 20),
    lo=st.integers(0, 30),
    batch=st.integers(1, 7),
    mix=st.integers(1, 9),
    length=st.integers(1, 4),
    world=st.integers(1, 3),
)
def test_every_window_once_in_an_epoch_over_all_ranks(
    n: int, chunk: int, lo: int, batch: int, mix: int, length: int, world: int
) -> None:
    """Whatever the chunks, the split's offset, the ranks: no repeats, only a remainder left out."""
    ds = numbered(lo + n, splits=False).isel(sample=slice(lo, None))
    ds.attrs["sciddm_range"] = [lo, lo + n]
    for name in ds.data_vars:
        ds[name].encoding["preferred_chunks"] = {"sample": chunk}
    try:
        ranks = [
            window.Batches(
                ds, ["a"], batch=batch, seed=1, mix=mix, length=length, rank=r, world=world
            )
            for r in range(world)
        ]
    except InputError:
        assert n - length + 1 < batch * world
        return
    total = n - length + 1
    for number in (0, 1):
        seen: Counter[int] = Counter()
        for one in ranks:
            for k in range(number * len(one), (number + 1) * len(one)):
                seen.update(one.index(k).tolist())
                got = one.at(k)["a"].reshape(batch, length, 3, 2)[:, :, 0, 0]
                expected = lo + one.index(k)[:, None] + np.arange(length)
                assert np.array_equal(got, expected)
        assert max(seen.values()) == 1 and set(seen) <= set(range(total))
        assert total - len(seen) < batch * world


def test_an_epoch_is_another_order(stored: xr.Dataset) -> None:
    batches = window.Batches(split.select(stored, "train"), ["a"], batch=7, seed=0)
    first, second = epoch(batches, 0), epoch(batches, 1)
    assert first != second and sorted(first) != first
    assert len(set(first)) == 70 and max(first) < 71


def test_the_splits_are_never_crossed(stored: xr.Dataset) -> None:
    with pytest.raises(InputError, match=r"several splits.*split.select\(ds, 'train'\)"):
        window.Batches(stored, ["a"], batch=4, seed=0)
    test = window.Batches(split.select(stored, "test"), ["a"], batch=5, seed=0, length=3)
    seen = np.concatenate([test.at(k)["a"][..., 0, 0].ravel() for k in range(len(test))])
    assert seen.min() >= 75


def test_more_chunks_mix_further() -> None:
    """The rank correlation of the order with the sample number: 1 unshuffled, near 0 mixed."""
    ds = numbered(512, splits=False)
    for name in ds.data_vars:
        ds[name].encoding["preferred_chunks"] = {"sample": 8}
    spans = []
    for mix in (1, 4, 64):
        batches = window.Batches(ds, ["a"], batch=16, seed=0, mix=mix)
        spans.append(np.mean([np.ptp(batches.index(k)) for k in range(len(batches))]))
    chunks_met = len({int(i) // 8 for i in batches.index(0)})
    assert spans[0] < spans[1] < spans[2] and spans[2] > 400 and chunks_met > 10


def test_each_chunk_is_decoded_once_an_epoch(
    stored: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chunks of the store, not of the split: the second split begins inside one."""
    reads: list[tuple[int, int]] = []
    test = split.select(stored, "test")
    batches = window.Batches(test, ["a"], batch=5, seed=0, mix=2)
    original = xr.Dataset.isel

    def counted(self: xr.Dataset, indexers: dict[str, slice]) -> xr.Dataset:
        reads.append((indexers["sample"].start, indexers["sample"].stop))
        return original(self, indexers)

    monkeypatch.setattr(xr.Dataset, "isel", counted)
    for k in range(len(batches)):
        batches.at(k)
    # The store's chunks are [72, 80), [80, 88), [88, 96), [96, 100); the split is [75, 100).
    assert sorted(reads) == [(0, 5), (5, 13), (13, 21), (21, 25)]
    reads.clear()
    for k in range(len(batches), 3 * len(batches)):
        batches.at(k)
    assert reads == []


def test_the_cache_is_bounded(stored: xr.Dataset) -> None:
    train = split.select(stored, "train")
    chunk = 8 * 6 * 4
    batches = window.Batches(train, ["a"], batch=4, seed=0, mix=2, cache_bytes=4 * chunk)
    for k in range(2 * len(batches)):
        batches.at(k)
        assert sum(c["a"].nbytes for c in batches._cache.values()) <= 4 * chunk
    with pytest.raises(InputError, match=r"needs a cache of 768 bytes, got cache_bytes=767"):
        window.Batches(train, ["a"], batch=4, seed=0, mix=2, cache_bytes=4 * chunk - 1)


def test_a_batch_is_not_a_view_of_the_cache(stored: xr.Dataset) -> None:
    batches = window.Batches(split.select(stored, "train"), ["a"], batch=4, seed=0)
    before = batches.at(0)["a"].copy()
    batches.at(0)["a"][:] = 7.0
    assert np.array_equal(batches.at(0)["a"], before)


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_no_window_crosses_a_missing_step(calendar: str) -> None:
    time = xr.date_range("2022-01-01", periods=50, freq="D", calendar=calendar)
    keep = [i for i in range(50) if i not in (20, 21, 22, 35)]
    ds = xr.Dataset({"a": ("time", np.arange(50, dtype="f4"))}, coords={"time": time})
    ds = ds.isel(time=keep).assign_attrs(sciddm_sample_dim="time")
    batches = window.Batches(ds, ["a"], batch=1, seed=0, length=4)
    rows = np.concatenate([batches.at(k)["a"] for k in range(len(batches))])
    assert (np.diff(rows, axis=1) == 1).all()
    assert len(rows) == (20 - 3) + (12 - 3) + (14 - 3)


def test_wrong_arguments_are_one_line() -> None:
    ds = numbered(splits=False)
    for bad, said in [
        ({"batch": 0}, "batch=0"),
        ({"batch": 101}, "too few for 1 x 101"),
        ({"length": 0}, "length=0"),
        ({"length": 101}, "0 windows of 101"),
        ({"rank": 2, "world": 2}, "rank=2 of world=2"),
        ({"sample_dim": "time"}, "without the sample dim 'time'"),
    ]:
        with pytest.raises(InputError, match=said):
            window.Batches(ds, ["a"], **{"batch": 4, "seed": 0, **bad})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="No variable 'c'"):
        window.Batches(ds, ["c"], batch=4, seed=0)
    with pytest.raises(InputError, match="step=-1"):
        window.Batches(ds, ["a"], batch=4, seed=0).at(-1)


def test_a_chunk_that_rots_under_a_run_is_named(tmp_path: Path) -> None:
    path = store.write(numbered(splits=False), tmp_path / "s.zarr", chunks={"sample": 10})
    batches = window.Batches(store.open(path), ["a"], batch=100, seed=0)
    file = path / "a" / "c" / "3" / "0" / "0"
    bad = bytearray(file.read_bytes())
    bad[len(bad) // 2] ^= 4
    file.write_bytes(bad)
    with pytest.raises(RunError, match="'a' cannot be read at sample 30..39"):
        batches.at(0)
