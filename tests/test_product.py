"""The fast cells of the product: processes x covariances x observations x solvers, each held to the
exact posterior at 20 and 50 evaluations; and four calibration tests that must see wrong samplers.
The whole of both is in `benchmarks/limits.py`."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest
import torch

from sciddm.denoise import Context, Gaussian
from sciddm.guide import Conditioned, Replace
from sciddm.observe import Observation
from sciddm.random import Streams
from sciddm.solve import trajectory

ROWS = 3


def table(name: str) -> ModuleType:
    """A part of the benchmark: the lists of processes and solvers are kept there once."""
    folder = str(Path(__file__).parents[1] / "benchmarks")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(f"_limits.{name}")


limits, calibration = table("product"), table("calibration")
PLACES = list(product(limits.COVARIANCES, limits.OPERATORS))


@pytest.mark.parametrize("process", limits.PROCESSES)
def test_every_process_draws_the_posterior(process: str) -> None:
    """With the default solver, and the same law as under any other process."""
    found = limits.cell(process, "smooth in white", "off the grid", "Multistep", 20)
    assert found.within, found
    other = limits.cell("VP", "smooth in white", "off the grid", "Multistep", 20)
    assert found.ratio == pytest.approx(other.ratio, abs=1e-6)


@pytest.mark.parametrize(("covariance", "observation"), PLACES, ids=lambda v: str(v))
def test_every_covariance_and_observation(covariance: str, observation: str) -> None:
    for evaluations in (20, 50):
        found = limits.cell("flow", covariance, observation, "Multistep", evaluations)
        assert found.within, found


@pytest.mark.parametrize("solver", limits.SOLVERS)
def test_every_solver_is_as_good_as_its_order(solver: str) -> None:
    for evaluations in (20, 50):
        found = limits.cell("bridge VP", "smooth in matern", "coarse means", solver, evaluations)
        assert found.within, found


def test_the_bounds_tell_solvers_and_rules_apart() -> None:
    """Euler is out of the default's bounds; so are replacement and a wrong error variance."""
    place = ("VP", "smooth in white", "points")
    euler = limits.cell(*place, "Euler", 20)
    default = limits.cell(*place, "Multistep", 20)
    assert euler.within and not replace(euler, allowed=default.allowed).within
    guided, m, c = limits.posterior(*place)
    prior, seen = guided.prior, guided.observation
    assert isinstance(prior, Gaussian)
    keep = torch.zeros(1, limits.N, dtype=torch.bool)
    keep[0, [1, 4, 5, 11, 16]] = True
    known = torch.zeros(1, limits.N, dtype=torch.float64)
    known[keep] = seen.y
    trusting = Observation(seen.y, seen.operator, seen.covariance / 2)
    rule = limits.SOLVERS["Multistep"].solver
    for wrong in (Replace(prior, known, keep), Conditioned(prior, trusting, prior)):
        mean, spread = limits.law(wrong, rule, 20)
        assert not limits.judge(place, "Multistep", 20, (mean, spread), (m, c)).within


@pytest.mark.parametrize("solver", ["ancestral", "SA-Solver", "matched", "Restart", "Langevin"])
def test_a_draw_is_the_sum_of_its_noises(solver: str) -> None:
    """What the whole file rests on: the images of unit noise make up every draw."""
    denoiser, _, _ = limits.posterior("VP", "smooth in matern", "points")
    rule, steps = limits.SOLVERS[solver].solver, 12
    times = denoiser.process.times(steps)

    def drawn(rng: Streams, rows: int) -> torch.Tensor:
        anchor = limits.ANCHOR.expand(rows, 1, limits.N)
        x = denoiser.process.start(torch.zeros_like(anchor), times[0], anchor, rng.at("start"))
        *_, last = trajectory(denoiser, x, times, Context(anchor=anchor), rule, rng)
        return last.flatten(1)

    unit = limits.Unit(0, (), ())
    drawn(unit, 1)
    images = drawn(unit, unit.rows)
    rng = Streams.of(4, ROWS)
    total = images[:1].expand(ROWS, -1).clone()
    for (purpose, step), (first, size) in unit.book.items():
        noise = rng.at(purpose, step).normal(torch.zeros(ROWS, size, dtype=torch.float64))
        total += noise @ (images[first : first + size] - images[0])
    assert torch.allclose(drawn(rng, ROWS), total, atol=1e-8)


def test_calibration_passes_the_default_and_flags_wrong_samplers() -> None:
    """Each of coverage, simulation-based calibration, TARP and C2ST on 500 cases of 19 members."""
    problem = calibration.Problem.of(500)
    cases = slice(None)
    x = problem.drawn(limits.SOLVERS["Multistep"].solver, 50, 19)
    exact = problem.exact(19)
    for draws in (x, exact):
        found = problem.judged(draws, cases)
        assert not any(flag for _, flag in found.values()), found
        assert abs(found["coverage"][0]) < 0.02
        assert found["TARP"][0] < 0.06 and found["C2ST"][0] < 0.55
    for name, (width, shift) in calibration.WRONG.items():
        found = problem.judged(problem.wrong(x, width, shift), cases)
        assert all(flag for _, flag in found.values()), (name, found)


def test_the_exact_draws_have_the_exact_law() -> None:
    problem = calibration.Problem.of(3)
    x = problem.exact(4000)
    std = problem.std
    assert float(((x.mean(0) - problem.mean) / std).abs().max()) < 5 / 4000**0.5
    assert torch.allclose(x[:, 0].T.cov(), problem.covariance, atol=0.1 * float(std.max() ** 2))
