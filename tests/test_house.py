"""The whole house: store, train, save, load, recover, score, zarr; the demo on a user's file."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import sciddm as sd
from sciddm import cli, config, filling, recipe, train, verbs
from sciddm.data import split, stations, store
from sciddm.data.items import Item, Items
from sciddm.data.series import SeriesCodec
from sciddm.solve import Diffusion

ROOT = Path(__file__).parents[1]
MONTH = ROOT.parent / "shared" / "data" / "climate" / "era5_t2m_uk_2019-03.nc"
SHIPPED = sorted(p.parent for p in (ROOT / "models").glob("*/model.json"))

EXPERIMENT = """# Poisson at 16 x 16: forty steps, to see that the road is open
[data]
recipe = "poisson"
store = "stores/poisson.zarr"
numbers = { samples = 60, grid = 16 }

[model]
recipe = "poisson"
numbers = { width = 4, modes = 3, blocks = 1, steps = 12 }

[train]
out = "trained/poisson"
steps = 40
batch = 8
warmup = 5
ema = 0.9
checkpoint_every = 10
validation_every = 20
accelerator = "cpu"
"""
DRAW = ["--members", "20", "--seed", "7", "--json"]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that sees the shelves and holds one experiment."""
    for kind in recipe.SHELVES:
        (tmp_path / kind).symlink_to(ROOT / kind)
    (tmp_path / "toy.toml").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *line: str) -> dict[str, Any]:
    """What a command prints for machines; it must succeed."""
    code = cli.main(list(line))
    out, err = capsys.readouterr()
    assert code == 0, err
    found: dict[str, Any] = json.loads(out.splitlines()[-1], parse_constant=lambda c: 1 / 0)
    return found


def sensors(truth: xr.Dataset) -> xr.Dataset:
    """Fifteen stations between the grid points that see the solution, each with its own error."""
    rng = np.random.default_rng(0)
    at = {d: ("station", rng.uniform(0, 1, 15)) for d in ("y", "x")}
    where = {d: xr.DataArray(v[1], dims="station") for d, v in at.items()}
    std = 1e-5 * (1 + np.arange(15) % 3)
    values = truth["solution"].interp(where).values + std * rng.standard_normal(15)
    return xr.Dataset(
        {"solution": ("station", values), "solution_std": ("station", std)}, coords=at
    )


