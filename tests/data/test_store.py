"""Stores: whole and exact, or refused; killed runs resume; two writers never share a chunk."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sciddm.data import disk, manifest, store
from sciddm.errors import InputError, RunError


def fields(n: int = 10, seed: int = 0, dtype: str = "f4") -> xr.Dataset:
    """Two fields and a static one, with a model calendar, labels and a land mask."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((n, 6, 4)).astype(dtype)
    a[:, 2, 1] = np.nan
    return xr.Dataset(
        {
            "a": (("time", "y", "x"), a, {"units": "K"}),
            "b": (("time", "y", "x"), rng.integers(0, 5, (n, 6, 4)).astype(dtype)),
            "land": (("y", "x"), rng.random((6, 4)) > 0.5),
        },
        coords={
            "time": xr.date_range("2000-02-28", periods=n, calendar="360_day", use_cftime=True),
            "y": ("y", np.linspace(0, 1, 6), {"units": "1"}),
            "label": ("x", ["west", "mid", "mid", "east"]),
            "scalar": 3.5,
        },
        attrs={"sciddm_sample_dim": "time", "sciddm_splits": {"train": [0, 8], "test": [8, 10]}},
    )


def digests(path: Path) -> dict[str, str]:
    return {n: e["digest"] for n, e in manifest.read(path)["arrays"].items()}


def chunk_files(path: Path, name: str) -> list[Path]:
    return sorted(f for f in (path / name / "c").rglob("*") if f.is_file())


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return store.write(fields(), tmp_path / "whole.zarr", chunks={"time": 4})


def test_what_is_written_is_what_is_read(whole: Path) -> None:
    xr.testing.assert_identical(store.open(whole).load(), fields())
    assert store.verify(whole) == []
    assert not list(whole.parent.glob("*.partial")) and not list(whole.parent.glob("*.old"))


def test_chunks_change_the_files_and_not_the_values(tmp_path: Path) -> None:
    """Any chunking gives the same Dataset; one chunking gives the same digests, every time."""
    for i, chunks in enumerate([None, {"time": 1}, {"time": 3, "y": 4, "x": 3}]):
        got = store.write(fields(), tmp_path / f"{i}.zarr", chunks=chunks)
        xr.testing.assert_identical(store.open(got).load(), fields())
    again = store.write(fields(), tmp_path / "again.zarr", chunks={"time": 1})
    assert digests(again) == digests(tmp_path / "1.zarr")
    other = store.write(fields(seed=1), tmp_path / "other.zarr", chunks={"time": 1})
    assert digests(other)["a"] != digests(again)["a"]
    assert digests(other)["y"] == digests(again)["y"]


@pytest.mark.parametrize("dtype", [">f4", "f8", ">i2", "u1"])
def test_byte_order_and_type_survive(tmp_path: Path, dtype: str) -> None:
    ds = fields().assign(b=fields().b.astype(dtype))[["b"]]
    back = store.open(store.write(ds, tmp_path / "s.zarr")).b
    assert back.dtype == np.dtype(dtype).newbyteorder("=")
    assert (back.values == ds.b.values).all()


def test_the_packing_of_the_source_is_dropped(tmp_path: Path) -> None:
    """A value of 100 in int16 with scale 0.001 comes back as -31.072 if the packing is kept."""
    packed = tmp_path / "packed.nc"
    ds = xr.Dataset({"a": (("time", "x"), np.array([[0.5, 1.0]]))}, {"depth": ("x", [0.5, 1.0])})
    packing = {"dtype": "i2", "scale_factor": 1e-3, "_FillValue": -1}
    ds.to_netcdf(packed, encoding={"a": packing, "depth": packing})
    loaded = xr.open_dataset(packed)
    loaded["a"] = loaded.a.copy(data=[[100.0, 1.0]])
    loaded["depth"] = loaded.depth.copy(data=[100.0, 1.0])
    assert loaded.a.encoding["scale_factor"] == loaded.depth.encoding["scale_factor"] == 1e-3
    back = store.open(store.write(loaded, tmp_path / "s.zarr"))
    assert back.a.values.tolist() == [[100.0, 1.0]] and back.depth.values.tolist() == [100.0, 1.0]


