"""Every file on the shelves: its card, its shape, and that it runs at toy size."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import sciddm
from sciddm import cli, config, recipe
from sciddm.completion import Completion
from sciddm.data import items, split, store
from sciddm.data.films import Films
from sciddm.errors import InputError
from sciddm.forecasters import Forecaster, Scored
from sciddm.random import Streams
from sciddm.series.base import SeriesSampler
from sciddm.solve import Diffusion

ROOT = Path(__file__).parents[1]
FILES = {kind: sorted((ROOT / kind).glob("*.py")) for kind in recipe.SHELVES}
EVERY = [(kind, path) for kind, paths in FILES.items() for path in paths]
# Some recipes read public files and accept no others; local copies may lie beside the repository.
LOCAL = ROOT.parent / "shared" / "data"
MONTH = LOCAL / "climate" / "era5_t2m_uk_2019-03.nc"
PUBLIC = {
    "era5_t2m_uk": MONTH,
    "argo_profiles": LOCAL / "ocean",
    "co2": LOCAL / "series",
    "etth1": LOCAL / "series",
    "exchange_rate": LOCAL / "series",
    "nyc_weather": LOCAL / "stations",
    "ostia_sst": LOCAL / "climate",
    "physionet2012": LOCAL / "series",
    "sst_pacific": LOCAL / "ensembles",
    "trefht": LOCAL / "climate",
}
MADE_HERE = [p for p in FILES["datasets"] if p.stem not in PUBLIC or PUBLIC[p.stem].exists()]
SHELF_NAMES = {*recipe.SHELVES, "benchmarks", "tests"}


def name(value: object) -> str | None:
    return f"{value.parent.name}/{value.stem}" if isinstance(value, Path) else None


@pytest.mark.parametrize(("kind", "path"), EVERY, ids=name)
def test_the_card_and_the_function_are_there(kind: str, path: Path) -> None:
    assert recipe.faults(path, kind) == []


@pytest.mark.parametrize(("kind", "path"), EVERY, ids=name)
def test_a_card_says_something_under_every_heading(kind: str, path: Path) -> None:
    lines = recipe.card(path).splitlines()
    assert lines[0].strip() and not lines[0].startswith(recipe.SHELVES[kind].headings)
    for heading in recipe.SHELVES[kind].headings:
        at = next(i for i, line in enumerate(lines) if line.startswith(heading))
        below = "".join(lines[at : at + 2]).removeprefix(heading)
        assert len(re.findall(r"\w+", below)) >= 1, heading


@pytest.mark.parametrize(("kind", "path"), EVERY, ids=name)
def test_a_shelf_file_is_plain(kind: str, path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert len(source.splitlines()) <= 150
    assert not [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not SHELF_NAMES & {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 and str(node.module).split(".")[0] not in SHELF_NAMES


@pytest.mark.parametrize("path", FILES["datasets"], ids=name)
def test_a_data_set_takes_a_size_and_a_seed_and_replaces_when_told(path: Path) -> None:
    takes = inspect.signature(recipe.load(path).make).parameters
    assert takes["size"].default == "toy" and takes["seed"].default == 0
    assert takes["overwrite"].default is False


@pytest.mark.parametrize("path", FILES["models"], ids=name)
def test_a_model_names_data_sets_that_are_on_the_shelf(path: Path) -> None:
    named = re.findall(r"`(datasets/\w+\.py)`", recipe.card(path))
    assert all((ROOT / file).is_file() for file in [*named, data_set(path).relative_to(ROOT)])


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=name)
def test_a_config_names_what_exists_with_numbers_it_takes(path: Path) -> None:
    run = config.read(path)
    assert len(run.title.split()) >= 3
    if run.data is not None:
        make = recipe.load(ROOT / "datasets" / f"{Path(run.data.recipe).stem}.py").make
        spoken_for = ("size", "seed", "overwrite")
        recipe.bind(make, run.data.numbers, "data.numbers", spoken_for=spoken_for)
    if run.model is not None:
        build = recipe.load(ROOT / "models" / f"{Path(run.model.recipe).stem}.py").build
        recipe.bind(build, run.model.numbers, "model.numbers")


def data_set(model: Path) -> Path:
    """The first data set that a model's card names; a model of any data gets a user's own file."""
    named = re.findall(r"`datasets/(\w+)\.py`", recipe.card(model))
    return ROOT / "datasets" / f"{(named or ['netcdf'])[0]}.py"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve days of hourly temperature on a small grid over Britain: a travelling wave, as the
    user's own NetCDF would be."""
    time = np.datetime64("2019-03-18", "ns") + np.arange(12 * 24) * np.timedelta64(1, "h")
    latitude, longitude = np.linspace(58, 50, 9), np.linspace(-10, 2, 13)
    phase = 2 * np.pi * np.arange(time.size) / 31
    wave = np.sin(phase[:, None, None] - np.deg2rad(20 * longitude) + np.deg2rad(latitude)[:, None])
    noise = np.random.default_rng(0).standard_normal((time.size, 9, 13))
    temperature = 282 + 3 * wave + 0.3 * np.cumsum(noise, 2) / 4
    ds = xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), temperature.astype("f4"), {"units": "K"})},
        {
            "time": ("time", time, {"standard_name": "time"}),
            "latitude": ("latitude", latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", longitude, {"units": "degrees_east"}),
        },
        {"Conventions": "CF-1.10"},
    )
    path = tmp_path_factory.mktemp("record") / "t2m.nc"
    ds.to_netcdf(path, engine="h5netcdf")
    return path


