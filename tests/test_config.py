"""A config is read whole or refused in one line that names the key, what came and what fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciddm import config
from sciddm.errors import InputError

Write = Callable[[str], Path]

WHOLE = """# Poisson at 32 x 32, a minute
[data]
recipe = "poisson"
store = "stores/poisson.zarr"
size = "small"
seed = 3
numbers = { samples = 100, names = ["a", "b"], since = 2019-03-25 }

[model]
recipe = "models/poisson.py"
numbers = { width = 32, rate = 1e-4, base = true }

[train]
out = "models/mine"
steps = 100
learning_rate = 1

[recover]
model = "models/mine"
observations = "../elsewhere/stations.csv"
out = "posterior.zarr"

[evaluate]
model = "models/mine"
variable = "solution"
relative_std = 0.01
out = "scores.json"
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        (tmp_path / "run.toml").write_text(text, encoding="utf-8")
        return Path("run.toml")

    return write


def test_every_value_arrives_with_its_type(write: Write) -> None:
    run = config.read(write(WHOLE), resume=True)
    assert run.title == "Poisson at 32 x 32, a minute"
    assert run.resume and not run.overwrite
    assert run.data == config.Data(
        recipe="poisson",
        store="stores/poisson.zarr",
        size="small",
        seed=3,
        numbers={"samples": 100, "names": ["a", "b"], "since": "2019-03-25"},
    )
    assert run.model.numbers == {"width": 32, "rate": 1e-4, "base": True}
    assert run.train.learning_rate == 1.0 and type(run.train.learning_rate) is float
    assert run.train.folder == Path("runs/mine")
    assert run.evaluate.std is None


def test_values_are_frozen(write: Write) -> None:
    run = config.read(write(WHOLE))
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.train.steps = 5


# One row a fault: what is replaced in WHOLE, by what, and the words that the line must hold.
FAULTS = [
    ("unknown key", "steps = 100", "stepz = 100", ["train.stepz", "unknown", "'steps'"]),
    ("unknown key beside", "size =", "sise =", ["data.sise", "'size'"]),
    ("unknown section", "[train]", "[trian]", ["'trian'", "'train'"]),
    ("flag in a file", "[data]", "overwrite = true\n[data]", ["'overwrite'", "section"]),
    ("missing key", "steps = 100", "", ["train.steps", "missing"]),
    ("text for a number", "steps = 100", 'steps = "100"', ["train.steps", "'100'", "integer"]),
    ("text for a real", "rate = 1\n", 'rate = "1e-4"\n', ["train.learning_rate", "'1e-4'", "num"]),
    ("real for a whole", "steps = 100", "steps = 100.0", ["train.steps", "100.0", "integer"]),
    ("truth for a number", "steps = 100", "steps = true", ["train.steps", "True", "integer"]),
    ("yes", "steps = 100", "steps = yes", ["TOML"]),
    ("zero steps", "steps = 100", "steps = 0", ["train.steps", "got 0", "greater"]),
    ("negative rate", "rate = 1\n", "rate = -1\n", ["train.learning_rate", "got -1", "greater"]),
    ("not a number", "rate = 1\n", "rate = nan\n", ["train.learning_rate", "nan", "finite"]),
    ("infinite in numbers", "rate = 1e-4", "rate = inf", ["model.numbers.rate", "inf", "finite"]),
    ("table in numbers", "width = 32", "width = { a = 1 }", ["model.numbers.width", "flat"]),
    ("list for a section", "[train]", "[[train]]", ["train", "got ["]),
    ("warmup beyond the end", "steps = 100", "steps = 9\nwarmup = 9", ["warmup = 9", "steps"]),
    ("run is out", "steps = 100", 'steps = 9\nrun = "models/mine"', ["run", "out", "models/mine"]),
    ("two errors", "relative_std = 0.01", "relative_std = 0.1\nstd = 1.0", ["std", "relative_std"]),
    ("no error", "relative_std = 0.01", "", ["std", "relative_std"]),
    ("output is input", '"posterior.zarr"', '"stores/poisson.zarr"', ["not the input store"]),
    ("parent", '"models/mine"\nsteps', '"../mine"\nsteps', ["train.out", "'../mine'", "'..'"]),
    ("hidden parent", '"scores.json"', '"a/../../b"', ["evaluate.out", "'..'"]),
    ("absolute", '"stores/poisson.zarr"', '"/stores/x.zarr"', ["data.store", "relative"]),
    ("home", '"stores/poisson.zarr"', '"~/x.zarr"', ["data.store", "relative"]),
    ("empty path", '"scores.json"', '""', ["evaluate.out", "relative"]),
    ("control characters", '"scores.json"', '"a\\u0000b"', ["evaluate.out", "relative"]),
    ("code for a name", '"poisson"', '"__import__(\'os\')"', ["data.recipe", "name of a"]),
    ("dotted code", '"poisson"', '"os.system"', ["data.recipe", "name of a shelf file"]),
    ("recipe elsewhere", '"poisson"', '"../poisson.py"', ["data.recipe", "'..'"]),
    ("no first line", "# Poisson at 32 x 32, a minute\n", "", ["first line", "comment"]),
    ("empty first line", "# Poisson at 32 x 32, a minute", "#", ["first line", "comment"]),
    ("not TOML", "[data]", "[data", ["TOML", "line 2"]),
    ("key twice", "seed = 3", "seed = 3\nseed = 4", ["TOML"]),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault[0])