def test_what_a_source_said_about_counting_dates_is_dropped(tmp_path: Path) -> None:
    """xarray itself refuses to write dates that still carry a units attribute."""
    ds = fields()
    ds.time.attrs.update(units="Month", calendar="none", long_name="when")
    back = store.open(store.write(ds, tmp_path / "s.zarr"))
    assert back.time.attrs == {"long_name": "when"} and (back.time.values == ds.time.values).all()


def test_every_array_has_a_checksum(whole: Path) -> None:
    for meta in whole.glob("*/zarr.json"):
        codecs = json.loads(meta.read_text())["codecs"]
        assert {"name": "zstd", "configuration": {"level": 0, "checksum": True}} in codecs


def test_a_flipped_bit_is_always_found(tmp_path: Path) -> None:
    """100 single-bit flips over all chunks: each is found by verify, which names the array."""
    path = store.write(fields(), tmp_path / "s.zarr", chunks={"time": 4})
    rng = np.random.default_rng(0)
    files = [f for name in ("a", "b", "time") for f in chunk_files(path, name)]
    for _ in range(100):
        file = files[rng.integers(len(files))]
        good = file.read_bytes()
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        file.write_bytes(bad)
        problems = store.verify(path)
        assert problems and repr(file.relative_to(path).parts[0]) in problems[0]
        file.write_bytes(good)
    assert store.verify(path) == []


def test_a_missing_chunk_is_refused_by_name(whole: Path) -> None:
    """zarr itself reads NaN where the chunk was."""
    chunk_files(whole, "a")[1].unlink()
    assert np.isnan(xr.open_zarr(whole, chunks=None).a.values[4:8]).all()
    with pytest.raises(InputError, match=r"'a' lacks chunk \[1, 0, 0\]"):
        store.open(whole)
    assert store.verify(whole) == ["'a' lacks chunk [1, 0, 0]"]


def test_a_truncated_chunk_is_refused(whole: Path) -> None:
    file = chunk_files(whole, "b")[2]
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(InputError, match="'b' holds .* bytes"):
        store.open(whole)
    assert any("'b' chunk [2, 0, 0]" in p for p in store.verify(whole))


def test_swapped_chunks_are_found(whole: Path) -> None:
    """Both chunks decode: only the digest of the whole array tells."""
    first, second = chunk_files(whole, "a")[:2]
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    assert store.verify(whole) == ["'a' holds other values than the manifest says"]


@pytest.mark.parametrize("meta", ["zarr.json", "a/zarr.json"])
def test_changed_metadata_are_refused(whole: Path, meta: str) -> None:
    text = (whole / meta).read_text()
    (whole / meta).write_text(text.replace('"K"', '"degC"'))
    assert (whole / meta).read_text() != text
    with pytest.raises(InputError, match="metadata"):
        store.open(whole)


def test_a_store_without_manifest_is_refused(tmp_path: Path) -> None:
    fields()[["a"]].to_zarr(tmp_path / "plain.zarr", consolidated=False)
    with pytest.raises(InputError, match="no sciddm.json"):
        store.open(tmp_path / "plain.zarr")
    with pytest.raises(InputError, match="does not exist"):
        store.open(tmp_path / "nothing.zarr")
    (tmp_path / "file.zarr").write_text("x")
    with pytest.raises(InputError, match="no sciddm.json"):
        store.open(tmp_path / "file.zarr")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "arrays": {"a": {}}}'],
)
def test_a_broken_manifest_is_one_line(whole: Path, text: str) -> None:
    (whole / "sciddm.json").write_text(text)
    with pytest.raises(InputError) as error:
        store.open(whole)
    assert "\n" not in str(error.value) and str(whole) in str(error.value)


def test_an_output_that_exists_is_kept(whole: Path) -> None:
    before = digests(whole)
    for begin in (store.write, store.create):
        with pytest.raises(InputError, match="exists"):
            begin(fields(seed=1), whole)
    assert digests(whole) == before and not list(whole.parent.glob("*.partial"))


def test_overwrite_takes_the_name_only_when_complete(whole: Path) -> None:
    """Reading from the store that is replaced is safe: it stands until the new one is whole."""
    before = digests(whole)
    doubled = store.open(whole)
    doubled["b"] = doubled.b * 2
    store.create(doubled, whole, chunks={"time": 5}, overwrite=True)
    assert digests(whole) == before
    with pytest.raises(RunError, match="not complete"):
        store.finalize(whole)
    assert digests(whole) == before
    store.write(doubled, whole, overwrite=True)
    assert (store.open(whole).b.values == 2 * fields().b.values).all()
    assert [p.name for p in whole.parent.iterdir()] == [whole.name]


