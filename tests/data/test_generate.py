"""The same bytes whatever made them: one process or several, in one go or killed and resumed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

from sciddm import config, recipe
from sciddm.data import generate, store
from sciddm.errors import InputError, RunError

ROOT = Path(__file__).parents[2]
CARD = '"""A ramp.\n\n' + "\n    text\n".join(recipe.SHELVES["datasets"].headings) + '\n"""\n'
RAMP = (
    CARD
    + """
import os, time
from pathlib import Path
import numpy as np
import xarray as xr
from sciddm.data import generate
from sciddm.errors import InputError

SIZES = {"toy": (40, 8), "small": (400, 8)}

def make(store, *, size: str = "toy", seed: int = 0, samples: int | None = None,
         grid: int | None = None, slope: float = 1.0, workers: int = 1, resume: bool = False,
         overwrite: bool = False) -> xr.Dataset:
    count, side = generate.sized(SIZES, size, samples, grid)
    return generate.make(__file__, store, samples=count, grid=side, seed=seed,
                         numbers={"slope": slope}, workers=workers, resume=resume,
                         overwrite=overwrite)

def fields(samples, grid, seed=0, start=0, slope=1.0):
    if seed == 13 or (seed == 14 and start >= 8):
        raise InputError("Got seed 13, expected another; take 12.")
    time.sleep(float(os.environ.get("RAMP_PAUSE", "0")))
    Path(os.environ.get("RAMP_LOG", os.devnull)).open("a").write(
        f"{os.getpid()} {start} {samples} {os.environ.get('OMP_NUM_THREADS')}\\n")
    if os.environ.get("RAMP_DIES") and start:
        os._exit(7)
    a = np.stack([np.random.default_rng([seed, start + i]).standard_normal((grid, grid))
                  for i in range(samples)])
    mean = (slope * np.arange(start, start + samples)).astype("float32")
    return generate.labelled(
        {"a": (("sample", "y", "x"), a.astype("float32"), {"units": "1"}),
         "level": (("sample",), mean, {"units": "K"}),
         "edge": (("x",), np.arange(grid, dtype="float32"), {"units": "1"})},
        generate.square(grid), name="ramp", title="A ramp", start=start, seed=seed,
        numbers={"grid": grid, "slope": slope})
