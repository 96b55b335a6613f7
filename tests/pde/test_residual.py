"""The residual of an equation: zero at its solutions, known where it is known, and as evidence."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

import sciddm as sd
from sciddm import guide, pde
from sciddm.basis import Cosine
from sciddm.covariance import Matern, Spectral
from sciddm.data.codec import Derived, Grid, Normaliser
from sciddm.denoise import Gaussian
from sciddm.errors import InputError
from sciddm.guide import linear_posterior
from sciddm.observe import Observation
from sciddm.process import VE, LogLinear
from sciddm.solve import Diffusion

SIDE = 11
UNIT = np.linspace(0, 1, SIDE)
EQUATIONS = [pde.Poisson(), pde.Helmholtz(5.0), pde.Darcy(2.0)]


def coefficient(side: int = SIDE, batch: int = 3) -> torch.Tensor:
    """Positive, rough."""
    return 1 + torch.rand(batch, 1, side, side, dtype=torch.float64, generator=torch.manual_seed(0))


@pytest.mark.parametrize("equation", EQUATIONS, ids=repr)
def test_a_solution_has_no_residual_and_another_field_its_own(
    equation: pde.Poisson | pde.Helmholtz | pde.Darcy,
) -> None:
    """Adding a sine mode to u adds its image under L; a ring that is not 0 stands in its rows."""
    a = coefficient()
    u = equation(a)
    operator = pde.Residual(equation)
    assert float(operator(torch.cat([a, u], 1)).abs().max()) < 1e-9
    s = torch.from_numpy(np.sin(2 * math.pi * UNIT))
    wave = (s[:, None] * s)[None, None]
    off = operator(torch.cat([a, u + 0.3 * wave], 1))
    image = equation.sides(a, wave.expand_as(u))[0][:, 0, 1:-1, 1:-1].flatten(1)
    torch.testing.assert_close(off[:, : 9 * 9], 0.3 * image)
    if isinstance(equation, pde.Poisson):
        h = 1 / (SIDE - 1)
        eigenvalue = -2 * (2 / h * math.sin(math.pi * h)) ** 2  # two axes, mode 2
        torch.testing.assert_close(
            off[0, : 9 * 9], 0.3 * eigenvalue * wave[0, 0, 1:-1, 1:-1].flatten()
        )
    ring = operator(torch.cat([a, u + 0.25], 1))[:, 9 * 9 :]
    torch.testing.assert_close(ring, torch.full((3, 4 * 10), 0.25, dtype=torch.float64))


def test_modes_keep_the_size_of_a_residual() -> None:
    """All of them have its sum of squares; few see a long wave whole and a short one not."""
    x = torch.rand(2, 2, SIDE, SIDE, dtype=torch.float64, generator=torch.manual_seed(1))
    whole = pde.Residual(pde.Poisson())(x)
    every = pde.Residual(pde.Poisson(), modes=(9, 9))(x)
    torch.testing.assert_close(every.square().sum(1), whole.square().sum(1))
    few = pde.Residual(pde.Poisson(), modes=(2, 2))
    for mode, seen in ((1, True), (7, False)):
        s = torch.from_numpy(np.sin(mode * math.pi * UNIT))
        pair = torch.stack([torch.zeros(SIDE, SIDE).double(), s[:, None] * s])[None]
        assert (float(few(pair)[:, :4].abs().max()) > 1) == seen
    assert few.affine(x)
    assert not pde.Residual(pde.Darcy()).affine(coefficient().expand(3, 2, SIDE, SIDE))


GRID = Grid(("y", "x"), {"y": UNIT, "x": UNIT})
PRIOR = Gaussian(
    torch.zeros(()),
    Spectral(Matern(0.5, 1.5, 1.0), (1.0, 1.0), Cosine()),
    VE(clock=LogLinear(0.001, 1000.0)),
)
NAMES = ("coefficient", "solution")
SCALE = np.array([2.0, 60.0])
"""The solution of a coefficient of s.d. 2 has 0.1: next to it 60 is no knowledge."""
JOINT = Normaliser(GRID, NAMES, {}, np.array([0.5, 0.0]).reshape(2, 1, 1), SCALE)
ALONE = Derived(
    Normaliser(GRID, NAMES[:1], {}, JOINT.mean[:1], SCALE[:1]), "solution", {}, pde.Poisson()
)
TASK = sd.Task(sd.View(NAMES))
LIKE = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64)


def sensors() -> sd.Observed:
    x = PRIOR.sample(LIKE, None)
    truth = ALONE.decode(x, xr.DataArray([0], dims="m", name="m")).isel(m=0, drop=True)
    rng = np.random.default_rng(0)
    y, x_ = (xr.DataArray(rng.uniform(0.1, 0.9, 12), dims="station") for _ in "yx")
    return sd.Observed(truth["solution"].interp(y=y, x=x_), std=1e-3)


def only(seen: sd.Observed, codec: Derived | Normaliser) -> Observation:
    ((_, _, observation),) = seen.cases(codec)
    assert observation is not None
    return observation


def test_a_joint_prior_told_of_the_equation_is_the_prior_with_a_solver() -> None:
    """Two fields that know nothing of each other, and residual = 0: the posterior of the model that
    solves for the second. Linear and Gaussian, so both are closed forms."""
    seen = sensors()
    mean, _, variance = linear_posterior(PRIOR, only(seen, ALONE), LIKE)
    told = seen & sd.Residual(pde.Poisson(), std=1e-3, edge=1e-5)
    both, _, spread = linear_posterior(PRIOR, only(told, JOINT), LIKE.expand(1, 2, SIDE, SIDE))
    size = float(mean.std())
    torch.testing.assert_close(both[:, :1], mean, rtol=0, atol=5e-3 * size)
    # the corners and the ring of the coefficient are in no equation: both have their prior there
    torch.testing.assert_close(spread[:1], variance, rtol=5e-3, atol=1e-4)
    untold, _, _ = linear_posterior(PRIOR, only(seen, JOINT), LIKE.expand(1, 2, SIDE, SIDE))
    assert float((untold[:, :1] - mean).abs().max()) > 0.5 * size


def test_members_that_are_told_of_the_equation_hold_it() -> None:
    """Through recover, in closed form and by modes; what is left is what the error allows."""
    model = sd.Model(TASK, JOINT, Diffusion(PRIOR, steps=30), moments=PRIOR)
    seen = sensors()
    plain = sd.recover(model, seen, members=8)
    told = sd.recover(model, seen & sd.Residual(pde.Poisson(), std=0.05, edge=1e-3), members=8)
    modes = seen & sd.Residual(pde.Poisson(), std=0.05, edge=1e-3, modes=4)
    left = [
        sd.residual(post, pde.Poisson())
        for post in (plain, told, sd.recover(model, modes, members=8))
    ]
    assert left[1].attrs["rms"] < 0.1 < 100 * left[1].attrs["rms"] < left[0].attrs["rms"]
    assert (
        left[1].attrs["boundary_rms"] < 2e-3 and left[2].attrs["rms"] < 0.9 * left[0].attrs["rms"]
    )
    assert 0.7 < told.attrs["misfit_sd"] < 1.2


def test_a_curved_equation_is_told_by_moment_matching_through_the_jacobian() -> None:
    """Darcy: a product of both fields. Less residual than without it, and the sensor still met."""
    scale = np.array([0.1, 0.05])
    mean = np.stack([np.full((SIDE, SIDE), 1.0), pde.Darcy()(torch.ones(1, 1, SIDE, SIDE))[0, 0]])
    codec = Normaliser(GRID, NAMES, {}, mean, scale)
    model = sd.Model(TASK, codec, Diffusion(PRIOR, steps=20))
    value = xr.DataArray([0.07], {"y": ("s", [0.5]), "x": ("s", [0.5])}, ("s",), "solution")
    seen = sd.Observed(value, std=1e-3)
    told = seen & sd.Residual(pde.Darcy(), std=0.1, edge=1e-3)
    left = []
    for evidence in (seen, told):
        post = sd.recover(
            model, evidence, members=4, rule=lambda p, o: guide.MMPS(p, o, iterations=40)
        )
        left.append(sd.residual(post, pde.Darcy()).attrs)
        assert abs(float(post["solution"].mean("member")[5, 5]) - 0.07) < 5e-3
    assert left[1]["relative"] < 0.05 * left[0]["relative"]
    assert left[1]["boundary_rms"] < 0.1 * left[0]["boundary_rms"]


def test_the_figure_of_fields_is_their_own() -> None:
    a = coefficient(batch=6)
    u = pde.Poisson()(a)
    dims = ("member", "sample", "y", "x")
    ds = xr.Dataset(
        {
            "coefficient": (dims, a.view(3, 2, SIDE, SIDE).numpy()),
            "solution": (dims, (u + 0.01).view(3, 2, SIDE, SIDE).numpy()),
        },
        {"y": UNIT, "x": UNIT},
    )
    found = sd.residual(ds, pde.Poisson())
    assert found.dims == dims and found.attrs["boundary_rms"] == pytest.approx(0.01)
    assert found.attrs["rms"] < 3  # from the ring to the nodes beside it
    exact = pde.Poisson().sides(a, u + 0.01)
    gap = (exact[0] - exact[1])[..., 1:-1, 1:-1]
    assert found.attrs["rms"] == pytest.approx(float(gap.square().mean().sqrt()))
    size = float(a[..., 1:-1, 1:-1].square().mean().sqrt())
    assert found.attrs["relative"] == pytest.approx(found.attrs["rms"] / size)
    solved = sd.residual(ds, pde.Solved(pde.Poisson()))
    np.testing.assert_allclose(solved, 0.01, rtol=1e-6)


@pytest.mark.parametrize(
    ("said", "make"),
    [
        ("zero by construction", lambda: (sd.Residual(pde.Poisson(), std=0.1), ALONE)),
        ("needs a variable 'u'", lambda: (sd.Residual(pde.Poisson(), 0.1, solution="u"), JOINT)),
        ("std = 0", lambda: (sd.Residual(pde.Poisson(), std=0), JOINT)),
        ("edge = -1", lambda: (sd.Residual(pde.Poisson(), std=1, edge=-1), JOINT)),
        ("edge = 0", lambda: (sd.Residual(pde.Poisson(), std=1, edge=0), JOINT)),
        ("pde.Solved.S.", lambda: (sd.Residual(pde.Heat(), std=1), JOINT)),
        ("'poisson' as an equation", lambda: (sd.Residual("poisson", std=1), JOINT)),  # type: ignore[arg-type]
        ("'poisson' as an equation", lambda: sd.residual(xr.Dataset(), "poisson")),  # type: ignore[arg-type]
        (
            "expected two of space",
            lambda: sd.residual(
                xr.Dataset({n: ("x", UNIT) for n in ("coefficient", "solution")}), pde.Poisson()
            ),
        ),
        ("0 modes", lambda: (sd.Residual(pde.Poisson(), std=1, modes=0), JOINT)),
        ("12, 12. modes", lambda: (sd.Residual(pde.Poisson(), std=1, modes=12), JOINT)),
        (
            "nodes of the unit square; got 'y' with 11 points from 0 to 3",
            lambda: (
                sd.Residual(pde.Poisson(), std=1),
                replace(JOINT, grid=Grid(("y", "x"), {"y": 3 * UNIT, "x": UNIT})),
            ),
        ),
    ],
)
def test_a_residual_that_makes_no_sense_is_refused(said: str, make: object) -> None:
    with pytest.raises(InputError, match=said) as error:
        evidence, codec = make()  # type: ignore[operator]
        list(evidence.cases(codec))
    assert "\n" not in str(error.value)