def test_a_swap_that_fails_gives_the_old_store_back(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = digests(whole), os.rename

    def failing(source: Path, target: Path) -> None:
        if source.name == "store":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(disk.os, "rename", failing)
        with pytest.raises(RunError, match="Input/output error"):
            store.write(fields(seed=1), whole, overwrite=True)
    assert digests(whole) == before and store.verify(whole) == []
    # What was written is whole: finishing needs the rename only.
    store.finalize(whole)
    assert digests(whole) != before and store.verify(whole) == []


def test_overwrite_never_takes_a_folder_that_is_no_store(tmp_path: Path) -> None:
    precious = tmp_path / "home"
    precious.mkdir()
    (precious / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="no zarr store"):
        store.write(fields(), precious, overwrite=True)
    assert (precious / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize("name", ["../../x", "a/b", ".hidden", "__x"])
def test_names_stay_under_the_store(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot name"):
        store.write(fields().rename(a=name), tmp_path / "s.zarr")
    assert not list(tmp_path.iterdir())


def test_empty_and_textual_fields_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="empty"):
        store.write(fields(0), tmp_path / "s.zarr")
    text = xr.Dataset({"t": (("time", "x"), [["a", "b"]])})
    with pytest.raises(InputError, match="'t' holds"):
        store.write(text, tmp_path / "s.zarr")
    assert not list(tmp_path.iterdir())


# Region by region.


def test_regions_in_any_order_make_the_same_store(tmp_path: Path, whole: Path) -> None:
    path = tmp_path / "r.zarr"
    ds = fields()
    store.create(ds, path, chunks={"time": 4})
    for lo in (8, 0, 4):
        region = {"time": slice(lo, min(lo + 4, 10))}
        # Dims in another order are written by name.
        store.put(path, ds[["a", "b"]].isel(region).transpose("x", "time", "y"), region)
    assert store.done(path) == {"time=0-4", "time=4-8", "time=8-10"}
    with pytest.raises(InputError, match="unfinished"):
        store.open(path)
    store.finalize(path)
    assert digests(path) == digests(whole)
    assert store.finalize(path) == path and store.done(path) == frozenset()


def test_an_all_missing_region_is_still_a_chunk(tmp_path: Path) -> None:
    """zarr by default leaves out chunks of fill values: then absence would mean two things."""
    ds = fields()
    ds["a"] = ds.a.where(ds.time < ds.time[4])
    ds["b"] = ds.b * 0
    path = store.write(ds, tmp_path / "s.zarr", chunks={"time": 2})
    assert len(chunk_files(path, "a")) == len(chunk_files(path, "b")) == 5
    xr.testing.assert_identical(store.open(path).load(), ds)


def test_a_missing_region_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    store.create(fields(), path, chunks={"time": 4})
    with pytest.raises(RunError, match=r"3 of 3 chunks of 'a' were never put, first \[0, 0, 0\]"):
        store.finalize(path)
    store.put(path, fields()[["a", "b"]].isel(time=slice(0, 4)), {"time": slice(0, 4)})
    with pytest.raises(RunError, match=r"2 of 3 chunks of 'a' were never put, first \[1, 0, 0\]"):
        store.finalize(path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("region", "take", "said"),
    [
        ({"time": slice(0, 3)}, slice(0, 3), "cuts a chunk"),
        ({"time": slice(2, 6)}, slice(2, 6), "cuts a chunk"),
        ({"time": slice(4, 9)}, slice(4, 9), "cuts a chunk"),
        ({"time": slice(0, 4)}, slice(0, 3), "brings 3"),
        ({"time": slice(0, 4)}, slice(4, 8), "not the store's"),
        ({"time": slice(8, 12)}, slice(8, 10), "no region"),
        ({"tim": slice(0, 4)}, slice(0, 4), "No variable has the dims"),
        ({}, slice(0, 4), "No variable has the dims"),
    ],
)
def test_a_bad_region_writes_nothing(
    tmp_path: Path, region: dict[str, slice], take: slice, said: str
) -> None:
    path = tmp_path / "r.zarr"
    store.create(fields(), path, chunks={"time": 4})
    before = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*") if f.is_file()}
    with pytest.raises(InputError, match=said):
        store.put(path, fields()[["a", "b"]].isel(time=take), region)
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*") if f.is_file()} == before


def test_a_put_must_bring_every_variable(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    with pytest.raises(InputError, match="call create first"):
        store.put(path, fields()[["a"]], {"time": slice(0, 10)})
    store.create(fields(), path, chunks={"time": 10})
    with pytest.raises(InputError, match=r"brings \['a'\]; expected \['a', 'b'\]"):
        store.put(path, fields()[["a"]], {"time": slice(0, 10)})


def test_another_run_may_not_go_on_with_this_one(tmp_path: Path) -> None:
    """Other shapes, chunks, attributes or coordinates: another run. The same: it goes on."""
    path = tmp_path / "r.zarr"
    ds = fields()
    store.create(ds, path, chunks={"time": 4})
    store.put(path, ds[["a", "b"]].isel(time=slice(0, 4)), {"time": slice(0, 4)})
    others = [
        (fields(12), {"time": 4}),
        (ds, {"time": 5}),
        (ds.assign_attrs(seed=1), {"time": 4}),
        (ds.assign_coords(scalar=4.5), {"time": 4}),
        (ds.drop_vars("b"), {"time": 4}),
    ]
    for other, chunks in others:
        with pytest.raises(InputError, match="another shape"):
            store.create(other, path, chunks=chunks)
    store.create(ds, path, chunks={"time": 4})
    assert store.done(path) == {"time=0-4"}


def test_a_template_costs_no_memory(tmp_path: Path) -> None:
    """A petabyte template is created and half of a chunk row put, without its values."""
    huge = xr.Dataset({"a": (("member", "x"), np.broadcast_to(np.float32(0), (10**9, 10**5)))})
    store.create(huge, tmp_path / "h.zarr", chunks={"member": 2, "x": 8})
    part = xr.Dataset({"a": (("member", "x"), np.ones((2, 8), "f4"))})
    store.put(tmp_path / "h.zarr", part, {"member": slice(4, 6), "x": slice(80, 88)})
    assert store.done(tmp_path / "h.zarr") == {"member=4-6,x=80-88"}


def test_a_full_disk_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.zarr"
    ds = fields()[["a", "b"]]
    store.create(ds, path, chunks={"time": 5})
    store.put(path, ds.isel(time=slice(0, 5)), {"time": slice(0, 5)})

    def full(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(disk.os, "replace", full)
        with pytest.raises(RunError, match=r"No space left on device \(\d+ bytes free\)"):
            store.put(path, ds.isel(time=slice(5, 10)), {"time": slice(5, 10)})
    assert store.done(path) == {"time=0-5"} and not path.exists()
    store.put(path, ds.isel(time=slice(5, 10)), {"time": slice(5, 10)})
    xr.testing.assert_identical(store.open(store.finalize(path)).load(), ds)


def test_any_number_of_kills_changes_nothing(tmp_path: Path, whole: Path) -> None:
    """SIGKILL at random moments of a run, then resume: the digests of an uninterrupted run."""
    path = tmp_path / "killed.zarr"
    run = textwrap.dedent(
        f"""
        import sys, time
        sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[2])]!r}
        from test_store import fields
        from sciddm.data import store
        path, ds = {str(path)!r}, fields()
        store.create(ds, path, chunks={{"time": 1}})
        print("begun", flush=True)
        for i in range(10):
            region = {{"time": slice(i, i + 1)}}
            if store.region_key(region) not in store.done(path):
                store.put(path, ds[["a", "b"]].isel(region), region)
        store.finalize(path)
        """
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    for wait in (0.0, 0.03, 0.06, 0.1, 0.15):
        child = subprocess.Popen([sys.executable, "-c", run], stdout=subprocess.PIPE, env=env)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert not path.exists() or store.verify(path) == []
    if not path.exists():
        subprocess.run([sys.executable, "-c", run], check=True, env=env, stdout=subprocess.DEVNULL)
    assert store.verify(path) == []
    reference = store.write(fields(), tmp_path / "calm.zarr", chunks={"time": 1})
    assert digests(path) == digests(reference)
