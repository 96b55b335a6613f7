"""Exceedance and log density of a labelled model against the normal law; laws of the errors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

import sciddm as sd
from sciddm import choices, cli
from sciddm.basis import Cosine
from sciddm.covariance import Matern, Spectral
from sciddm.data.codec import Derived, Grid, Normaliser, TwoValued
from sciddm.denoise import Context, Denoiser, Gaussian
from sciddm.process import VE, LogLinear
from sciddm.solve import Adams, Diffusion, Early, Euler, Given

SIDE = 8
AXIS = np.linspace(0, 1, SIDE)
GRID = Grid(("y", "x"), {"y": AXIS, "x": AXIS})
MEAN, STD = 5.0, 2.0


@pytest.fixture(scope="module")
def model() -> sd.Model:
    codec = Normaliser(
        GRID, ("h",), {"h": {"units": "m"}}, np.full((1, 1, 1), MEAN), np.array([STD])
    )
    law = Spectral(Matern(0.4, 1.5, 1.2), (1.0, 1.0), Cosine())
    prior = Gaussian(torch.zeros(()), law, VE(clock=LogLinear(0.005, 300.0)))
    return sd.Model(sd.Task(sd.View(("h",))), codec, Diffusion(prior, steps=30), moments=prior)


def covariance(model: sd.Model) -> np.ndarray:
    """The dense covariance of h on the grid."""
    unit = torch.eye(SIDE**2, dtype=torch.float64).view(-1, 1, SIDE, SIDE)
    prior = model.gaussian
    assert prior is not None
    return STD**2 * prior.prior(unit).flatten(1).numpy()


def at(values: list[float], where: list[tuple[int, int]]) -> xr.DataArray:
    y, x = (("station", AXIS[list(axis)]) for axis in zip(*where, strict=True))
    return xr.DataArray(values, dims="station", coords={"y": y, "x": x}, name="h")


@pytest.mark.parametrize("below", [False, True], ids=["above", "below"])
@pytest.mark.parametrize("tail", [0.1, 1e-3, 1e-25])
def test_the_probability_of_one_place_is_the_normal_tail(
    model: sd.Model, tail: float, below: bool
) -> None:
    spread = math.sqrt(covariance(model)[2 * SIDE + 5, 2 * SIDE + 5])
    level = MEAN + (-1 if below else 1) * spread * float(stats.norm.isf(tail))
    found = sd.exceedance(model, at([level], [(2, 5)]), below=below, members=64)
    assert found.attrs["probability"] == pytest.approx(tail, rel=0.05)
    value = found["h"].isel(y=2, x=5).values
    # every draw is in the event, up to the noise that is left at the end of the clock
    assert np.all((level - value if below else value - level) > -0.05)
    # and has the mean of the truncated normal
    excess = stats.norm.pdf(stats.norm.isf(tail)) / tail * spread
    shift = np.average(value - MEAN, weights=found["weight"])
    assert shift == pytest.approx((-1 if below else 1) * excess, abs=0.35 * spread / 8)


def test_any_of_two_places_is_the_union(model: sd.Model) -> None:
    where = [(1, 1), (6, 6)]
    index = [1 * SIDE + 1, 6 * SIDE + 6]
    law = covariance(model)[np.ix_(index, index)]
    level = MEAN + 2.5 * math.sqrt(law[0, 0])
    both = stats.multivariate_normal([MEAN, MEAN], law).cdf([level, level])
    found = sd.exceedance(model, at([level, level], where), members=128)
    assert found.attrs["probability"] == pytest.approx(1 - both, rel=0.05)
    assert found.attrs["effective_members"] > 32


def test_log_density_is_that_of_the_normal_law(model: sd.Model) -> None:
    fields = sd.generate(model, members=3, seed=2).rename(member="time")
    found = sd.log_prob(model, fields, steps=48)
    law = stats.multivariate_normal(np.zeros(SIDE**2), covariance(model) / STD**2)
    exact = law.logpdf((fields["h"].values.reshape(3, -1) - MEAN) / STD)
    assert found.dims == ("time",) and found.attrs["dimensions"] == SIDE**2
    assert np.abs(found.values - exact).max() / SIDE**2 < 2e-3
    one = sd.log_prob(model, fields.isel(time=1, drop=True), steps=48)
    assert one.ndim == 0 and float(one) == pytest.approx(float(found[1]), rel=1e-6)


def test_a_gross_error_loses_its_pull_under_students_law(model: sd.Model) -> None:
    """Three good sensors beside a broken one: the field at the good ones is what they say."""
    where = [(2, 2), (2, 3), (3, 2), (3, 3)]
    values = at([5.2, 5.2, 5.2, 25.0], where)
    plain = sd.recover(model, sd.Observed(values, std=0.2), members=32)
    robust = sd.recover(model, sd.Observed(values, std=0.2, freedom=3.0), members=32)
    there = {"y": 3, "x": 3}
    assert abs(float(robust["h"].isel(there).mean()) - 5.2) < 1.0
    assert float(plain["h"].isel(there).mean()) > 15
    assert "chi_square" not in robust.attrs
    assert plain.attrs["chi_square"] > 100 * float(plain.attrs["chi_square_range"].split()[-1]) / 20


def test_a_value_at_a_limit_is_a_bound(model: sd.Model) -> None:
    """A gauge that stops at 7: the field there has the law of the normal above 7."""
    seen = sd.Observed(at([7.0], [(4, 4)]), std=0.05, limits=(None, 7.0))
    value = sd.recover(model, seen, members=256, steps=60)["h"].isel(y=4, x=4).values
    spread = math.sqrt(covariance(model)[4 * SIDE + 4, 4 * SIDE + 4])
    law = stats.truncnorm((7 - MEAN) / spread, np.inf, MEAN, spread)
    assert stats.kstest(value, law.cdf).pvalue > 1e-3
    exact = sd.recover(model, sd.Observed(at([7.0], [(4, 4)]), std=0.05), members=32)
    assert float(exact["h"].isel(y=4, x=4).std()) < 0.1 < 0.5 * value.std()


WRONG_FIELDS: dict[str, tuple[str, Callable[[xr.Dataset], object]]] = {
    "an array": ("in a DataArray", lambda ds: ds["h"]),
    "elsewhere": ("model's own points", lambda ds: ds.assign_coords(y=AXIS + 1)),
    "upside down": ("model's own points", lambda ds: ds.isel(y=slice(None, None, -1))),
    "no coordinates": ("model's own points", lambda ds: ds.drop_vars(["y", "x"])),
    "words as coordinates": ("along 'y'", lambda ds: ds.assign_coords(y=list("abcdefgh"))),
    "other units": ("'cm'", lambda ds: ds.assign(h=ds["h"].assign_attrs(units="cm"))),
    "words": ("expected numbers", lambda ds: ds.astype(str)),
    "no case": ("0 values", lambda ds: ds.isel(time=[])),
    "two dims": ("one further dim", lambda ds: ds.expand_dims("q")),
    "a gap": ("not finite", lambda ds: ds.where(ds["y"] > 0)),
}


@pytest.mark.parametrize(("words", "wrong"), WRONG_FIELDS.values(), ids=WRONG_FIELDS.keys())
def test_fields_that_are_not_the_models_have_no_density(
    model: sd.Model, words: str, wrong: Callable[[xr.Dataset], Any]
) -> None:
    coords = {"y": AXIS, "x": AXIS}
    fields = xr.Dataset({"h": (("time", "y", "x"), np.full((2, SIDE, SIDE), MEAN))}, coords)
    with pytest.raises(sd.InputError, match=words):
        sd.log_prob(model, wrong(fields), steps=3)
    # single precision is no other grid
    rounded = fields.assign_coords(y=AXIS.astype(np.float32))
    assert np.isfinite(sd.log_prob(model, rounded, steps=3).values).all()


@pytest.mark.parametrize("level", [4.0, 6.0, 9.9], ids=str)
def test_an_event_of_two_values_is_that_of_the_draws(model: sd.Model, level: float) -> None:
    """Draws are 0 or 10: every threshold between them asks the same, and every draw is 10."""
    coarse = replace(model, codec=TwoValued(model.codec, "h", 0.0, 10.0))
    found = sd.exceedance(coarse, at([level], [(2, 5)]), members=16, steps=12)
    assert found.attrs["probability"] == pytest.approx(0.5, rel=0.05)
    assert np.all(found["h"].isel(y=2, x=5) == 10)
    with pytest.raises(sd.InputError, match="which is 0 or 10"):
        sd.exceedance(coarse, at([level, 10.0], [(2, 5), (3, 3)]))


WRONG_LIMITS = {
    "one number": (7.0, "lowest and the highest"),
    "three": ((1.0, 2.0, 3.0), "lowest and the highest"),
    "nan": ((math.nan, 7.0), "lowest and the highest"),
    "word": (("a", None), "lowest and the highest"),
    "equal": ((7.0, 7.0), "lower one first"),
    "beyond": ((None, 5.0), "6 beyond the limit 5"),
    "all below": ((math.inf, None), "beyond the limit inf"),
}


@pytest.mark.parametrize(("limits", "words"), list(WRONG_LIMITS.values()), ids=list(WRONG_LIMITS))
def test_wrong_limits_are_refused(model: sd.Model, limits: Any, words: str) -> None:
    with pytest.raises(sd.InputError, match=words):
        list(sd.Observed(at([6.0], [(1, 1)]), std=0.1, limits=limits).cases(model.codec))


def test_limits_are_of_one_variable(model: sd.Model) -> None:
    place, codec = at([6.0], [(1, 1)]), model.codec
    assert isinstance(codec, Normaliser)
    two = replace(codec, names=("h", "g"), mean=np.zeros((2, 1, 1)), std=np.ones(2))
    both = xr.Dataset({"h": place, "g": place})
    with pytest.raises(sd.InputError, match="'h' and 'g'"):
        list(sd.Observed(both, std=0.1, limits=(None, 6.0)).cases(two))


@pytest.mark.parametrize("limits", [(0.1, None), (None, 0.1)], ids=["low", "high"])
def test_a_single_precision_value_is_at_its_limit(
    model: sd.Model, limits: tuple[float | None, float | None]
) -> None:
    value = at([0.1], [(1, 1)]).astype(np.float32)
    ((_, _, seen),) = sd.Observed(value, std=0.05, limits=limits).cases(model.codec)
    side = -1.0 if limits[0] is None else 1.0
    # a bound has no pull on a field far on its own side
    far = seen.value(torch.full((1, 1, SIDE, SIDE), -side * 50.0))
    assert float(seen.law.chi_square(seen.y, far)) == pytest.approx(1.0, abs=1e-3)


def test_wrong_questions_are_refused(model: sd.Model) -> None:
    place = at([6.0], [(1, 1)])
    with pytest.raises(sd.InputError, match="at least 2"):
        sd.exceedance(model, place, members=1)
    wrong: Any
    for wrong in (place.to_dataset(), place * np.nan, place.astype(str), 6.0):
        with pytest.raises(sd.InputError, match="threshold"):
            sd.exceedance(model, wrong)
    with pytest.raises(sd.InputError, match="one of them"):
        sd.Observed(place, std=1.0, freedom=4.0, limits=(0.0, None))
    with pytest.raises(sd.InputError, match="degrees of freedom"):
        sd.Observed(place, std=1.0, freedom=-1.0)
    with pytest.raises(sd.InputError, match="without 'h'"):
        sd.log_prob(model, xr.Dataset({"g": (("y", "x"), np.zeros((SIDE, SIDE)))}))
    with pytest.raises(sd.InputError, match="expected"):
        sd.log_prob(model, xr.Dataset({"h": (("y", "x"), np.zeros((SIDE, 3)))}))


def test_every_name_of_the_command_line_draws(model: sd.Model) -> None:
    seen = sd.Observed(at([6.0, 4.0], [(1, 1), (6, 2)]), std=0.2)
    for solver in choices.SOLVERS.values():
        post = sd.recover(model, seen, members=16, solver=solver, steps=40)
        assert post.attrs["solver"] == repr(solver)
        # 2 values with errors of 0.2: members are near them with every solver
        assert post.attrs["misfit_sd"] < 3
    for name, rule in choices.RULES.items():
        post = sd.recover(model, seen, members=16, rule=rule, steps=40)
        assert np.isfinite(post["h"].values).all(), name


def test_the_default_says_what_it_is(model: sd.Model) -> None:
    seen = sd.Observed(at([6.0], [(1, 1)]), std=0.2)
    attrs = sd.recover(model, seen, members=2, solver=Adams(3), steps=5).attrs
    assert attrs["solver"] == repr(Adams(3)) and attrs["grid"] == "LogKappa()"
    assert attrs["guidance"] == "moment matching, closed form"
    assert attrs["choice"] == "the caller's"
    assert sd.recover(model, seen, members=2, steps=5).attrs["choice"] == "the default"
    low, high = (float(v) for v in attrs["chi_square_range"].split(" to "))
    assert low < high and attrs["chi_square"] == pytest.approx(
        1.0 / (covariance(model)[SIDE + 1, SIDE + 1] + 0.04), abs=0.01
    )


def test_events_and_densities_from_the_command_line(
    model: sd.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save(tmp_path / "model")
    (tmp_path / "levels.csv").write_text("y,x,h\n0,0,9.0\n1,1,9.0\n")
    fields = sd.generate(model, members=2)
    fields.to_netcdf(tmp_path / "fields.nc")
    folder, levels = str(tmp_path / "model"), str(tmp_path / "levels.csv")
    out = str(tmp_path / "draws.zarr")
    assert cli.main(["exceed", folder, levels, "-o", out, "--members", "32", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    wanted = sd.exceedance(model, at([9.0, 9.0], [(0, 0), (7, 7)]), members=32)
    assert told["probability"] == wanted.attrs["probability"]
    assert sd.score is not None and xr.open_zarr(Path(out) / "store" if False else out) is not None
    density = ["density", folder, str(tmp_path / "fields.nc"), "--steps", "24", "--json"]
    assert cli.main(density) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    exact = sd.log_prob(model, fields, steps=24).values
    assert told["log_density"] == pytest.approx(exact.tolist(), abs=1e-3)


def test_a_refined_grid_is_saved_with_the_model(
    model: sd.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six evaluations on the new grid are nearer to the exact flow than on the default one."""
    folder, out = str(tmp_path / "model"), str(tmp_path / "fine")
    model.save(folder)
    assert cli.main(["refine", folder, "-o", out, "--steps", "6", "--members", "96", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(told["noise_levels"]) == 6 and told["noise_levels"][0] > told["noise_levels"][-1]
    fine = sd.load(out)
    exact = sd.generate(model, members=64, seed=9, steps=400)
    errors = [
        float(np.sqrt(((draws - exact) ** 2)["h"].mean()))
        for draws in (
            sd.generate(model, members=64, seed=9, steps=6),
            sd.generate(fine, members=64, seed=9),
        )
    ]
    assert errors[1] < 0.9 * errors[0]
    again = ["refine", folder, "-o", out, "--steps", "4", "--members", "8"]
    assert cli.main(again) == 2 and cli.main([*again, "--overwrite"]) == 0
    assert sd.load(out).sampler.steps == 4
    assert cli.main(["refine", folder, "-o", out, "--steps", "2", "--overwrite"]) == 2


def test_a_grid_is_refined_from_where_the_network_starts(model: sd.Model) -> None:
    prior = model.gaussian
    assert prior is not None
    early = replace(model, sampler=replace(model.sampler, early=Early(prior, 20.0)))
    grid = sd.refined(early, steps=4, members=8).sampler.grid
    assert isinstance(grid, Given) and grid.kappas[0] == pytest.approx(20)
    noisy = replace(model, sampler=replace(model.sampler, solver=Euler(eta=1.0)))
    with pytest.raises(sd.InputError, match="draws noise"):
        sd.refined(noisy, steps=4, members=8)


def square(x: torch.Tensor) -> torch.Tensor:
    return x**2


def test_interpolation_says_where_it_is_not_exact(model: sd.Model) -> None:
    bent = replace(model, codec=Derived(model.codec, "power", {"units": "m2"}, square))
    seen = sd.Observed(at([49.0], [(2, 5)]).rename("power"), std=2.0)
    assert sd.krige(bent, seen, members=2).attrs["guidance"] == "randomised maximum likelihood"
    assert sd.krige(bent, seen, members=8).attrs["misfit_sd"] < 2
    assert sd.recover(bent, seen, members=8, steps=16).attrs["misfit_sd"] < 2


class Curved(Denoiser):
    """A prior that knows no covariance."""

    def __init__(self, model: sd.Model) -> None:
        torch.nn.Module.__init__(self)
        self.inner = model.sampler.denoiser
        self.process = self.inner.process

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, context: Context) -> torch.Tensor:
        out: torch.Tensor = self.inner(x_t, t, context)
        return out


def test_a_model_without_a_covariance_is_told_to_count(model: sd.Model) -> None:
    bare = sd.Model(model.task, model.codec, Diffusion(Curved(model)))
    with pytest.raises(sd.InputError, match="generate and count"):
        sd.exceedance(bare, at([6.0], [(1, 1)]))