def test_the_road_by_commands_and_by_python_is_one(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two commands from a store to a posterior; the same in Python, to the bit."""
    facts = said(capsys, "train", "toy.toml", "--json")
    assert facts == {"model": "trained/poisson", "run": "runs/poisson", "steps": 40}
    ds = store.open("stores/poisson.zarr")
    case = int(split.select(ds, "test")["sample"][0])
    truth = ds.isel(sample=[case])
    table = sensors(truth.isel(sample=0, drop=True))
    table.to_dataframe().reset_index().to_csv("seen.csv", index=False)
    facts = said(capsys, "recover", "trained/poisson", "seen.csv", "-o", "post.zarr", *DRAW)
    assert facts["members"] == 20 and facts["steps"] == 12 and facts["network_evaluations"] == 12
    assert 0.6 < facts["misfit_sd"] < 1.6

    # the same in Python
    run = config.read("toy.toml")
    assert run.data is not None and run.train is not None
    builder = recipe.load("models/poisson.py")
    untrained = builder.build(ds, width=4, modes=3, blocks=1, steps=12)
    numbers = config.changed(run.train, {"out": "again/poisson", "run": "runs/again"})
    model = train.fit(untrained, ds, numbers)
    model.save("again/poisson")
    for name in ("weights.safetensors", "codec.json"):
        assert (
            Path("again/poisson", name).read_bytes() == Path("trained/poisson", name).read_bytes()
        )
    loaded = sd.load("again/poisson")
    read = stations.read("seen.csv")
    std = read[["solution_std"]].rename(solution_std="solution")
    seen = sd.Observed(read[["solution"]], std=std)
    post = sd.recover(loaded, seen, members=20, seed=7)
    by_command = store.open("post.zarr")
    xr.testing.assert_identical(by_command.load(), post)
    assert store.verify("post.zarr") == []
    streamed = sd.ensemble.run(sd.Job(loaded, seen, 20, 7), "streamed.zarr")
    xr.testing.assert_equal(streamed.load(), post)

    # scores: the command's, the library's, and what they must be
    store.write(truth, "truth.zarr")
    rows = said(capsys, "score", "post.zarr", "truth.zarr", "--json")
    alone = truth.isel(sample=0, drop=True)
    assert rows == verbs.figures(post, alone)
    for name in ("coefficient", "solution"):
        crps = float(sd.score.crps(post[name], alone[name]))
        assert rows[name]["crps"] == pytest.approx(crps, rel=1e-6)
    normal = split.select(ds, "train")
    plain = sd.score.gaussian_crps(normal.mean("sample"), normal.std("sample"), alone)
    assert rows["solution"]["crps"] < 0.3 * float(plain["solution"])
    assert rows["coefficient"]["crps"] < float(plain["coefficient"])

    # and what stands beside it
    assert said(capsys, "verify", "trained/poisson", "--json")["whole"]
    assert said(capsys, "verify", "post.zarr", "--json")["whole"]
    facts = said(capsys, "generate", "trained/poisson", "-o", "new.zarr", *DRAW)
    new = sd.generate(loaded, members=20, seed=7)
    xr.testing.assert_identical(store.open("new.zarr").load(), new)
    picture = said(capsys, "plot", "post.zarr", "--truth", "truth.zarr", "-o", "p.png", "--json")
    assert Path(picture["picture"]).read_bytes().startswith(b"\x89PNG")
    assert cli.main(["card", "trained/poisson"]) == 0
    assert capsys.readouterr().out.startswith("#")


def test_a_command_that_was_killed_is_resumed(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL between two checkpoints: `--resume` ends at the weights of a run left alone."""
    assert cli.main(["train", "toy.toml", "-o", "trained/whole"]) == 0
    shutil.rmtree("runs", ignore_errors=True)

    def body() -> None:
        settle = train.Loop.settle

        def last(self: train.Loop, step: int) -> None:
            if step == 27:
                os.kill(os.getpid(), signal.SIGKILL)
            settle(self, step)

        train.Loop.settle = last  # type: ignore[method-assign]
        cli.main(["train", "toy.toml"])

    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL and not Path("trained/poisson").exists()
    capsys.readouterr()
    assert cli.main(["train", "toy.toml"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert cli.main(["train", "toy.toml", "--resume"]) == 0
    one, two = (
        Path("trained", n, "weights.safetensors").read_bytes() for n in ("poisson", "whole")
    )
    assert one == two


# What a config may try; the file beside it would leave a marker if a line of it ran.
ATTACKS = {
    "a call for a recipe": (
        'recipe = "poisson"',
        "recipe = \"__import__('os').system('touch marker')\"",
    ),
    "a function for a recipe": ('recipe = "poisson"', 'recipe = "os.system"'),
    "a recipe outside": ('recipe = "poisson"', 'recipe = "../evil.py"'),
    "a recipe by its whole path": ('recipe = "poisson"', 'recipe = "{outside}/evil.py"'),
    "a recipe by a link": ('recipe = "poisson"', 'recipe = "link.py"'),
    "a recipe without a card": ('recipe = "poisson"', 'recipe = "evil.py"'),
    "a call for a number": ("width = 4", "width = \"__import__('os').system('touch marker')\""),
    "a target to instantiate": (
        "width = 4",
        "width = 4, _target_ = 'os.system', _args_ = ['touch marker']",
    ),
    "a store outside": ('"stores/poisson.zarr"', '"../marker"'),
    "a store by its whole path": ('"stores/poisson.zarr"', '"{outside}/marker"'),
    "a model outside": ('"trained/poisson"', '"trained/../../marker"'),
    "a model by a link": ('"trained/poisson"', '"away/marker"'),
    "a run outside": ("steps = 40", 'steps = 40\nrun = "../marker"'),
    "a model over the shelf": ('"trained/poisson"', '"models/poisson.py"'),
}


@pytest.mark.parametrize(("line", "instead"), ATTACKS.values(), ids=ATTACKS.keys())
def test_a_config_runs_nothing_and_writes_nowhere_else(
    line: str, instead: str, house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = house.parent
    evil = f"from pathlib import Path\nPath({str(outside / 'marker')!r}).touch()\n"
    for place in (house, outside):
        (place / "evil.py").write_text(evil)
    (house / "link.py").symlink_to(outside / "evil.py")
    (house / "away").symlink_to(outside)
    text = EXPERIMENT.replace(line, instead.format(outside=outside))
    assert text != EXPERIMENT
    (house / "attack.toml").write_text(text)
    before = sorted(str(p) for p in house.rglob("*")), (ROOT / "models/poisson.py").read_bytes()
    assert cli.main(["train", "attack.toml"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (outside / "marker").exists() and not (house / "marker").exists()
    after = sorted(str(p) for p in house.rglob("*")), (ROOT / "models/poisson.py").read_bytes()
    assert after == before


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda f: f.name)
def test_a_shipped_model_is_whole_small_and_says_what_it_is(folder: Path) -> None:
    model = sd.load(folder)
    assert sum(f.stat().st_size for f in folder.iterdir()) < 16e6
    for heading in recipe.SHELVES["models"].headings:
        assert heading in model.card, heading
    if isinstance(model.codec, SeriesCodec) and (model.codec.static or model.codec.covariates):
        draws = filling.imputed(model, told(model.codec), members=1)
        assert np.isfinite(draws.values[0]).all()
    elif model.task.lead is None:
        few = {"steps": 3} if isinstance(model.sampler, Diffusion) else {}
        post = sd.generate(model, members=1, **few)
        assert set(post.data_vars) == set(model.task.target.variables)
    # what is fitted and not trained has no such note
    assert model.notes.get("training", {"steps": 1})["steps"] > 0


def told(codec: SeriesCodec) -> Items:
    """Three hours of an item without values, and all that the model is told beside it."""
    assert codec.static_mean is not None and not codec.covariates and not codec.clock.dated
    values = np.full((3, len(codec.names)), np.nan)
    item = Item("one", np.arange(3.0), values, static=np.asarray(codec.static_mean))
    return Items(codec.names, (item,), static=codec.static)


# ---------------------------------------------------------------------------- the demo


def record(path: Path, *, land: bool = False, curved: bool = False) -> Path:
    """Sixty days of smooth Gaussian waves: a NetCDF file as a user might have it."""
    rng = np.random.default_rng(0)
    time = xr.date_range("2001-01-01", periods=60, freq="D", calendar="noleap", use_cftime=True)
    north, east = np.linspace(60, 50, 15), np.linspace(-6, 3, 21)
    lat, lon = np.meshgrid(north, east, indexing="ij")
    k = np.arange(1, 5).reshape(4, 1, 1, 1)
    angle, (a, b) = 0.2 * k * lon + 0.15 * k * lat, rng.standard_normal((2, 4, 60, 1, 1))
    values = 280 + 2 * ((a * np.cos(angle) + b * np.sin(angle)) / k).sum(0)
    if land:
        values[:, 5:9, 8:14] = np.nan
    axes: dict[str, Any] = {"time": ("time", time)}
    if curved:
        dims = ("time", "j", "i")
        axes |= {
            "nav_lat": (dims[1:], lat, {"units": "degrees_north", "standard_name": "latitude"}),
            "nav_lon": (dims[1:], lon, {"units": "degrees_east", "standard_name": "longitude"}),
        }
    else:
        dims = ("time", "latitude", "longitude")
        axes |= {
            "latitude": ("latitude", north, {"units": "degrees_north"}),
            "longitude": ("longitude", east, {"units": "degrees_east"}),
        }
    attrs = {"units": "K", "long_name": "temperature"}
    ds = xr.Dataset({"temp": (dims, values.astype("f4"), attrs)}, axes)
    ds.to_netcdf(path, engine="h5netcdf")
    return path


def demonstrated(
    capsys: pytest.CaptureFixture[str], path: Path, variable: str, *more: str
) -> dict[str, dict[str, float]]:
    """The rows of the demo's table; its outputs are whole."""
    facts = said(capsys, "demo", "--data", str(path), "--variable", variable, "--json", *more)
    assert facts["target"] == variable
    assert Path("runs/demo/posterior.png").read_bytes().startswith(b"\x89PNG")
    assert store.verify("runs/demo/posterior.zarr") == []
    rows: dict[str, dict[str, float]] = facts["rows"]
    return rows


FILES: dict[str, Callable[[Path], Path]] = {
    "a grid": lambda p: record(p / "mine.nc"),
    "a land mask": lambda p: record(p / "mine.nc", land=True),
    "a curved grid": lambda p: record(p / "mine.nc", curved=True),
}


@pytest.mark.parametrize("make", FILES.values(), ids=FILES.keys())
def test_the_demo_on_a_file_of_ones_own(
    make: Callable[[Path], Path], house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make(house)
    rows = demonstrated(capsys, path, "temp")
    model, oi, climatology, thin = rows.values()
    assert list(rows)[-1] == "interpolation" and "misfit_sd" not in climatology
    # eight numbers behind every field: nine sensors know most of it
    assert model["fair_crps"] < 0.5 * climatology["fair_crps"]
    assert model["fair_crps"] < 1.2 * oi["fair_crps"]
    assert model["error_of_mean"] < thin["error_of_mean"]
    assert 0.5 < model["misfit_sd"] < 1.6 and model["evaluations"] > 0 == oi["evaluations"]
    post = store.open("runs/demo/posterior.zarr").load()
    source = xr.open_dataset(path, engine="h5netcdf", decode_times=False)
    assert post["temp"].dims == ("member", *source["temp"].dims[1:]) and post.sizes["member"] == 64
    assert post["temp"].attrs["units"] == "K" and post["temp"].attrs["long_name"] == "temperature"
    hole = np.isnan(source["temp"].values[0])
    np.testing.assert_array_equal(
        np.isnan(post["temp"].values), np.broadcast_to(hole, post["temp"].shape)
    )
    for dim in post["temp"].dims[1:]:
        if dim in source.coords:
            np.testing.assert_array_equal(post[dim], source[dim])
    again = demonstrated(capsys, path, "temp")
    assert again[next(iter(rows))]["fair_crps"] == model["fair_crps"]


def test_the_demo_prints_a_table(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = record(house / "mine.nc")
    line = ["demo", "--data", str(path), "--variable", "temp", "--members", "8", "-o", "mine"]
    assert cli.main(line) == 0
    out = capsys.readouterr().out
    for word in ("optimal interpolation", "climatology", "coverage_90", "mine/posterior.zarr"):
        assert word in out
    assert "nan" not in out
    assert cli.main(line) == 2  # a folder of the user's own is not replaced unasked
    assert "--overwrite" in capsys.readouterr().err


BAD: dict[str, tuple[str, Callable[[xr.Dataset], xr.Dataset], str]] = {
    "another variable": ("'tmp'.*Did you mean 'temp'", lambda ds: ds, "tmp"),
    "too few fields": ("expected at least 20", lambda ds: ds.isel(time=slice(19)), "temp"),
    "an infinite value": (
        "inf",
        lambda ds: ds.assign(temp=ds["temp"].where(ds["time"] > 3, np.inf)),
        "temp",
    ),
    "all missing": ("temp", lambda ds: ds.assign(temp=ds["temp"] * np.nan), "temp"),
    "no time": ("temp|time|sample", lambda ds: ds.isel(time=0, drop=True), "temp"),
}


@pytest.mark.parametrize(("why", "spoil", "variable"), BAD.values(), ids=BAD.keys())
def test_the_demo_refuses_a_file_in_one_line(
    why: str,
    spoil: Callable[[xr.Dataset], xr.Dataset],
    variable: str,
    house: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with xr.open_dataset(record(house / "whole.nc"), engine="h5netcdf", decode_times=False) as ds:
        spoil(ds.load()).to_netcdf(house / "mine.nc", engine="h5netcdf")
    assert cli.main(["demo", "--data", "mine.nc", "--variable", variable]) == 2
    out, err = capsys.readouterr()
    assert re.search(why, err) and len(err.splitlines()) == 1, err
    assert not (house / "runs").exists()


@pytest.mark.skipif(not MONTH.exists(), reason="the record lies beside the repository")
@pytest.mark.filterwarnings("ignore::sciddm.data.checks.DataWarning")
def test_the_demo_on_a_month_of_hours_over_the_united_kingdom(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = demonstrated(capsys, MONTH, "t2m")
    model, oi, climatology, thin = rows.values()
    assert model["fair_crps"] < 0.4 * climatology["fair_crps"]
    assert 0.9 < model["fair_crps"] / oi["fair_crps"] < 1.1
    assert model["error_of_mean"] < 0.6 * thin["error_of_mean"]
    assert 0.75 < model["coverage_90"] < 0.97 and 0.8 < model["misfit_sd"] < 1.2
    post = store.open("runs/demo/posterior.zarr")
    assert post["t2m"].dims == ("member", "latitude", "longitude")
    assert post["t2m"].shape == (64, 33, 49) and float(post["latitude"][0]) > float(
        post["latitude"][-1]
    )


def test_the_demo_of_the_house(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped network stands at the exact posterior, from 3 % of the points."""
    rows = said(capsys, "demo", "--members", "16", "--json")["rows"]
    network, _, exact, classical = rows.values()
    assert network["fair_crps"] < 1.15 * exact["fair_crps"]
    assert network["error_of_mean"] < 0.4 * classical["error_of_mean"]
    assert 0.8 < network["misfit_sd"] < 1.5 and 0.8 < network["coverage_90"] < 0.97
    assert network["evaluations"] <= 50
    assert store.verify("runs/demo/posterior.zarr") == []
