"""The command line: exit codes, one line of error, nothing written when the input is bad."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

import sciddm
from sciddm import cli, recipe
from sciddm.data import store
from sciddm.errors import InputError, RunError

ROOT = Path(__file__).parents[1]


def fields(members: int = 5) -> tuple[xr.Dataset, xr.Dataset]:
    """An ensemble and its truth on a 4 x 6 grid, two variables."""
    rng = np.random.default_rng(0)
    space = {"y": np.linspace(0, 1, 4), "x": np.linspace(0, 1, 6)}
    coords = {"sample": np.arange(3), **space}
    truth = xr.Dataset(
        {n: (("sample", "y", "x"), rng.standard_normal((3, 4, 6)), {"units": "1"}) for n in "ab"},
        coords,
        {"sciddm_sample_dim": "sample"},
    )
    ens = xr.Dataset(
        {
            n: (("member", "y", "x"), rng.standard_normal((members, 4, 6)), {"units": "1"})
            for n in "ab"
        },
        {"member": np.arange(members), "sample": 1, **space},
        {"solver": "Multistep", "network_evaluations": 20, "misfit_sd": 1.02},
    )
    return ens, truth


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A posterior and the truth, written once."""
    folder = tmp_path_factory.mktemp("stores")
    ens, truth = fields()
    store.write(ens, folder / "post.zarr")
    store.write(truth, folder / "truth.zarr")
    return folder


@pytest.fixture
def here(tmp_path: Path, stores: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with stores, configs and no shelves above it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(stores, tmp_path, dirs_exist_ok=True)
    Path("wrong.toml").write_text('# wrong\n[train]\nout = "m"\nstepz = 3\n')
    Path("empty.toml").write_text("# a title, nothing else\n")
    Path("notes").mkdir()
    Path("notes/a.txt").write_text("kept")
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


FAULTS = {
    "no verb": ([], "VERB"),
    "unknown verb": (["trian"], "'trian'"),
    "unknown flag": (["score", "post.zarr", "truth.zarr", "--levl", "0.5"], "--levl"),
    "missing output": (["generate", "model"], "-o"),
    "members zero": (["generate", "model", "-o", "a.zarr", "--members", "0"], "'0'"),
    "members text": (["generate", "model", "-o", "a.zarr", "--members", "many"], "'many'"),
    "steps negative": (["generate", "model", "-o", "a.zarr", "--steps", "-3"], "'-3'"),
    "seed negative": (["generate", "model", "-o", "a.zarr", "--seed", "-1"], "'-1'"),
    "error zero": (["recover", "model", "s.csv", "-o", "a.zarr", "--std", "0"], "above 0"),
    "error infinite": (["recover", "model", "s.csv", "-o", "a.zarr", "--std", "inf"], "above 0"),
    "level": (["score", "post.zarr", "truth.zarr", "--level", "90"], "between 0 and 1"),
    "rule": (["recover", "m", "s.csv", "-o", "a.zarr", "--rule", "mmsp"], "Did you mean 'mmps'"),
    "solver": (["generate", "m", "-o", "a.zarr", "--solver", "eular"], "Did you mean 'euler'"),
    "freedom": (["recover", "m", "s.csv", "-o", "a.zarr", "--freedom", "-1"], "above 0"),
    "no thresholds": (["exceed", "notes", "t.csv"], "notes"),
    "no density": (["density", "notes", "truth.zarr"], "notes"),
    "model missing": (["generate", "model", "-o", "a.zarr"], "model"),
    "output exists": (["generate", "model", "-o", "post.zarr"], "--overwrite"),
    "output is input": (["recover", "m", "post.zarr", "-o", "./post.zarr", "--overwrite"], "input"),
    "output no store": (["generate", "m", "-o", "notes", "--overwrite"], "not replaced"),
    "output a file": (["generate", "m", "-o", "empty.toml", "--overwrite"], "not replaced"),
    "model a file": (["refine", "m", "-o", "empty.toml", "--overwrite"], "not replaced"),
    "draws a file": (["exceed", "m", "t.csv", "-o", "empty.toml", "--overwrite"], "not replaced"),
    "picture a folder": (["plot", "post.zarr", "-o", "notes", "--overwrite"], "not replaced"),
    "picture exists": (["plot", "post.zarr", "-o", "empty.toml"], "--overwrite"),
    "no ensemble": (["score", "truth.zarr", "truth.zarr"], "'member'"),
    "no variable": (["score", "post.zarr", "truth.zarr", "--variable", "aa"], "Did you mean 'a'"),
    "no truth": (["score", "post.zarr", "trouth.zarr"], "trouth.zarr"),
    "config missing": (["train", "wron.toml"], "'wrong.toml'"),
    "config key": (["train", "wrong.toml"], "'steps'"),
    "config both": (["train", "empty.toml", "--resume", "--overwrite"], "resume or overwrite"),
    "config section": (["train", "empty.toml", "--store", "a.zarr"], "[data]"),
    "no shelf": (["make", "poisson", "a.zarr"], "repository"),
    "no recipe": (["make", "nothing.py", "a.zarr"], "no such file"),
    "make both": (["make", "p", "a.zarr", "--resume", "--overwrite"], "expected one of them"),
    "no workers": (["make", "poisson", "a.zarr", "--workers", "0"], "'0'"),
    "demo half": (["demo", "--data", "x.nc"], "--variable"),
    "demo file": (["demo", "--data", "x.nc", "--variable", "t2m"], "no such file"),
    "demo out": (["demo", "--out", "notes"], "--overwrite"),
    "card missing": (["card", "notes"], "card.md"),
    "verify missing": (["verify", "nothing.zarr"], "no such"),
}


@pytest.mark.parametrize(("argv", "words"), list(FAULTS.values()), ids=list(FAULTS))
def test_bad_input_is_one_line_and_two_and_writes_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], argv: list[str], words: str
) -> None:
    before = files(here)
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("sciddm: ") and err.count("\n") == 1
    assert words in err
    assert files(here) == before