def needs(path: Path, record: Path) -> dict[str, object]:
    """What a recipe asks for beyond its defaults: a file to read and what to read from it."""
    given = {"source": str(PUBLIC.get(path.stem, record)), "variables": ["t2m"]}
    takes = inspect.signature(recipe.load(path).make).parameters
    return {key: value for key, value in given.items() if key in takes}


def toy(path: Path, folder: Path, record: Path) -> xr.Dataset:
    """The data set of a recipe at its defaults."""
    store_path = str(folder / "toy.zarr")
    return recipe.make(config.Data(recipe=str(path), store=store_path, numbers=needs(path, record)))


@pytest.mark.parametrize("path", MADE_HERE, ids=name)
def test_a_data_set_is_made_whole_labelled_and_again_the_same(
    path: Path, tmp_path: Path, record: Path
) -> None:
    (tmp_path / "again").mkdir()
    ds = toy(path, tmp_path, record)
    assert store.verify(tmp_path / "toy.zarr") == []
    dim = ds.attrs["sciddm_sample_dim"]
    assert ds.attrs["Conventions"].startswith("CF-") and ds.attrs["sciddm_dataset"] == path.stem
    rows = split.row_sizes(ds) or ("", dim)  # series of their own times stand along another dim
    for variable in ds.drop_vars(rows[0], errors="ignore").data_vars.values():
        assert variable.dims[0] in (dim, rows[1])
        assert variable.dtype == np.float32 and variable.attrs["units"]
        assert float(variable.std()) > 0 and bool(np.isfinite(variable).any())
    last = 0
    for part in ("train", "validation", "test"):
        start, stop = ds.attrs["sciddm_splits"][part]
        assert last <= start < stop, part
        last = stop
    assert last <= ds.sizes[dim]
    xr.testing.assert_identical(ds.load(), toy(path, tmp_path / "again", record).load())


@pytest.mark.parametrize("path", MADE_HERE, ids=name)
def test_a_data_set_refuses_to_replace_and_an_unknown_size(
    path: Path, tmp_path: Path, record: Path
) -> None:
    toy(path, tmp_path, record)
    with pytest.raises(InputError, match="exists"):
        toy(path, tmp_path, record)
    with pytest.raises(InputError, match="'huge'"):
        recipe.load(path).make(tmp_path / "other.zarr", size="huge", **needs(path, record))
    assert not (tmp_path / "other.zarr").exists()


@pytest.mark.parametrize("path", FILES["models"], ids=name)
def test_a_model_is_built_saved_and_loaded_and_draws_the_same_members(
    path: Path, tmp_path: Path, record: Path
) -> None:
    data = data_set(path)
    if data.stem == "era5_t2m_uk" and not MONTH.exists():
        data = data.with_name("netcdf.py")
    ds = toy(data, tmp_path, record)
    model = recipe.load(path).build(ds)
    assert isinstance(model, sciddm.Model)
    again = sciddm.load(model.save(tmp_path / "model"))
    if isinstance(model.sampler, SeriesSampler):
        few = filled(again, ds, 2)
        assert np.allclose(filled(model, ds, 3)[:2], few, atol=1e-4 * float(np.nanstd(few)))
        assert np.array_equal(filled(sciddm.load(tmp_path / "model"), ds, 3)[:2], few)
        return
    if isinstance(model.sampler, Forecaster):
        drawn = film(again, ds, 2)
        # fitted tensors may lie otherwise in memory than stored ones: a rounding, no more
        assert torch.allclose(film(model, ds, 3)[:2], drawn, atol=1e-4)
        assert torch.equal(film(sciddm.load(tmp_path / "model"), ds, 3)[:2], drawn)
        return
    few = {"steps": 3} if isinstance(model.sampler, Diffusion) else {}
    drawn = sciddm.generate(model, members=3, seed=1, **few)
    xr.testing.assert_equal(
        drawn.isel(member=[0, 1]), sciddm.generate(again, members=2, seed=1, **few)
    )
    for key in model.task.target.variables:
        assert drawn[key].attrs["units"] == ds[key].attrs["units"]
        assert not np.allclose(drawn[key].isel(member=0), drawn[key].isel(member=1))
        # Members of an untrained network are rough, but in the units and of the size of the data.
        ratio = float(drawn[key].std() / ds[key].std())
        assert 0.1 < ratio < 10, (key, ratio)