def test_a_fault_is_said_in_one_line(write: Write, fault: tuple[str, str, str, list[str]]) -> None:
    _, old, new, words = fault
    assert old in WHOLE
    with pytest.raises(InputError) as raised:
        config.read(write(WHOLE.replace(old, new, 1)))
    line = str(raised.value)
    assert "\n" not in line and line.count("run.toml") == 1
    for word in words:
        assert word in line, line


def test_a_link_out_of_the_folder_is_refused(
    write: Write, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(WHOLE)
    Path("stores").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(InputError, match=r"data\.store: .*symbolic link"):
        config.read(path)


def test_a_missing_file_names_its_neighbours(write: Write) -> None:
    write(WHOLE)
    with pytest.raises(InputError, match="'run.toml'"):
        config.read("runn.toml")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe#\x00")
    with pytest.raises(InputError, match="TOML"):
        config.read(tmp_path / "x.toml")


def test_resume_and_overwrite_exclude_each_other(write: Write) -> None:
    with pytest.raises(InputError, match="resume or overwrite"):
        config.read(write(WHOLE), resume=True, overwrite=True)


def test_a_person_may_write_anywhere_a_file_may_not(write: Write) -> None:
    run = config.read(write(WHOLE))
    moved = config.changed(run.train, {"out": "/elsewhere/model"})
    assert moved == dataclasses.replace(run.train, out="/elsewhere/model")
    assert config.changed(run, {"train": moved}).train.out == "/elsewhere/model"


def test_a_change_is_held_to_the_same_rules(write: Write) -> None:
    run = config.read(write(WHOLE))
    with pytest.raises(InputError, match="not the input store"):
        config.changed(run, {"train": config.changed(run.train, {"out": run.data.store})})


def test_a_section_that_is_needed_and_missing_is_named(write: Write) -> None:
    run = config.read(write("# nothing but a title\n"))
    with pytest.raises(InputError, match=r"\[train\]"):
        config.need(run.train, "train")


@given(key=st.from_regex(r"[a-z_]{1,12}", fullmatch=True))
def test_no_unknown_key_is_ever_ignored(key: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    known = {field.name for field in dataclasses.fields(config.Train)}
    path = tmp_path_factory.mktemp("config") / "run.toml"
    path.write_text(f'# one key\n[train]\nout = "a"\nsteps = 9\n{key} = "text"\n')
    if key in known:
        return
    with pytest.raises(InputError, match=rf"train\.{key}: unknown key"):
        config.read(path)


@given(st.recursive(st.one_of(st.booleans(), st.integers(), st.floats(), st.text()), st.lists))
def test_numbers_come_back_as_they_went_in(value: object) -> None:
    flat = not isinstance(value, list) or not any(isinstance(item, list) for item in value)
    items = value if isinstance(value, list) else [value]
    finite = all(not isinstance(i, float) or abs(i) < float("inf") for i in items)
    tree = {"recipe": "poisson", "store": "a", "numbers": {"n": value}}
    if not (flat and finite):
        with pytest.raises(InputError):
            config.checked(config.Data, tree)
        return
    back = config.checked(config.Data, tree).numbers["n"]
    assert back == value and type(back) is type(value)
