"""`sciddm impute` and `sciddm forecast` of tables and stores, and the pipelines of series."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import sciddm as sd
from sciddm import cli
from sciddm.data import ragged, store
from sciddm.data.clock import Clock
from sciddm.data.items import Items, of
from sciddm.data.series import SeriesCodec
from sciddm.series.gp import GaussianSeries
from sciddm.series.kernel import Matern32, Mixed, Term

ROOT = Path(__file__).parents[2]
BLANK = torch.zeros(1, 0, dtype=torch.float64)


def law(length: float = 6.0) -> Mixed:
    one = torch.ones(1, dtype=torch.float64)
    return Mixed((Term(Matern32(length), BLANK, one),), 0.01 * one)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, a table of two gauges with gaps, and the same as a store."""
    monkeypatch.chdir(tmp_path)
    codec = SeriesCodec(
        ("level",), {}, np.array([3.0]), np.array([0.5]), Clock("hours", "2020-01-01", 1.0)
    )
    task = sd.Task(sd.View(("level",)), sample="item")
    sd.Model(task, codec, GaussianSeries(law())).save("gp")
    rng = np.random.default_rng(0)
    parts = []
    for name in ("north", "south"):
        walk = 3 + 0.5 * np.sin(np.arange(80) / 9 + rng.random()) + 0.02 * rng.standard_normal(80)
        part = pd.DataFrame({"item_id": name, "level": walk})
        part.insert(1, "timestamp", pd.date_range("2020-01-01", periods=80, freq="h"))
        parts.append(part)
    frame = pd.concat(parts)
    frame.to_csv("truth.csv", index=False)
    frame.loc[frame.index.isin(range(30, 38)), "level"] = np.nan
    frame.to_csv("gauges.csv", index=False)
    store.write(ragged.dataset(of(frame), ragged.Labelled()), "gauges.zarr")
    return tmp_path


def run(*words: str) -> int:
    return cli.main(list(words))


