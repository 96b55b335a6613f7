"""From a sensor file to a posterior: both forms of a table, and what users get wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import sciddm as sd
from sciddm import cli, sensors
from sciddm.basis import Cosine
from sciddm.covariance import Matern, Spectral
from sciddm.data import store
from sciddm.data.codec import Derived, Grid, Normaliser
from sciddm.denoise import Gaussian
from sciddm.errors import InputError
from sciddm.pde import Darcy, Poisson
from sciddm.process import VE, LogLinear
from sciddm.solve import Diffusion

UNIT = np.linspace(0, 1, 9)
UNITS = {"units": "1"}
INNER = Normaliser(
    Grid(("y", "x"), {"y": UNIT, "x": UNIT}, {"y": UNITS, "x": UNITS}),
    ("coefficient",),
    {"coefficient": UNITS},
    np.full((1, 1, 1), 0.5),
    np.array([2.0]),
)
PRIOR = Gaussian(
    torch.zeros(()),
    Spectral(Matern(0.5, 1.5, 1.0), (1.0, 1.0), Cosine()),
    VE(clock=LogLinear(0.01, 100.0)),
)


def model(solver: Poisson | Darcy, prior: Gaussian = PRIOR) -> sd.Model:
    codec = Derived(INNER, "solution", UNITS, solver)
    task = sd.Task(sd.View(("coefficient", "solution")))
    return sd.Model(task, codec, Diffusion(prior, steps=12), moments=prior)


POISSON = model(Poisson())
LONG = """x,y,variable,value,std
0.25,0.5,solution,0.01,0.001
0.75,0.5,solution,-0.02,0.002
0.3,0.4,coefficient,1.5,0.1
"""
WIDE = """y,x,solution,solution_std,coefficient,coefficient_std,wind
0.5,0.25,0.01,0.001,,,9
0.5,0.75,-0.02,0.002,,,8
0.4,0.3,,,1.5,0.1,7
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    POISSON.save("model")
    return tmp_path


def test_both_forms_of_a_table_are_one(here: Path) -> None:
    """The same values, errors, places and draws."""
    Path("long.csv").write_text(LONG)
    Path("wide.csv").write_text(WIDE)
    seen = [sensors.read(POISSON.codec, f) for f in ("long.csv", "wide.csv")]
    (first,), (second,) = (list(s.cases(POISSON.codec)) for s in seen)
    assert first[2] is not None and second[2] is not None
    torch.testing.assert_close(first[2].y, second[2].y)
    like = torch.zeros(1, 1, 9, 9)
    torch.testing.assert_close(first[2].operator.rows(like), second[2].operator.rows(like))
    np.testing.assert_allclose(first[2].y, [15, 10, -10], rtol=1e-12)  # coefficient first
    for name in ("long", "wide"):
        argv = ["recover", "model", f"{name}.csv", "-o", f"{name}.zarr", "--members", "2"]
        assert cli.main([*argv, "--json"]) == 0
    xr.testing.assert_allclose(store.open("long.zarr").load(), store.open("wide.zarr").load())


def test_one_variable_of_a_long_table_with_the_error_of_the_flag(here: Path) -> None:
    Path("long.csv").write_text(LONG)
    seen = sensors.read(POISSON.codec, "long.csv", variable="solution", std=0.5)
    ((_, _, observation),) = seen.cases(POISSON.codec)
    assert observation is not None
    np.testing.assert_allclose(observation.y, [0.02, -0.04])


def test_positions_are_the_dims_of_the_model_whatever_they_are_called(here: Path) -> None:
    """Time and place of a field in space and time, which no convention knows."""
    grid = Grid(("t", "depth_km"), {"t": UNIT, "depth_km": UNIT})
    codec = Normaliser(grid, ("u",), {}, np.zeros((1, 1, 1)), np.ones(1))
    Path("s.csv").write_text("depth_km,u,u_std,t,station\n0.5,1,0.1,0.25,a\n1,2,0.1,0,b\n")
    ((_, _, observation),) = sensors.read(codec, "s.csv").cases(codec)
    assert observation is not None
    x = torch.arange(81.0).view(1, 1, 9, 9)
    np.testing.assert_allclose(observation.operator(x)[0] * 0.1, [2 * 9 + 4, 8], rtol=1e-6)


def test_an_empty_column_draws_the_prior_with_one_line(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.csv").write_text("x,y,variable,value,std\n0.5,0.5,solution,,0.1\n")
    argv = ["recover", "model", "s.csv", "-o", "a.zarr", "--members", "2", "--json", "--std", "0.1"]
    assert cli.main(argv) == 0
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        "sciddm: warning: Nothing is observed: every value is NaN. The draws are of the prior."
    ]
    assert "misfit_sd" not in json.loads(out.splitlines()[-1])
    prior = sd.generate(POISSON, members=2)
    np.testing.assert_array_equal(store.open("a.zarr")["coefficient"], prior["coefficient"])


