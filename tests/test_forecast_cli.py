"""`sciddm forecast` and its pipeline: a user's round trip on files, and bad input by exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import sciddm
from sciddm import cli
from sciddm.data import split, store
from sciddm.data.codec import Grid, Normaliser
from sciddm.data.convention import from_climpred, from_weatherbench2
from sciddm.forecasters import LinearGaussian
from sciddm.model import Model
from sciddm.task import Lead, Task, View

ROOT = Path(__file__).parents[1]
RHO, NOISE, MEAN, STD = 0.9, 0.4, 280.0, 5.0
POINTS = 6


def model(longest: int | None = None) -> Model:
    """Independent red noise at each of 2 x 3 points, hourly."""
    grid = Grid(
        ("lat", "lon"),
        {"lat": np.array([50.0, 52.0]), "lon": np.array([0.0, 1.0, 2.0])},
        {"lat": {"units": "degrees_north"}, "lon": {"units": "degrees_east"}},
    )
    codec = Normaliser(
        grid,
        ("t2m",),
        {"t2m": {"units": "K", "long_name": "temperature"}},
        np.full((1, 1, 1), MEAN),
        np.array([STD]),
    )
    one = torch.eye(POINTS, dtype=torch.float64)
    law = LinearGaussian(
        one.reshape(POINTS, 1, 2, 3),
        RHO * one[None],
        NOISE**2 * one,
        torch.zeros((), dtype=torch.float64),
    )
    return Model(Task(View(("t2m",)), "time", Lead(1.0, "hours"), "time"), codec, law,
                 card="# Red noise\n")  # fmt: skip


def record(count: int = 300) -> xr.Dataset:
    """One draw of the same law, with splits."""
    rng = np.random.default_rng(0)
    x = np.zeros((count, 2, 3))
    for n in range(1, count):
        x[n] = RHO * x[n - 1] + NOISE * rng.standard_normal((2, 3))
    grid = model().codec.grid.template()
    time = pd.date_range("2019-03-01", periods=count, freq="h")
    ds = grid.assign_coords(time=("time", time, {"standard_name": "time"}))
    ds["t2m"] = (("time", "lat", "lon"), (MEAN + STD * x).astype("f4"), {"units": "K"})
    parts = {"train": [0, 150], "validation": [150, 200], "test": [200, count]}
    return split.attach(ds.assign_attrs(sciddm_sample_dim="time"), parts)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    model().save(folder / "model")
    store.write(record(), folder / "past.zarr")
    return folder


@pytest.fixture
def here(tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("model", "past.zarr"):
        (tmp_path / name).symlink_to(files / name)
    return tmp_path


def test_a_forecast_goes_from_file_to_store_and_is_the_one_of_python(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "forecast model past.zarr -o out.zarr --steps 5 --members 20 --seed 3"
    assert cli.main([*line.split(), "--start", "2019-03-10T06", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["engine"] == "LinearGaussian" and facts["leads"] == 5 and facts["members"] == 20
    ds = store.open("out.zarr")
    assert store.verify("out.zarr") == []
    want = sciddm.forecast(sciddm.load("model"), record(), steps=5, members=20, seed=3,
                           start="2019-03-10T06")  # fmt: skip
    xr.testing.assert_identical(ds.drop_attrs().load(), want.drop_attrs())
    assert ds["valid_time"].values[0] == np.datetime64("2019-03-10T07")
    assert cli.main([*line.split(), "--start", "2019-03-10T06", "--resume"]) == 0  # it is whole
    capsys.readouterr()
    assert cli.main(line.split()) == 2 and "exists" in capsys.readouterr().err


@pytest.mark.parametrize(("names", "back", "dims"), [
    ("weatherbench2", from_weatherbench2, ("time", "realization", "prediction_timedelta")),
    ("climpred", from_climpred, ("init", "member", "lead")),
])  # fmt: skip
def test_names_on_request_hold_the_same_numbers(
    here: Path, capsys: pytest.CaptureFixture[str], names: str, back: object, dims: tuple[str, ...]
) -> None:
    line = f"forecast model past.zarr -o out.zarr --steps 3 --members 4 --names {names}"
    assert cli.main([*line.split(), "--start", "2019-03-10", "2019-03-11"]) == 0
    ds = store.open("out.zarr")
    assert ds["t2m"].dims[:3] == dims
    want = sciddm.forecast(sciddm.load("model"), record(), steps=3, members=4,
                           start=["2019-03-10", "2019-03-11"])  # fmt: skip
    ours = back(ds.load())  # type: ignore[operator]
    ours = ours.rename({k: v for k, v in (("latitude", "lat"), ("longitude", "lon")) if k in ours})
    xr.testing.assert_identical(ours.drop_attrs(), want.drop_attrs())
    capsys.readouterr()
    assert cli.main([*line.replace("out", "one").split()]) == 0  # one start is a dim all the same
    assert store.open("one.zarr").sizes[dims[0]] == 1


@pytest.mark.parametrize(("more", "words"), [
    (["--start", "2019-03-10T06:20"], "nearest is 2019-03-10T06:00"),
    (["--start", "2020-01-01"], "nearest is 2019-03-13T11:00"),
    (["--steps", "0"], "whole number above 0"),
    (["--names", "climpredd"], "Did you mean 'climpred'"),
    (["--resume", "--overwrite"], "expected one of them"),
    (["--forcings", "none.nc"], "does not exist"),
    (["-o", "past.zarr"], "which is the input"),
])  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(
    here: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert cli.main(["forecast", "model", "past.zarr", "-o", "out.zarr", *more]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
    assert not Path("out.zarr").exists() and not Path("out.zarr.partial").exists()


def test_a_model_of_fields_does_not_forecast(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(ROOT / "models" / "poisson")
    assert cli.main(["forecast", folder, "past.zarr", "-o", "out.zarr"]) == 2
    assert "use sd.recover or sd.generate" in capsys.readouterr().err
    assert cli.main(["generate", "model", "-o", "out.zarr"]) == 2
    assert "use sd.forecast" in capsys.readouterr().err


CONFIG = """# Red noise, hourly, scored on the test split
[forecast]
model = "model"
past = "past.zarr"
out = "runs/forecast"
steps = 6
starts = {starts}
members = 50
block = 2
"""


def test_the_pipeline_scores_an_exact_law_as_one(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Spread/skill is 1 at every lead, CRPS that of the law, below persistence; dates line up."""
    Path("run.toml").write_text(CONFIG.format(starts=40))
    pipeline = str(ROOT / "pipelines" / "forecast.py")
    assert cli.main(["run", pipeline, "run.toml", "--json"]) == 0
    means = json.loads(capsys.readouterr().out)
    told = json.loads(Path("runs/forecast/scores.json").read_text())
    assert told["leads_scored"] == 6 and told["starts"] == 40
    ours, still = (told["scores"][f"t2m, {who}"] for who in ("LinearGaussian", "persistence"))
    lead = np.arange(1, 7)
    std = STD * NOISE * np.sqrt((1 - RHO ** (2 * lead)) / (1 - RHO**2))
    assert np.allclose(np.array(ours["crps"]) / (std / np.sqrt(np.pi)), 1, atol=0.15)
    assert np.allclose(ours["spread_skill"], 1, atol=0.15)
    assert means["t2m, LinearGaussian"]["crps"] < means["t2m, persistence"]["crps"]
    assert all(low <= v <= high for low, v, high in
               zip(ours["crps_low"], ours["crps"], ours["crps_high"], strict=True))  # fmt: skip
    assert len(still["crps"]) == 6
    made = {p.name for p in Path("runs/forecast").iterdir()}
    assert made == {"forecast.zarr", "scores.json", "t2m_scores.png", "t2m_ranks.png",
                    "t2m_fan.png", "t2m_maps.png"}  # fmt: skip
    assert cli.main(["run", pipeline, "run.toml"]) == 2
    assert "exists" in capsys.readouterr().err


def test_leads_beyond_the_record_are_forecast_and_not_scored(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = CONFIG.format(starts='["2019-03-13T08", "2019-03-13T04"]')
    pipeline = str(ROOT / "pipelines" / "forecast.py")
    Path("run.toml").write_text(text)
    assert cli.main(["run", pipeline, "run.toml"]) == 2
    assert "two blocks" in capsys.readouterr().err and not Path("runs").exists()
    Path("run.toml").write_text(text.replace("block = 2", ""))
    assert cli.main(["run", pipeline, "run.toml"]) == 0
    told = json.loads(Path("runs/forecast/scores.json").read_text())
    assert told["leads"] == 6 and told["leads_scored"] == 3
    assert len(told["scores"]["t2m, LinearGaussian"]["crps"]) == 3
    assert store.open("runs/forecast/forecast.zarr").sizes["lead_time"] == 6
