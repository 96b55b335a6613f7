"""Shelf files: found by name, checked before they run, bound to numbers of the right type."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import xarray as xr

from sciddm import config, recipe
from sciddm.data import store
from sciddm.errors import InputError

ROOT = Path(__file__).parents[1]
CARD = '"""A ramp.\n\n' + "\n    text\n".join(recipe.SHELVES["datasets"].headings) + '\n"""\n'
RAMP = (
    CARD
    + """
from pathlib import Path
import numpy as np
import xarray as xr
from sciddm.data import store as stores

Path("ran").touch()

def make(store, *, size: str = "toy", seed: int = 0, slope: float = 1.0, count: int = 4,
         overwrite: bool = False) -> xr.Dataset:
    values = (seed + slope * np.arange(count, dtype="float32")).astype("float32")
    attrs = {"sciddm_dataset": "ramp", "sciddm_sample_dim": "sample",
             "sciddm_generator": {"seed": seed, "slope": slope, "count": count}}
    ds = xr.Dataset({"a": ("sample", values, {"units": "1"})}, {"sample": np.arange(count)}, attrs)
    stores.write(ds, store, overwrite=overwrite)
    return ds
"""
)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with one data set recipe, ``datasets/ramp.py``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "ramp.py").write_text(RAMP)
    return tmp_path / "datasets"


def changed(shelf: Path, old: str, new: str) -> Path:
    assert old in RAMP
    (shelf / "other.py").write_text(RAMP.replace(old, new))
    return shelf / "other.py"


def test_a_name_is_found_here_and_from_any_folder_below(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recipe.find("datasets", "ramp").samefile(shelf / "ramp.py")
    deep = shelf.parent / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert recipe.find("datasets", "ramp").samefile(shelf / "ramp.py")
    assert recipe.find("datasets", str(shelf / "ramp.py")) == shelf / "ramp.py"


def test_a_wrong_name_names_the_nearest(shelf: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'ramp'"):
        recipe.find("datasets", "rampp")
    with pytest.raises(InputError, match=r"Did you mean 'datasets/ramp\.py'"):
        recipe.find("datasets", "datasets/ram.py")


def test_without_shelves_the_line_says_where_they_are(shelf: Path) -> None:
    with pytest.raises(InputError, match="repository"):
        recipe.find("pipelines", "train")


def test_loading_leaves_no_name_that_others_could_import(shelf: Path) -> None:
    before = set(sys.modules)
    module = recipe.load(shelf / "ramp.py")
    assert isinstance(module, ModuleType) and module.__name__.startswith("_sciddm_")
    assert not {name for name in set(sys.modules) - before if "ramp" in name or name == "datasets"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Grid and units", "The grid", "Grid and units"),
        ("Cite", "", "Cite"),
        ("def make(", "def made(", "found none"),
        ("def make(store, *,", "def make(path, *,", r"make\(store, \*, \.\.\.\)"),
        ("def make(store, *,", "def make(store,", r"make\(store, \*, \.\.\.\)"),
        ("overwrite: bool = False)", "overwrite: bool = False, **rest)", r"make\(store"),
        ("import numpy as np", "import numpy as", "line"),
    ],
)
def test_a_faulty_file_is_refused_before_a_line_of_it_runs(
    shelf: Path, old: str, new: str, words: str
) -> None:
    path = changed(shelf, old, new)
    with pytest.raises(InputError, match=words) as raised:
        recipe.load(path)
    assert "other.py" in str(raised.value) and "\n" not in str(raised.value)
    assert not Path("ran").exists()


def test_a_file_that_fails_while_it_loads_says_why(shelf: Path) -> None:
    path = changed(shelf, 'Path("ran").touch()', "import nosuchlibrary")
    with pytest.raises(InputError, match="ModuleNotFoundError: No module named 'nosuchlibrary'"):
        recipe.load(path)


def test_a_file_of_no_shelf_needs_its_kind(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "loose.py").write_text(RAMP)
    with pytest.raises(InputError, match="shelf"):
        recipe.load(tmp_path / "loose.py")
    assert recipe.load(tmp_path / "loose.py", "datasets").make


def test_the_card_is_read_without_running(shelf: Path) -> None:
    assert recipe.card(shelf / "ramp.py").startswith("A ramp.")
    assert not Path("ran").exists()


def test_numbers_are_made_with_and_a_store_of_other_numbers_is_refused(shelf: Path) -> None:
    data = config.Data(recipe="ramp", store="a.zarr", seed=2, numbers={"slope": 0.5, "count": 6})
    first = recipe.opened(data)
    assert first["a"].values.tolist() == [2.0, 2.5, 3.0, 3.5, 4.0, 4.5]
    again = recipe.opened(data)
    xr.testing.assert_identical(first.load(), again.load())
    for other in ({"numbers": {"slope": 0.25}}, {"seed": 3}):
        with pytest.raises(InputError, match="another store"):
            recipe.opened(config.changed(data, other))
    changed(shelf, "slope: float = 1.0", "slope: float = 2.0")
    with pytest.raises(InputError, match="recipe = 'ramp', expected 'other'"):
        recipe.opened(config.changed(data, {"recipe": "other"}))


def test_a_store_of_another_size_is_not_taken_for_it(tmp_path: Path) -> None:
    """A toy store under the name of the small one; a number that is said wins over the size."""
    root = Path(__file__).parents[1] / "datasets" / "poisson.py"
    toy = config.Data(recipe=str(root), store=str(tmp_path / "a.zarr"), size="toy")
    recipe.opened(toy)
    recipe.opened(toy)
    with pytest.raises(InputError, match="samples = 64, expected 10000"):
        recipe.opened(config.changed(toy, {"size": "small"}))
    said = config.changed(toy, {"size": "small", "numbers": {"samples": 64, "grid": 32}})
    assert recipe.opened(said).sizes["sample"] == 64


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"slop": 1.0}, r"data\.numbers\.slop: unknown number\. Did you mean 'slope'"),
        ({"slope": "1e-4"}, r"data\.numbers\.slope: .*'1e-4'.*number"),
        ({"count": 4.5}, r"data\.numbers\.count: .*4\.5.*integer"),
        ({"count": True}, r"data\.numbers\.count: .*True.*integer"),
        ({"overwrite": True}, r"data\.numbers\.overwrite: unknown number"),
        ({"store": "b.zarr"}, r"data\.numbers\.store: unknown number"),
    ],
)
def test_wrong_numbers_are_refused_and_nothing_is_written(
    shelf: Path, numbers: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        recipe.make(config.Data(recipe="ramp", store="a.zarr", numbers=numbers))
    assert not Path("a.zarr").exists()


def test_a_number_without_default_is_asked_for(shelf: Path) -> None:
    changed(shelf, "slope: float = 1.0", "slope: float")
    with pytest.raises(InputError, match=r"data\.numbers\.slope: missing"):
        recipe.make(config.Data(recipe="other", store="a.zarr"))


def test_a_whole_number_passes_for_a_real_one(shelf: Path) -> None:
    ds = recipe.make(config.Data(recipe="ramp", store="a.zarr", numbers={"slope": 2}))
    assert ds["a"].values.tolist() == [0.0, 2.0, 4.0, 6.0]


def test_an_output_that_exists_stays_until_it_is_said(shelf: Path) -> None:
    data = config.Data(recipe="ramp", store="a.zarr")
    recipe.make(data)
    other = config.changed(data, {"seed": 7})
    with pytest.raises(InputError, match="--overwrite"):
        recipe.make(other)
    assert store.open("a.zarr")["a"].values[0] == 0.0
    assert recipe.make(other, overwrite=True)["a"].values[0] == 7.0


def test_a_folder_that_is_no_store_is_never_replaced(shelf: Path) -> None:
    Path("thesis").mkdir()
    Path("thesis/chapter.txt").write_text("years of work")
    with pytest.raises(InputError, match="not replaced"):
        recipe.make(config.Data(recipe="ramp", store="thesis"), overwrite=True)
    assert Path("thesis/chapter.txt").read_text() == "years of work"


def test_an_output_that_is_an_input_is_refused(shelf: Path) -> None:
    Path("a.nc").touch()
    with pytest.raises(InputError, match="which is the input"):
        recipe.free("datasets/../a.nc", True, "b.nc", "a.nc")