def last(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    return found


def test_a_table_is_filled_with_columns_of_intervals(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("impute", "gp", "gauges.csv", "-o", "full.csv", "--interval", "0.5", "0.9", "--json")
    assert run(*words) == 0
    facts = last(capsys)
    assert facts["filled"] == 16 and facts["items"] == 2 and facts["members"] == 64
    given, full = pd.read_csv("gauges.csv"), pd.read_csv("full.csv")
    assert list(full)[2:] == [
        "level", "level-median", "level-lo-50", "level-hi-50", "level-lo-90", "level-hi-90",
    ]  # fmt: skip
    assert (full[["item_id", "timestamp"]] == given[["item_id", "timestamp"]]).all(axis=None)
    known = given["level"].notna()
    np.testing.assert_allclose(full.loc[known, "level"], given.loc[known, "level"], rtol=1e-14)
    gap = full[~known]
    assert (gap["level-lo-90"] < gap["level-lo-50"]).all()
    assert (gap["level-hi-50"] < gap["level-hi-90"]).all()
    assert run(*words) == 2 and "exists" in capsys.readouterr().err
    assert run(*words, "--overwrite", "--members-out", "all") == 0
    every = pd.read_csv("full.csv")
    assert len(every) == 64 * 160 and sorted(every["member"].unique()) == list(range(64))


def test_tables_and_stores_are_filled_with_the_same_numbers(here: Path) -> None:
    for file in ("gauges.csv", "gauges.zarr"):
        assert run("impute", "gp", file, "-o", f"{Path(file).suffix}.zarr", "--members", "5") == 0
    a, b = store.open(".csv.zarr"), store.open(".zarr.zarr")
    assert a["level"].dims == ("member", "item", "time") and a.sizes["member"] == 5
    np.testing.assert_allclose(a["level"].values, b["level"].values, rtol=1e-6)
    assert store.verify(".csv.zarr") == [] and a.attrs["engine"] == "GaussianSeries"
    made = sd.impute(sd.load("gp"), "gauges.csv", members=5)
    one = made[made["member"] == 3].pivot(index="item_id", columns="timestamp", values="level")
    np.testing.assert_allclose(one.to_numpy(), a["level"].sel(member=3).values, rtol=1e-6)


def test_without_a_model_a_law_is_fitted_to_the_file_and_said(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("impute", "gauges.csv", "-o", "own.csv", "--members", "200", "--json") == 0
    facts = last(capsys)
    assert "fitted to the known values of gauges.csv" in str(facts["model"])
    full = pd.read_csv("own.csv")
    gap = pd.read_csv("gauges.csv")["level"].isna()
    truth, part = pd.read_csv("truth.csv").loc[gap, "level"], full[gap]
    inside = (part["level-lo-90"] < truth) & (truth < part["level-hi-90"])
    assert (part["level-hi-90"] - part["level-lo-90"]).max() < 0.5  # narrower than the series
    assert inside.mean() > 0.7


def test_a_forecast_of_a_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ("forecast", "gp", "gauges.csv", "--steps", "6", "--members", "8")
    assert run(*ask, "-o", "ahead.csv", "--members-out", "all", "--json") == 0
    assert last(capsys)["rows"] == 6
    ahead = pd.read_csv("ahead.csv", parse_dates=["timestamp"])
    assert len(ahead) == 2 * 6 * 8
    assert ahead["timestamp"].min() == pd.Timestamp("2020-01-04T08")
    assert run(*ask, "-o", "ahead.zarr", "--start", "2020-01-02", "2020-01-03") == 0
    ds = store.open("ahead.zarr")
    assert dict(ds.sizes) == {"init_time": 2, "member": 8, "item": 2, "lead_time": 6}
    assert run("forecast", "gp", "gauges.csv", "-o", "x.csv", "--std", "1", "--seen", "y") == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("impute", "gp", "-o", "x.csv"), "the model 'gp' without a file"),
        (("impute", "a", "b", "c", "-o", "x.csv"), "3 inputs"),
        (("impute", "gp", "none.csv", "-o", "x.csv"), "none.csv"),
        (("impute", "gp", "gauges.csv", "-o", "gauges.csv"), "which is the input"),
        (("impute", "gp", "gauges.csv", "-o", "x.csv", "--target", "depth"), "depth"),
        (("forecast", "gp", "gauges.csv", "-o", "x.csv", "--names", "climpred"), "--names"),
        (("forecast", "gp", "gauges.csv", "-o", "x.csv", "--start", "2020-01-02", "2020-01-03"),
         "Got several starts for a table"),
        (("recover", "gp", "gauges.csv", "-o", "x.zarr", "--std", "1"), "not fields"),
        (("generate", "gp", "-o", "x.zarr", "--steps", "9"), "leave them out"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_writes_nothing(
    words: tuple[str, ...], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(here.rglob("*"))
    assert run(*words) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert said in error[-1] and error[-1].startswith("sciddm: ")
    assert sorted(here.rglob("*")) == before


def test_a_new_series_goes_to_a_store(here: Path) -> None:
    assert run("generate", "gp", "-o", "new.zarr", "--members", "3", "--length", "30") == 0
    new = store.open("new.zarr")
    assert dict(new.sizes) == {"member": 3, "time": 30}


def test_the_pipelines_fill_forecast_and_score(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for shelf in ("datasets", "models", "pipelines"):
        shutil.copytree(ROOT / shelf, here / shelf, ignore=lambda d, n: [
            f for f in n if not f.endswith(".py")])  # fmt: skip
    text = (ROOT / "configs" / "ou_gp.toml").read_text()
    text = text.replace('recipe = "series_gp"', 'recipe = "series_gp"\nnumbers = { steps = 60 }')
    Path("ou.toml").write_text(text)
    assert run("run", "fit", "ou.toml") == 0
    capsys.readouterr()
    for name, rival in (
        ("impute_series", "linear interpolation"),
        ("forecast_series", "last value"),
    ):
        assert run("run", name, "ou.toml", "--json") == 0
        rows = last(capsys)
        mine, theirs = rows["value, model"], rows[f"value, {rival}"]
        assert mine["crps_pooled"] < 1.05 * theirs["crps_pooled"]  # type: ignore[index]
        folder = Path("runs") / f"ou_gp_{name.split('_')[0]}"
        scores = json.loads((folder / "scores.json").read_text())
        assert len(scores["scores"]["model"]["value"]["crps"]) == 5  # item by item
        assert run("run", name, "ou.toml") == 2 and "exists" in capsys.readouterr().err
    filled = store.open("runs/ou_gp_impute/filled.zarr")
    whole = of(store.open("stores/ou.zarr")).split("test")
    kept = filled["value"].values == np.concatenate([i.values[:, 0] for i in whole])
    assert 0.6 < kept.all(0).mean() < 0.8  # 30 % were hidden, the others stand in every member


def test_a_file_with_gaps_of_its_own_is_filled_by_the_pipeline(here: Path) -> None:
    shutil.copytree(ROOT / "pipelines", here / "pipelines")
    Path("fill.toml").write_text(
        '# Two gauges with gaps\n[impute_series]\nmodel = "gp"\nfile = "gauges.csv"\nout = "out"\n'
    )
    assert run("run", "impute_series", "fill.toml") == 0
    ds = store.open("out/filled.zarr")
    assert np.isfinite(ds["level"]).all() and Path("out/gaps.png").stat().st_size > 10_000
    assert not Path("out/scores.json").exists()


def test_one_series_of_a_frame_has_no_dim_of_items(here: Path) -> None:
    frame = pd.read_csv("gauges.csv", parse_dates=["timestamp"])
    frame[frame["item_id"] == "north"].drop(columns="item_id").to_csv("north.csv", index=False)
    assert run("impute", "gp", "north.csv", "-o", "north.zarr", "--members", "2") == 0
    ds: xr.Dataset = store.open("north.zarr")
    assert ds["level"].dims == ("member", "time")
    items: Items = of("north.csv")
    assert replace(items, form=None).form is None


def test_a_fault_of_a_table_names_the_flag_that_mends_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv("gauges.csv").query("item_id == 'north'")[["timestamp", "level"]]
    table.loc[[4, 5], "level"] = -999.0
    table = pd.concat([table.iloc[:60], table.iloc[59:]])
    table.to_csv("bad.csv", index=False)
    words = ["impute", "gp", "bad.csv", "-o", "mended.csv", "--members", "4"]
    for flags, said in (
        ((), "--missing -999"),
        (("--missing", "-999"), "--keep first"),
        (("--missing", "-999", "--keep", "last"), ""),
    ):
        assert run(*words, *flags) == (2 if said else 0)
        assert said in capsys.readouterr().err
        assert Path("mended.csv").exists() is not bool(said)
    done = pd.read_csv("mended.csv")
    assert len(done) == 80 and done["level"].between(1, 5).all()
    table.drop_duplicates().iloc[::-1].to_csv("bad.csv", index=False)
    assert run(*words, "--missing", "-999", "--overwrite") == 2
    assert "say --sort" in capsys.readouterr().err
    assert run(*words, "--missing", "-999", "--overwrite", "--sort") == 0
    assert pd.read_csv("mended.csv").equals(done)