def filled(model: sciddm.Model, ds: xr.Dataset, members: int) -> np.ndarray:
    """The last rows of a test series, hidden and drawn: of the data's size, no two members
    alike."""
    codec = model.cells
    part = codec.conform(items.of(ds, target=codec.names).split("test"))
    item = part.items[0].rows(slice(0, codec.window or 64))
    values = item.values.copy()
    hidden = np.arange(len(item)) >= len(item) - max(2, len(item) // 8)
    values[hidden] = np.nan
    drawn = Completion(model, part.only([replace(item, values=values)]), None, members, 1).draw()
    found = drawn.values[0][:, hidden]
    assert np.isfinite(found).all() and not np.allclose(found[0], found[1])
    ratio = float(found.std(0).mean() / np.nanstd(item.values, 0).mean())
    assert 0 < ratio < 20
    return found


def film(model: sciddm.Model, ds: xr.Dataset, members: int) -> torch.Tensor:
    """Four frames of each member after the first past of the test split: of the data's size, and
    no two members alike."""
    forecaster, steps = model.forecaster, 4
    source = Films(
        split.select(ds, "test"),
        model.codec,
        model.task,
        forecaster.history + max(steps, getattr(forecaster, "block", 1)),
        model.forcings,
    )
    x, context = source.spread(1)
    rows = x[:, :, : forecaster.history].expand(3, *x.shape[1:2], -1, *x.shape[3:])
    drawn = forecaster(
        (3, x.shape[1], steps, *x.shape[3:]), replace(context, past=rows), Streams.of(1, 3)
    )
    assert torch.isfinite(drawn).all() and 0.02 < float(drawn.std() / x.std()) < 20
    if not isinstance(forecaster, Scored):  # whose spread is all learned
        assert not torch.allclose(drawn[0], drawn[1])
    return drawn[:members]


EXPERIMENT = """# Poisson at toy size: twenty steps, to see that the road is open
[data]
recipe = "poisson"
store = "stores/poisson.zarr"

[model]
recipe = "poisson"
numbers = { width = 8, modes = 4, blocks = 1 }

[train]
out = "trained/poisson"
steps = 20
batch = 8
checkpoint_every = 10
validation_every = 10

[recover]
model = "trained/poisson"
observations = "seen.csv"
std = 1e-4
members = 4
steps = 8
seed = 5
out = "flags.zarr"

[evaluate]
model = "trained/poisson"
variable = "solution"
share = 0.1
relative_std = 0.01
cases = 2
members = 8
steps = 12
out = "scores/poisson.json"
"""


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that sees the shelves and holds one experiment."""
    for kind in recipe.SHELVES:
        (tmp_path / kind).symlink_to(ROOT / kind)
    (tmp_path / "toy.toml").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_then_evaluate_beats_climatology(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "toy.toml", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts == {"model": "trained/poisson", "run": "runs/poisson", "steps": 20}
    assert cli.main(["run", "evaluate", "toy.toml", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads(Path("scores/poisson.json").read_text())["scores"] == rows
    # A tenth of the points at 1 % noise: even a hardly trained network on its Gaussian base must
    # know far more of the smooth solution than its mean and spread.
    assert rows["solution"]["crps"] < 0.5 * rows["solution"]["crps_climatology"]
    assert rows["coefficient"]["crps"] < rows["coefficient"]["crps_climatology"]


def test_recover_from_a_config_or_from_flags_is_the_same(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ds = recipe.make(config.Data(recipe="poisson", store="stores/poisson.zarr"))
    recipe.load("models/poisson.py").build(ds, width=8, modes=4, blocks=1).save("trained/poisson")
    points = ds["solution"].isel(sample=60, y=slice(3, 30, 5), x=slice(2, 30, 5))
    table = points.drop_vars("sample").to_dataframe().reset_index()
    table.to_csv("seen.csv", index=False)
    assert cli.main(["run", "recover", "toy.toml", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0.5 < facts["misfit_sd"] < 2
    flags = ["--std", "1e-4", "--members", "4", "--steps", "8", "--seed", "5", "-o", "typed.zarr"]
    assert cli.main(["recover", "trained/poisson", "seen.csv", *flags]) == 0
    one, two = store.open("flags.zarr"), store.open("typed.zarr")
    xr.testing.assert_identical(one.load(), two.load())
    truth = ds["solution"].isel(sample=60)
    error = float(np.sqrt(((one["solution"].mean("member") - truth) ** 2).mean()))
    assert error < 0.2 * float(truth.std())


def test_a_finished_run_is_neither_repeated_nor_replaced_unasked(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "toy.toml"]) == 0
    weights = Path("trained/poisson/weights.safetensors").read_bytes()
    assert cli.main(["train", "toy.toml"]) == 2
    assert "trained/poisson" in capsys.readouterr().err
    shutil.rmtree("trained")
    assert cli.main(["train", "toy.toml"]) == 2
    assert "runs/poisson" in capsys.readouterr().err
    assert cli.main(["train", "toy.toml", "--resume"]) == 0
    assert Path("trained/poisson/weights.safetensors").read_bytes() == weights
    assert cli.main(["train", "toy.toml", "--overwrite"]) == 0
    assert Path("trained/poisson/weights.safetensors").read_bytes() == weights
