"""Which part may import which: read from the syntax tree, so that nothing has to run.

Two columns meet in few files. The mathematics never sees labels (xarray), the labels see tensors
only where they are turned into them, and the library never reaches for the shelves.
"""

from __future__ import annotations

import ast
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

PACKAGE = Path(__file__).parents[1] / "sciddm"
FILES = sorted(PACKAGE.rglob("*.py"))

TENSOR_SIDE = {
    "random", "covariance", "basis", "process", "denoise", "calibrate", "fit", "solve", "observe",
    "guide", "nn", "pde", "tree", "checkpoint", "particle", "sde", "likelihood", "wavelet",
    "levels", "forecasters", "spacetime", "series",
}  # fmt: skip
SEAM = {
    "data/bands.py", "data/window.py", "data/codec.py", "data/frame.py", "evidence.py",
    "equation.py", "lower.py", "task.py", "model.py", "draws.py", "ensemble.py", "train.py",
    "facade.py", "outlook.py", "rollout.py", "objective.py", "data/films.py",
    "data/filmed.py", "assimilate.py", "probability.py", "choices.py", "saved.py", "classes.py",
    "data/series.py", "data/panels.py", "filling.py", "completion.py",
    "gluonts.py", "series_ahead.py", "series_law.py", "heldout.py", "anomalies.py",
}  # fmt: skip
# Of no column: what both raise, and the front door.
NEITHER = {"errors.py", "__init__.py"}
SHELVES = {"datasets", "models", "pipelines", "configs", "benchmarks", "tests"}
LABELS = {"xarray", "zarr", "dask", "pandas", "cf_xarray", "cftime", "h5netcdf"}
TENSORS = {"torch", "lightning", "pytorch_lightning", "neuralop", "torchsde", "gluonts"}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def column(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def imports(tree: ast.AST, path: str = "") -> Iterator[str]:
    """Every module named by an import statement, wherever it stands, in full dotted form."""
    package = ["sciddm", *path.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield stem
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def crossings(source: str, path: str) -> list[str]:
    """The imports of one file that its place in the house does not allow."""
    found = []
    for name in imports(ast.parse(source), path):
        root, parts = name.split(".")[0], name.split(".")
        inner = parts[1] if root == "sciddm" and len(parts) > 1 else ""
        if root in SHELVES:
            found.append(f"{path}: {name}: the library never imports a shelf")
        if column(path) in TENSOR_SIDE and (
            root in LABELS or (inner and inner not in TENSOR_SIDE | {"errors"})
        ):
            found.append(f"{path}: {name}: the mathematics column sees no labels")
        labelled = column(path) not in TENSOR_SIDE and path not in SEAM | NEITHER
        if labelled and (root in TENSORS or name == "safetensors.torch" or inner in TENSOR_SIDE):
            found.append(f"{path}: {name}: tensors meet labels only in {sorted(SEAM)}")
    return found


def unsafe(source: str) -> list[str]:
    """What can run code that came with data."""
    tree, found = ast.parse(source), []
    found += [name for name in imports(tree) if name.split(".")[0] in UNSAFE_MODULES]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        call = ast.unparse(node.func)
        if call in UNSAFE_CALLS or call in ("torch.load", "yaml.load", "yaml.unsafe_load"):
            found.append(call)
        for keyword in node.keywords:
            said = (keyword.arg, ast.unparse(keyword.value))
            if said in (("weights_only", "False"), ("allow_pickle", "True")):
                found.append("=".join(map(str, said)))
    return found


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_stay_in_their_column(path: Path) -> None:
    assert crossings(path.read_text(encoding="utf-8"), relative(path)) == []


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_nothing_read_from_a_file_can_run(path: Path) -> None:
    assert unsafe(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_module_is_a_chapter_and_says_what_it_is(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 450
    assert not source.strip() or ast.get_docstring(ast.parse(source))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("process.py", "import xarray as xr"),
        ("solve/kernel.py", "def f():\n    from xarray import Dataset"),
        ("observe.py", "from sciddm.data import schema"),
        ("guide/dps.py", "from ..model import Model"),
        ("guide/dps.py", "from .. import task"),
        ("score/pointwise.py", "import torch"),
        ("plot.py", "if TYPE_CHECKING:\n    from torch import Tensor"),
        ("data/store.py", "from sciddm.covariance import White"),
        ("cli.py", "from datasets import poisson"),
        ("train.py", "import models.poisson"),
    ],
)
def test_the_walker_sees_a_wrong_import(path: str, line: str) -> None:
    assert crossings(line, path)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("data/codec.py", "import torch, xarray"),
        ("solve/kernel.py", "from sciddm.process import Process"),
        ("process.py", "from sciddm.errors import InputError"),
        ("score/pointwise.py", "import xarray as xr\nfrom sciddm.data.schema import find"),
        ("cli.py", "from sciddm import recipe"),
    ],
)
def test_the_walker_lets_a_right_import_pass(path: str, line: str) -> None:
    assert crossings(line, path) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('x', weights_only=True)",
        "eval('1')",
        "exec(text)",
        "np.load(path, allow_pickle=True)",
        "safe(path, weights_only=False)",
    ],
)
def test_the_walker_sees_what_could_run(line: str) -> None:
    assert unsafe(line)


def test_evaluation_mode_is_no_evaluation() -> None:
    assert unsafe("model.eval()\nre.compile('x')") == []


def test_only_the_library_is_in_the_wheel(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    (wheel,) = WheelBuilder(str(PACKAGE.parent)).build(directory=str(tmp_path))
    names = [PurePosixPath(name) for name in zipfile.ZipFile(wheel).namelist()]
    modules = {str(name) for name in names if name.suffix == ".py"}
    assert modules == {f"sciddm/{relative(path)}" for path in FILES}
    assert {name.parts[0].split("-")[0] for name in names} == {"sciddm"}