@pytest.mark.parametrize(
    "number", ["samples=1e-4", "samples=text", "samples", "=3", "sample=3", "samples=[1]"]
)
def test_a_wrong_number_of_a_recipe_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], number: str
) -> None:
    before = files(here)
    poisson = str(ROOT / "datasets" / "poisson.py")
    assert cli.main(["make", poisson, "a.zarr", "--set", number]) == 2
    assert "sample" in capsys.readouterr().err or number == "=3"
    assert files(here) == before


def test_make_writes_what_the_flags_say(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    poisson = str(ROOT / "datasets" / "poisson.py")
    flags = ["--seed", "5", "--set", "samples=6", "--set", "grid=8", "--json"]
    assert cli.main(["make", poisson, "a.zarr", *flags]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["sizes"] == {"sample": 6, "y": 8, "x": 8}
    ds = store.open("a.zarr")
    assert set(facts["variables"]) == set(ds.data_vars) == {"coefficient", "solution"}
    assert ds.attrs["sciddm_generator"]["seed"] == 5


def test_make_goes_on_with_a_store_and_refuses_one_made_otherwise(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poisson = str(ROOT / "datasets" / "poisson.py")
    flags = ["make", poisson, "a.zarr", "--set", "samples=6", "--set", "grid=8", "--workers", "2"]
    assert cli.main(flags) == 0
    Path("a.zarr").rename("b.zarr")
    Path("a.zarr.partial").mkdir()
    assert cli.main(flags) == 2
    assert "was begun by an earlier run; say resume" in capsys.readouterr().err
    assert cli.main([*flags, "--resume"]) == 0
    assert files(Path("a.zarr")) == files(Path("b.zarr"))
    assert cli.main([*flags, "--resume", "--seed", "9"]) == 2
    assert files(Path("a.zarr")) == files(Path("b.zarr"))


def test_score_prints_what_the_library_says(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sciddm import score

    assert cli.main(["score", "post.zarr", "truth.zarr", "--level", "0.5", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    ens, truth = fields()
    case = truth.isel(sample=1)
    assert set(rows) == {"a", "b"}
    for name, row in rows.items():
        assert row["members"] == 5
        assert row["crps"] == pytest.approx(float(score.crps(ens[name], case[name])), rel=1e-6)
        exact = float(score.coverage(ens[name], case[name], level=0.5))
        assert row["coverage_50"] == pytest.approx(exact, rel=1e-6)
    assert cli.main(["score", "post.zarr", "truth.zarr", "--variable", "b"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    values = dict(zip(head.split(), line.split()[1:], strict=True))
    assert line.split()[0] == "b"
    assert float(values["crps"]) == pytest.approx(rows["b"]["crps"], rel=1e-4)


def test_a_case_that_the_truth_lacks_is_said(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.write(fields()[1].isel(sample=[0, 2]), "other.zarr")
    assert cli.main(["score", "post.zarr", "other.zarr"]) == 2
    assert "no values at {'sample': 1}" in capsys.readouterr().err


def test_several_cases_are_scored_against_the_truth_at_those_cases(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sciddm import score

    ens, truth = fields()
    both = xr.concat([ens.assign_coords(sample=2), ens.assign_coords(sample=0)], "sample")
    store.write(both, "both.zarr")
    assert cli.main(["score", "both.zarr", "truth.zarr", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    one, two = (
        float(score.crps(ens["a"].assign_coords(sample=i), truth["a"].isel(sample=i)))
        for i in (0, 2)
    )
    assert rows["a"]["crps"] == pytest.approx((one + two) / 2, rel=1e-6)


def test_plot_draws_the_case_that_is_asked_for(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ens, _ = fields()
    both = xr.concat([ens.assign_coords(sample=2), 5 * ens.assign_coords(sample=0)], "sample")
    store.write(both.transpose("member", "sample", ...), "both.zarr")
    pictures = []
    for case in ("0", "1"):
        out = ["-o", f"{case}.png", "--truth", "truth.zarr", "--variable", "b"]
        assert cli.main(["plot", "both.zarr", "--case", case, *out, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["variable"] == "b"
        pictures.append(Path(f"{case}.png").read_bytes())
    assert pictures[0].startswith(b"\x89PNG") and pictures[0] != pictures[1]
    assert cli.main(["plot", "both.zarr", "--case", "2", "-o", "2.png"]) == 2
    assert "--case 2" in capsys.readouterr().err and not Path("2.png").exists()


def test_verify_finds_a_flipped_byte(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "truth.zarr", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["whole"] is True
    chunks = [p for p in (here / "truth.zarr" / "a" / "c").rglob("*") if p.is_file()]
    chunk = max(chunks, key=lambda p: p.stat().st_size)
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(bytes(data))
    assert cli.main(["verify", "truth.zarr", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["whole"] is False and "a" in report["problems"][0]


@pytest.fixture
def face(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The public face, replaced by one that remembers what it was asked."""
    asked = SimpleNamespace(load=[], draw=[], observed=[], laws=[])

    grid = SimpleNamespace(dims=("y", "x"))
    codec = SimpleNamespace(variables={"a": {}, "b": {}}, grid=grid)
    model = SimpleNamespace(codec=codec, fields=codec)

    def load(folder: object) -> SimpleNamespace:
        asked.load.append(str(folder))
        return model

    def observed(values: xr.Dataset, std: object = None, **law: object) -> str:
        asked.laws.append(law)
        asked.observed.append((values, std))
        return "what was seen"

    def recover(model: object, seen: str, **numbers: object) -> xr.Dataset:
        asked.draw.append((model, seen, numbers))
        return fields(int(str(numbers["members"])))[0]

    def generate(model: object, **numbers: object) -> xr.Dataset:
        asked.draw.append((model, numbers))
        return fields(int(str(numbers["members"])))[0]

    for name, fake in {
        "load": load, "Observed": observed, "recover": recover, "generate": generate,
    }.items():  # fmt: skip
        monkeypatch.setattr(sciddm, name, fake, raising=False)
    return asked


def test_generate_hands_on_its_numbers_and_writes_a_whole_store(
    here: Path, face: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--members", "7", "--seed", "3", "--steps", "12", "--json"]
    assert cli.main(["generate", "model", "-o", "new.zarr", *flags]) == 0
    model, numbers = face.draw[0]
    assert model is sciddm.load("model") and face.load == ["model", "model"]
    assert {k: numbers[k] for k in ("members", "seed", "steps")} == {
        "members": 7, "seed": 3, "steps": 12,
    }  # fmt: skip
    assert store.verify("new.zarr") == [] and store.open("new.zarr").sizes["member"] == 7
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["misfit_sd"] == 1.02 and facts["network_evaluations"] == 20
    assert cli.main(["generate", "model", "-o", "new.zarr", "--members", "2"]) == 2
    assert store.open("new.zarr").sizes["member"] == 7
    assert cli.main(["generate", "model", "-o", "new.zarr", "--members", "2", "--overwrite"]) == 0
    assert store.open("new.zarr").sizes["member"] == 2


TABLE = "y,x,a,a_std,wind\n0.2,0.1,1.5,0.1,9\n0.7,0.4,2.5,0.3,8\n"


def test_recover_takes_the_errors_of_the_table_or_of_the_flag(
    here: Path, face: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.csv").write_text(TABLE)
    assert cli.main(["recover", "model", "s.csv", "-o", "one.zarr", "--members", "3"]) == 0
    values, std = face.observed[0]
    assert list(values.data_vars) == ["a"]  # wind is no variable of the model
    assert values["a"].values.tolist() == [1.5, 2.5] and values["y"].values.tolist() == [0.2, 0.7]
    assert std["a"].values.tolist() == [0.1, 0.3]
    assert face.draw[0][1] == "what was seen" and face.draw[0][2]["members"] == 3
    assert store.open("one.zarr").sizes["member"] == 3
    assert cli.main(["recover", "model", "s.csv", "-o", "two.zarr", "--std", "0.5"]) == 0
    assert face.observed[1][1] == 0.5


@pytest.mark.parametrize(
    ("table", "flags", "words"),
    [
        (TABLE.replace("a_std", "b_std").replace(",a,", ",b,"), ["--variable", "a"], "'a'"),
        (TABLE.replace("a_std", "gust"), [], "a_std"),
        (TABLE.replace("a_std", "gust").replace(",a,", ",temp,"), [], "without 'a' or 'b'"),
        (TABLE.replace("0.3", "0"), [], "a_std"),
        (TABLE.replace("0.7", ""), [], "position"),
        ("", [], "s.csv"),
    ],
)
def test_a_faulty_table_is_refused_and_nothing_is_drawn(
    here: Path, face: SimpleNamespace, capsys: pytest.CaptureFixture[str],
    table: str, flags: list[str], words: str,
) -> None:  # fmt: skip
    Path("s.csv").write_text(table)
    before = files(here)
    assert cli.main(["recover", "model", "s.csv", "-o", "post2.zarr", *flags]) == 2
    assert words in capsys.readouterr().err
    assert files(here) == before and not face.draw


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("Got this,\n  expected that."), 2, "sciddm: Got this, expected that.\n"),
        (RunError("member 3 diverged"), 1, "sciddm: member 3 diverged\n"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "fewer members"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "fewer members"),
    ],
)
def test_exit_codes(
    here: Path,
    face: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    words: str,
) -> None:
    def fail(model: object, **numbers: object) -> xr.Dataset:
        raise error

    monkeypatch.setattr(sciddm, "generate", fail)
    before = files(here)
    assert cli.main(["generate", "model", "-o", "new.zarr"]) == code
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
    assert files(here) == before


def test_train_hands_the_typed_config_to_the_pipeline(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    shelf = {"train": SimpleNamespace(main=runs.append)}
    find = recipe.find
    monkeypatch.setattr(recipe, "find", lambda k, n: Path(n) if k == "pipelines" else find(k, n))
    monkeypatch.setattr(recipe, "load", lambda path, kind=None: shelf[path.name])
    Path("run.toml").write_text(
        '# a run\n[data]\nrecipe = "poisson"\nstore = "s.zarr"\n[train]\nout = "m"\nsteps = 3\n'
    )
    elsewhere = ["--store", "/data/s.zarr", "--out", "/models/m"]
    assert cli.main(["train", "run.toml", "--resume", "--json", *elsewhere]) == 0
    (run,) = runs
    assert run.title == "a run" and run.resume and run.as_json and not run.overwrite
    assert (run.data.store, run.train.out, run.train.steps) == ("/data/s.zarr", "/models/m", 3)


def test_the_demo_gets_its_flags_and_owns_its_default_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    monkeypatch.setattr(recipe, "find", lambda kind, name: Path(name))
    monkeypatch.setattr(recipe, "load", lambda p, k=None: SimpleNamespace(main=runs.append))
    Path("runs/demo").mkdir(parents=True)
    assert cli.main(["demo", "--members", "8"]) == 0
    assert cli.main(["demo", "--data", "truth.zarr", "--variable", "a", "--out", "mine"]) == 0
    first, second = runs
    assert (first.out, first.members, first.overwrite) == ("runs/demo", 8, True)
    assert (second.data, second.variable, second.overwrite) == ("truth.zarr", "a", False)


def test_card_prints_a_saved_card_or_a_recipe(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("notes/card.md").write_text("# A card\n")
    assert cli.main(["card", "notes"]) == 0
    assert capsys.readouterr().out == "# A card\n"
    assert cli.main(["card", str(ROOT / "datasets" / "poisson.py")]) == 0
    assert "Equation or source" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom sciddm import cli\n"
        "try:\n  cli.main(['recover', '--help'])\n"
        "except SystemExit as stop:\n  assert stop.code == 0\n"
        "heavy = {'torch', 'xarray', 'numpy', 'lightning', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--std" in done.stdout


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sciddm.cli", "verify", "nothing"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("sciddm: ")
