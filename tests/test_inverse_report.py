"""The pipeline from a table of sensors to a report: its numbers are the library's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import sciddm as sd
from sciddm import cli, pde, sensors
from sciddm.basis import Cosine
from sciddm.covariance import Matern, Spectral
from sciddm.data import store
from sciddm.data.codec import Derived, Grid, Normaliser
from sciddm.denoise import Gaussian
from sciddm.process import VE, LogLinear
from sciddm.solve import Diffusion

ROOT = Path(__file__).parents[1]
PIPELINE = str(ROOT / "pipelines" / "pde_inverse.py")
UNIT = np.linspace(0, 1, 9)
UNITS = {"units": "1"}
NAMES = ("coefficient", "solution")
GRID = Grid(("y", "x"), {"y": UNIT, "x": UNIT}, {"y": UNITS, "x": UNITS})
JOINT = Normaliser(
    GRID, NAMES, dict.fromkeys(NAMES, UNITS), np.array([4.0, 0.0]).reshape(2, 1, 1), np.ones(2)
)
ALONE = Normaliser(GRID, NAMES[:1], {"coefficient": UNITS}, JOINT.mean[:1], JOINT.std[:1])
PRIOR = Gaussian(
    torch.zeros(()),
    Spectral(Matern(0.5, 1.5, 0.5), (1.0, 1.0), Cosine()),
    VE(clock=LogLinear(0.01, 100.0)),
)
TABLE = """x,y,variable,value,std
0.25,0.5,solution,-0.2,0.01
0.5,0.5,solution,-0.25,0.01
0.3,0.4,coefficient,4.2,0.1
"""
CONFIG = """# A test of the report
[pde_inverse]
model = "model"
observations = "s.csv"
out = "report"
members = 6
seed = 3
"""


def model(codec: Normaliser | Derived) -> sd.Model:
    return sd.Model(sd.Task(sd.View(NAMES)), codec, Diffusion(PRIOR, steps=12), moments=PRIOR)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    solved = Derived(ALONE, "solution", UNITS, pde.Poisson())
    model(solved).save("model")
    model(JOINT).save("joint")
    Path("s.csv").write_text(TABLE)
    Path("c.toml").write_text(CONFIG)
    sd.generate(model(solved), members=1).isel(member=0, drop=True).to_netcdf("truth.nc")
    return tmp_path


def test_the_folder_holds_what_the_library_says(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", PIPELINE, "c.toml", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    saved = sd.load("model")
    seen = sensors.read(saved.codec, "s.csv")
    post, plain = (draw(saved, seen, members=6, seed=3) for draw in (sd.recover, sd.krige))
    xr.testing.assert_allclose(store.open("report/posterior.zarr").load(), post)
    assert facts["misfit_sd"] == post.attrs["misfit_sd"] and facts["residual"] < 1e-4
    rows = json.loads(Path("report/figures.json").read_text())["rows"]
    assert set(rows) == {f"{n}, {m}" for n in NAMES for m in ("diffusion", "optimal interpolation")}
    spread = post["solution"].std("member", ddof=1)
    assert rows["solution, diffusion"]["spread"] == pytest.approx(
        float(np.sqrt((spread**2).mean())), rel=1e-5
    )
    means = [p["coefficient"].mean("member") for p in (plain, post)]
    width = float(np.sqrt((plain["coefficient"].std("member", ddof=1) ** 2).mean()))
    apart = float(np.sqrt(((means[0] - means[1]) ** 2).mean())) / width
    got = rows["coefficient, optimal interpolation"]["shift in spreads"]
    assert got == pytest.approx(apart, rel=1e-4)
    page = Path("report/report.html").read_text()
    assert "1 values of coefficient, 2 values of solution" in page and page.count("<img") == 2
    assert "http" not in page.replace("http-equiv", "")
    assert {p.name for p in Path("report").glob("*.png")} == {"coefficient.png", "solution.png"}


def test_scores_stand_beside_a_truth_that_is_known(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("c.toml").write_text(CONFIG + 'truth = "truth.nc"\n')
    assert cli.main(["run", PIPELINE, "c.toml", "-o", "other"]) == 0
    rows = json.loads(Path("other/figures.json").read_text())["rows"]
    post, truth = store.open("other/posterior.zarr").load(), xr.open_dataset("truth.nc")
    exact = float(sd.score.crps(post["coefficient"], truth["coefficient"]))
    assert rows["coefficient, diffusion"]["crps"] == pytest.approx(exact, rel=1e-5)
    assert not Path("report").exists()


def test_members_that_solve_nothing_say_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two fields that know nothing of each other have a residual as large as the source."""
    joint = CONFIG.replace('"model"', '"joint"')
    Path("c.toml").write_text(joint + 'equation = "poisson"\n')
    assert cli.main(["run", PIPELINE, "c.toml", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    post = store.open("report/posterior.zarr").load()
    left = sd.residual(post, pde.Poisson())
    assert facts["residual"] == pytest.approx(left.attrs["relative"]) and facts["residual"] > 1
    assert Path("report/residual.png").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("members = 6", 'equation = "posson"', "Did you mean 'poisson'"),
        ('"s.csv"', '"days.nc"', "Got several cases in 'days.nc'"),
        (
            '"model"\nobservations = "s.csv"',
            '"single"\nequation = "poisson"\nobservations = "alone.csv"',
            "a model of coefficient and solution",
        ),
        ("members = 6", 'truth = "no.nc"', "no.nc"),
        ("members = 6", 'truth = "s.zarr"', "s.zarr"),
        ("members = 6", 'truth = "coarse.nc"', "expected {'y': 9, 'x': 9}"),
        ('"s.csv"', '"t.csv"', "t.csv"),
        ('"model"', '"modle"', "modle"),
        ("seed = 3", "sede = 3", "Did you mean 'seed'"),
        ("members = 6", 'variable = "solutoin"', "Did you mean 'solution'"),
        ('"report"', '"model"', "which is the input"),
        ('"report"', '"notes"', "exists"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(
    here: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    Path("notes").mkdir()
    xr.open_dataset("truth.nc").isel(y=slice(0, 5)).to_netcdf("coarse.nc")
    days = xr.concat(
        [xr.open_dataset("truth.nc").assign_coords(sample=i) for i in (0, 1)], "sample"
    )
    days.assign({f"{n}_std": xr.full_like(days[n], 0.1) for n in NAMES}).to_netcdf("days.nc")
    Path("alone.csv").write_text("x,y,coefficient,coefficient_std\n0.3,0.4,4.2,0.1\n")
    sampler = Diffusion(PRIOR, steps=12)
    sd.Model(sd.Task(sd.View(NAMES[:1])), ALONE, sampler, moments=PRIOR).save("single")
    Path("c.toml").write_text(CONFIG.replace(old, new))
    before = sorted(here.rglob("*"))
    assert cli.main(["run", PIPELINE, "c.toml"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and said in err
    assert sorted(here.rglob("*")) == before