"""
)


def digest(path: Path) -> str:
    """Of every byte under a store and the names of its files."""
    total = hashlib.sha256()
    for file in sorted(f for f in path.rglob("*") if f.is_file()):
        total.update(str(file.relative_to(path)).encode() + file.read_bytes())
    return total.hexdigest()


@pytest.fixture
def ramp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A recipe outside the repository, in chunks of 4 samples; workers are always worth it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(generate, "CHUNK_VALUES", 4 * 8 * 8)
    monkeypatch.setattr(generate, "WORTH", 0.0)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "ramp.py").write_text(RAMP)
    generate._load.cache_clear()
    return recipe.load(tmp_path / "datasets" / "ramp.py")


def log(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def test_one_two_and_four_workers_write_the_same_bytes(
    ramp: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = {}
    for workers in (1, 2, 4):
        monkeypatch.setenv("RAMP_LOG", f"log{workers}")
        made = ramp.make(f"{workers}.zarr", workers=workers)
        digests[workers] = digest(Path(f"{workers}.zarr"))
        blocks = [line for line in log(Path(f"log{workers}")) if line[2] == "4"]
        assert sorted(int(line[1]) for line in blocks) == list(range(0, 40, 4))
        if workers > 1:
            # Several processes, none of them this one, each with one thread.
            assert str(os.getpid()) not in {line[0] for line in blocks}
            assert {line[3] for line in blocks} == {"1"}
    assert len(set(digests.values())) == 1
    xr.testing.assert_equal(made.load(), ramp.fields(40, 8))
    assert made.attrs == store.open("1.zarr").attrs
    assert made.attrs["sciddm_splits"] == {
        "train": [0, 36],
        "validation": [36, 38],
        "test": [38, 40],
    }
    assert made.attrs["sciddm_generator"] == {
        "version": 1, "seed": 0, "samples": 40, "grid": 8, "slope": 1.0
    }  # fmt: skip


def test_poisson_has_the_same_bytes_from_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "CHUNK_VALUES", 10 * 24 * 24)
    poisson = recipe.load(ROOT / "datasets" / "poisson.py")
    poisson.make(tmp_path / "1.zarr", samples=30, grid=24, seed=3)
    monkeypatch.setattr(generate, "WORTH", 0.0)
    poisson.make(tmp_path / "2.zarr", samples=30, grid=24, seed=3, workers=2)
    assert digest(tmp_path / "1.zarr") == digest(tmp_path / "2.zarr")


RUN = """
import sys
from sciddm import recipe
from sciddm.data import generate
if __name__ == "__main__":
    generate.CHUNK_VALUES, generate.WORTH = 4 * 8 * 8, 0.0
    make = recipe.load("datasets/ramp.py").make
    make("a.zarr", samples=60, workers=int(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("workers", "how"), [(1, signal.SIGKILL), (2, signal.SIGKILL), (2, signal.SIGINT)]
)
def test_a_killed_run_resumes_to_the_same_bytes(
    ramp: ModuleType, monkeypatch: pytest.MonkeyPatch, workers: int, how: signal.Signals
) -> None:
    Path("run.py").write_text(RUN)
    environment = os.environ | {"RAMP_PAUSE": "0.4", "RAMP_LOG": "first"}
    run = subprocess.Popen(
        [sys.executable, "run.py", str(workers)], env=environment, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    done = Path("a.zarr.partial/done")
    while len(list(done.glob("*.json"))) < 3:
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(how)
    said = run.communicate(timeout=30)[1].decode()
    assert run.returncode != 0
    if how == signal.SIGINT:
        assert "blocks are kept; say --resume" in said
    # Workers end with their parent, before another run may write what they were writing.
    pids = {int(line[0]) for line in log(Path("first"))}
    limit = time.monotonic() + 20
    while any(alive(pid) for pid in pids) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)
    kept = store.done("a.zarr")
    assert 3 <= len(kept) < 15 and not Path("a.zarr").exists()
    with pytest.raises(InputError, match="was begun by an earlier run; say resume"):
        ramp.make("a.zarr", samples=60)
    assert store.done("a.zarr") == kept
    monkeypatch.setenv("RAMP_LOG", "second")
    ramp.make("a.zarr", samples=60, resume=True)
    again = {int(line[1]) for line in log(Path("second")) if line[2] == "4"}
    assert again == set(range(0, 60, 4)) - {int(k.split("=")[1].split("-")[0]) for k in kept}
    ramp.make("b.zarr", samples=60)
    assert digest(Path("a.zarr")) == digest(Path("b.zarr"))
    assert not Path("a.zarr.partial").exists()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_store_begun_or_made_with_other_numbers_is_refused(ramp: ModuleType) -> None:
    ramp.make("a.zarr", slope=2.0)
    finished = digest(Path("a.zarr"))
    assert ramp.make("a.zarr", slope=2.0, resume=True)["level"].values[3] == 6.0
    for other in ({"slope": 3.0}, {"slope": 2.0, "seed": 1}, {"slope": 2.0, "samples": 41}):
        with pytest.raises(InputError, match="name another store, or say overwrite"):
            ramp.make("a.zarr", resume=True, **other)
    with pytest.raises(InputError, match="exists; expected a new name"):
        ramp.make("a.zarr", slope=3.0)
    assert digest(Path("a.zarr")) == finished
    # What a kill leaves: the plan of a run with slope 2, nothing done.
    template = generate._template(ramp.fields(1, 8, slope=2.0), 40, generate.splits(40))
    store.create(template, "b.zarr", chunks={"sample": 4})
    for other in ({"slope": 3.0}, {"slope": 2.0, "seed": 1}, {"slope": 2.0, "samples": 41}):
        with pytest.raises(InputError, match="unfinished store of another shape, attributes"):
            ramp.make("b.zarr", resume=True, **other)
    assert ramp.make("b.zarr", slope=3.0, overwrite=True)["level"].values[1] == 3.0


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_recipe_refuses_is_one_line_from_any_process(ramp: ModuleType, workers: int) -> None:
    with pytest.raises(InputError, match="Got seed 13, expected another; take 12"):
        ramp.make("a.zarr", seed=13, workers=workers)
    with pytest.raises(InputError, match="Got seed 13, expected another; take 12.$"):
        ramp.make("b.zarr", seed=14, workers=workers)  # refused when others are done
    for bad in ({"samples": 2}, {"workers": 0}):
        with pytest.raises(InputError, match="need at least 3 samples, and the work at least 1"):
            ramp.make("a.zarr", **bad)
    assert not list(Path().glob("a.zarr*"))


def test_what_stands_is_opened_beside_a_replacement_that_was_killed(ramp: ModuleType) -> None:
    """`resume` opens the whole store and leaves what an overwriting run had begun."""
    made = ramp.make("a.zarr")["a"].values
    template = generate._template(ramp.fields(1, 8), 40, generate.splits(40))
    store.create(template, "a.zarr", chunks={"sample": 4}, overwrite=True)
    assert np.array_equal(ramp.make("a.zarr", resume=True)["a"], made)
    assert Path("a.zarr.partial/store").is_dir()
    ramp.make("a.zarr", overwrite=True)
    assert not Path("a.zarr.partial").exists()


def test_a_worker_that_dies_is_said_and_what_is_done_is_kept(
    ramp: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAMP_DIES", "yes")
    with pytest.raises(RunError, match="go on with resume and fewer workers"):
        ramp.make("a.zarr", workers=2)
    monkeypatch.delenv("RAMP_DIES")
    ramp.make("a.zarr", resume=True)
    assert np.array_equal(store.open("a.zarr")["a"], ramp.fields(40, 8)["a"])


def test_little_work_starts_no_process(ramp: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "WORTH", 10.0)
    monkeypatch.setenv("RAMP_LOG", "log")
    ramp.make("a.zarr", workers=4)
    assert {line[0] for line in log(Path("log"))} == {str(os.getpid())}


def test_progress_is_a_line_a_tenth_with_what_was_there_before(
    ramp: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    ramp.make("a.zarr", samples=41)
    said = [line.split(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert said == [
        *(f"ramp: {n} of 41 samples" for n in range(8, 41, 4)),
        "ramp: 41 of 41 samples",
    ]


def test_a_config_whose_store_was_begun_goes_on_with_it(
    ramp: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = generate._template(ramp.fields(1, 8), 40, generate.splits(40))
    store.create(template, "a.zarr", chunks={"sample": 4})
    store.put("a.zarr", ramp.fields(4, 8, 0, 8)[["a", "level"]], {"sample": slice(8, 12)})
    monkeypatch.setenv("RAMP_LOG", "log")
    made = recipe.opened(config.Data(recipe="ramp", store="a.zarr"))
    assert np.array_equal(made["a"], ramp.fields(40, 8)["a"])
    assert 8 not in {int(line[1]) for line in log(Path("log"))[:-1] if line[2] == "4"}


def test_a_recipe_of_one_process_says_so(ramp: ModuleType) -> None:
    source = Path("datasets/ramp.py").read_text().replace("workers: int = 1, ", "")
    Path("datasets/alone.py").write_text(source.replace("workers=workers, ", ""))
    data = config.Data(recipe="alone", store="a.zarr")
    with pytest.raises(InputError, match="works in one process; leave the workers out"):
        recipe.make(data, workers=2)
    assert recipe.make(data).sizes["sample"] == 40