ATTACKS = {
    "an empty file": ("", "cannot be read as CSV"),
    "a header alone": ("x,y,solution\n", "no rows"),
    "no header": ("0.1,0.2,0.3\n0.1,0.3,0.4\n", "no header"),
    "a column twice": ("x,x,y,solution\n0,0,0,1\n", "two columns 'x'"),
    "a header twice": (
        "x,y,solution,solution_std\n0.1,0.1,1,1\n0.1,0.2,1,1\nx,y,solution,solution_std\n",
        "holds 'x' in row 4",
    ),
    "semicolons": ("x;y;solution\n1;2;3\n", "separated by semicolons"),
    "semicolons and decimal commas": ("x;y;solution\n0,5;0,5;0,1\n", "decimal point"),
    "decimal commas": ("x,y,solution\n0,5,0,5,0,01\n", "decimal point"),
    "decimal commas in quotes": (
        'x,y,solution,solution_std\n"0,5","0,5","0,1","0,1"\n',
        "no numbers beside them; expected a value. Write them with a decimal point",
    ),
    "values in words": (
        'x,y,solution,coefficient,coefficient_std\n0.5,0.5,"0,1",1,1\n',
        "words in the column 'solution'",
    ),
    "a misspelt column": (
        "x,y,coefficient,coefficient_std,soluton\n0.5,0.5,1,1,1\n",
        "'soluton', which the model does not have. Did you mean 'solution'",
    ),
    "a misspelt error": (
        "x,y,solution,solution_sdt\n0.5,0.5,1,1\n",
        "Did you mean 'solution_std'",
    ),
    "a misspelt variable in a row": (
        LONG + "0.1,0.1,soluton,1,1\n",
        "'soluton', which the model does not have",
    ),
    "a foreign variable in a row": (LONG + "0.1,0.1,wind,1,1\n", "'wind', which the model"),
    "a row without a variable": (LONG + "0.1,0.1,,1,1\n", "the variable in row 5 has no name"),
    "long values in words": (
        'x,y,variable,value,std\n0.1,0.1,solution,"0,1",1\n',
        "'value' holds no numbers. Write them with a decimal point",
    ),
    "two units": (
        "x,y,variable,value,std,units\n0.1,0.1,solution,1,1,m\n0.1,0.2,solution,1,1,km\n",
        "in 'km' and 'm'",
    ),
    "other units": (
        "x,y,variable,value,std,units\n0.1,0.1,solution,1,1,m\n",
        "in 'm', the model in '1'",
    ),
    "no error": ("x,y,solution\n0.5,0.5,1\n", "without an error of 'solution'"),
    "an error of nothing": ("x,y,solution,solution_std\n0.5,0.5,1,0\n", "is 0 at station 0"),
    "a missing error": (
        "x,y,variable,value,std\n0.5,0.5,solution,1,1\n0.5,0.4,solution,1,\n",
        "is nan at station 1",
    ),
    "no place": ("x,y,solution,solution_std\n0.5,,1,1\n", "have no position"),
    "infinite": ("x,y,solution,solution_std\n0.5,0.5,inf,1\n", "infinite"),
    "a place too few": ("x,solution,solution_std\n0.5,1,1\n", "needs a coordinate 'y'"),
    "degrees": ("lat,lon,solution,solution_std\n51,0.1,1,1\n", "needs a coordinate 'y'"),
    "swapped degrees": ("lat,lon,solution,solution_std\n151,0.1,1,1\n", "latitude within 90"),
    "outside": (
        "x,y,solution,solution_std\n0.5,0.5,1,1\n0.5,50,1,1\n",
        "Observation 1 of 'solution' lies outside the grid, at y = 50, x = 0.5",
    ),
    "against the boundary": (
        "x,y,solution,solution_std\n0.5,0.5,0.01,1\n0,0.5,0.2,0.01\n",
        "'solution' at y = 0.5, x = 0 is 0.2 with an error of 0.01, but every field of this model "
        "is 0 there",
    ),
    "another variable": ("x,y,wind,wind_std\n0.5,0.5,1,1\n", "without 'coefficient' or 'solution'"),
}


@pytest.mark.parametrize(("text", "said"), ATTACKS.values(), ids=ATTACKS.keys())
def test_a_faulty_table_is_one_line_and_two_and_nothing_is_written(
    here: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    Path("s.csv").write_text(text)
    before = sorted(here.rglob("*"))
    assert cli.main(["recover", "model", "s.csv", "-o", "post.zarr", "--members", "2"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and said in err
    assert sorted(here.rglob("*")) == before


def test_arrays_without_labels_are_refused() -> None:
    with pytest.raises(InputError, match="a ndarray; expected a DataArray"):
        sd.Observed(np.ones(3), std=1.0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="needs a coordinate 'y'"):
        values = xr.DataArray([1.0, 2.0], dims="station", name="solution")
        sd.recover(POISSON, sd.Observed(values, std=1.0), members=1)


def test_a_coefficient_that_loses_ellipticity_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Gaussian prior about 0.5 goes below zero, where the equation of Darcy has no solution."""
    darcy = model(Darcy())
    darcy.save("darcy")
    value = xr.DataArray([0.1], {"y": ("s", [0.5]), "x": ("s", [0.5])}, ("s",), "solution")
    for draw in (
        lambda: sd.generate(darcy, members=4),
        lambda: sd.recover(darcy, sd.Observed(value, std=0.01), members=4),
    ):
        with pytest.raises(InputError, match="loses ellipticity; use exp"):
            draw()
    assert cli.main(["generate", "darcy", "-o", "new.zarr"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "loses ellipticity" in err and not Path("new.zarr").exists()
