"""Grids: where they place times, that they are data, and that the optimisers find the optimum."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from torch import Tensor

from sciddm import model, process, solve, tree
from sciddm.basis import Cosine
from sciddm.covariance import Matern, Spectral, White
from sciddm.denoise import Context, Gaussian, Mixture
from sciddm.errors import InputError
from sciddm.process import VE, VP, LinearBeta, LogLinear
from sciddm.random import Streams
from sciddm.solve import (
    CosineGrid,
    Diffusion,
    Euler,
    Given,
    Grid,
    Heun,
    LogKappa,
    Multistep,
    Rho,
    Uniform,
    align,
    refine,
    trajectory,
)
from sciddm.solve.placing import Path, alignment_cost, cheapest

DOUBLE = torch.float64
CLOCK = LogLinear(0.01, 100.0)
PRIOR = Spectral(Matern(0.4, 1.5, 1.2), (1.0,), Cosine())
N = 8
GRIDS: dict[str, Grid] = {
    "log kappa": LogKappa(),
    "rho 7": Rho(),
    "rho 1": Rho(1.0),
    "cosine": CosineGrid(),
    "uniform": Uniform(),
    "given": Given((100.0, 3.0, 2.0, 0.01)),
}
grids = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())


@grids
@pytest.mark.parametrize("clock", [CLOCK, LinearBeta(eps=1e-5)], ids=["log", "beta"])
def test_times_fall_between_the_ends(grid: Grid, clock: process.Clock) -> None:
    plain = VP(clock=clock)
    for steps, high, low in ((2, 50.0, 0.02), (9, 50.0, 0.02), (33, 7.0, 0.5)):
        times = grid.times(plain, steps, high, low)
        assert times.shape == (steps,) and times.dtype == DOUBLE
        assert bool((times[1:] < times[:-1]).all())
        kappa = plain.kappa(times)
        assert kappa[[0, -1]].tolist() == pytest.approx([high, low], rel=1e-9)


@grids
def test_without_bounds_a_grid_spans_the_clock(grid: Grid) -> None:
    times = grid.times(VE(clock=CLOCK), 5, None, None)
    assert times[[0, -1]].tolist() == pytest.approx([1, 0], abs=1e-12)
    assert float(times[-1]) >= 0 and float(times[0]) <= 1


@pytest.mark.parametrize(
    ("grid", "even"),
    [
        (LogKappa(), torch.log),
        (Rho(7.0), lambda k: k ** (1 / 7)),
        (Rho(2.0), torch.sqrt),
        (CosineGrid(), torch.arctan),
        (Uniform(), LinearBeta().time),
    ],
)
def test_what_is_even(grid: Grid, even: object) -> None:
    assert callable(even)
    plain = VP(clock=LinearBeta())
    value = even(plain.kappa(grid.times(plain, 12, 80.0, 0.05)))
    gaps = value[1:] - value[:-1]
    assert torch.allclose(gaps, gaps.mean().expand(11), rtol=1e-7)


def test_the_edm_grid_as_published() -> None:
    """Karras et al. 2022, eq. 5: 18 levels from 80 to 0.002."""
    plain = VE(clock=LogLinear(0.002, 80.0))
    i = torch.arange(18, dtype=DOUBLE)
    want = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert torch.allclose(plain.kappa(Rho(7.0).times(plain, 18, None, None)), want)


def test_a_given_grid_is_itself_and_keeps_its_density() -> None:
    kappas = (100.0, 10.0, 8.0, 5.0, 0.3, 0.01)
    plain = VE(clock=CLOCK)
    assert plain.kappa(Given(kappas).times(plain, 6, None, None)).tolist() == pytest.approx(kappas)
    finer = plain.kappa(Given(kappas).times(plain, 11, None, None))
    assert finer[::2].tolist() == pytest.approx(kappas)
    assert finer[1::2].tolist() == pytest.approx(
        [math.sqrt(a * b) for a, b in itertools.pairwise(kappas)]
    )
    part = plain.kappa(Given(kappas).times(plain, 3, 10.0, 5.0))
    assert part.tolist() == pytest.approx([10, 8, 5])


@pytest.mark.parametrize(
    "build",
    [
        lambda: Rho(0.0),
        lambda: Rho(math.nan),
        lambda: Given(()),
        lambda: Given((1.0,)),
        lambda: Given((1.0, 2.0)),
        lambda: Given((2.0, 0.0)),
        lambda: Given((2.0, math.nan)),
        lambda: Given((math.inf, 1.0)),
        lambda: Given((5.0, 1.0)).times(VE(clock=CLOCK), 4, 10.0, None),
        lambda: Given((500.0, 1.0)).times(VE(clock=CLOCK), 4, None, None),
        lambda: Rho().times(VE(clock=CLOCK), 1, None, None),
        lambda: CosineGrid().times(VE(clock=CLOCK), 5, 200.0, None),
        lambda: Uniform().times(VE(clock=CLOCK), 5, 1.0, 2.0),
        lambda: align(LEVELS, 1, 100.0, 0.01),
        lambda: align(LEVELS, 9, 100.0, 0.01, candidates=8),
        lambda: align(LEVELS, 9, 0.01, 100.0),
    ],
)
def test_impossible_grids_are_refused(build: object) -> None:
    assert callable(build)
    with pytest.raises(InputError, match="expected"):
        build()


def law(kind: type[VE] | type[VP] = VE) -> Gaussian:
    return Gaussian(torch.zeros(()), PRIOR, kind(clock=CLOCK))


LEVELS = law().expected_error(torch.zeros(1, 1, N), 129)


def exhaustive(cost: Tensor, steps: int) -> tuple[int, ...]:
    """The least total cost over every choice."""

    def total(path: tuple[int, ...]) -> float:
        if cost.ndim == 2:
            return sum(float(cost[i, j]) for i, j in itertools.pairwise(path))
        before = (0, *path[:-2])
        return sum(
            float(cost[h, i, j]) for h, i, j in zip(before, path[:-1], path[1:], strict=True)
        )

    inner = itertools.combinations(range(1, len(cost) - 1), steps - 2)
    return min(((0, *p, len(cost) - 1) for p in inner), key=total)


@pytest.mark.parametrize("steps", [2, 3, 5, 8, 9])
@pytest.mark.parametrize("axes", [2, 3])
def test_dynamic_programming_is_the_exhaustive_search(axes: int, steps: int) -> None:
    for seed in range(5):
        cost = torch.rand(*(9,) * axes, generator=torch.manual_seed(seed), dtype=DOUBLE)
        assert tuple(cheapest(cost, steps)) == exhaustive(cost, steps)


def test_the_cost_of_alignment_is_the_integral_of_the_change() -> None:
    """For a white prior the mean square change of the estimate is known: c is an integral."""
    plain = VE(clock=CLOCK)
    gaussian = Gaussian(torch.zeros(()), White(1.5), plain)
    levels = gaussian.expected_error(torch.zeros(1, 1, N), 2001)
    ends = torch.tensor([30.0, 0.4], dtype=DOUBLE)
    kappa = torch.logspace(math.log10(0.4), math.log10(30), 20001, dtype=DOUBLE)
    p = 1.5**2

    def gain_spread(k: Tensor) -> Tensor:
        return p**2 / (p + k**2)  # E x_hat^2, so the change between two levels is a difference

    change = gain_spread(kappa) - gain_spread(ends[0])
    want = torch.trapezoid(change * kappa**-2, kappa.log())
    found = alignment_cost(levels, torch.linspace(*ends.log().tolist(), 400, dtype=DOUBLE))[0, -1]
    assert float(found) == pytest.approx(float(want), rel=1e-4)


def end_error(denoiser: Gaussian | Mixture, grid: Grid, solver: object, steps: int) -> float:
    """Distance of the draws from those of a fine grid."""
    assert isinstance(solver, solve.Solver)
    draws = 100 * torch.randn(64, 1, N, generator=torch.manual_seed(5), dtype=DOUBLE)

    def end(grid: Grid, solver: solve.Solver, steps: int) -> Tensor:
        times = grid.times(denoiser.process, steps, None, None)
        return list(trajectory(denoiser, draws, times, Context(), solver))[-1]

    return float((end(grid, solver, steps) - end(LogKappa(), Multistep(3), 200)).norm())


def test_align_your_steps_finds_the_optimum_and_helps() -> None:
    grid = align(LEVELS, 5, 100.0, 0.01, candidates=14)
    level = torch.linspace(math.log(100), math.log(0.01), 14, dtype=DOUBLE)
    best = exhaustive(alignment_cost(LEVELS, level), 5)
    assert grid.kappas == pytest.approx(level[list(best)].exp().tolist())
    # to first order, on the scale of the field's leading direction
    largest = float(PRIOR.eigenvalues((N,)).max().sqrt())
    for steps in (6, 10):
        aligned = align(LEVELS, steps, 100.0, 0.01, detail=largest)
        assert aligned.kappas[0] == pytest.approx(100) and len(aligned.kappas) == steps
        found = end_error(law(), aligned, Euler(), steps)
        assert found < 0.92 * min(end_error(law(), g, Euler(), steps) for g in (Rho(), LogKappa()))
        assert found < end_error(law(), CosineGrid(), Euler(), steps)


def blobs() -> Mixture:
    """Two smooth bumps and their mirror images: no Gaussian."""
    x = torch.linspace(0, math.pi, N, dtype=DOUBLE)
    means = torch.stack([torch.sin(x), torch.cos(x)]).view(2, 1, N) * 1.5
    return Mixture(torch.cat([means, -means]), torch.full((4,), 0.25), 0.2, VE(clock=CLOCK))


@pytest.mark.parametrize("solver", [Euler(), Multistep(), Heun()], ids=lambda s: type(s).__name__)
def test_refining_finds_the_optimum(solver: solve.Solver) -> None:
    """Its own cost table is searched exhaustively; the memory of one step counts."""
    mixture = blobs()
    x = 100 * torch.randn(2, 1, N, generator=torch.manual_seed(0), dtype=DOUBLE)
    path = Path(mixture, solver, x, Context(), 9, None, None, None)
    cost = path.cost()
    assert cost.ndim == (3 if isinstance(solver, Multistep) else 2)
    best = exhaustive(cost, 5)
    assert tuple(cheapest(cost, 5)) == best
    # whole draws have the last word
    grid = refine(mixture, solver, x, 5, candidates=9)
    even = torch.linspace(math.log(100), math.log(0.01), 5, dtype=DOUBLE)
    found = path.error(torch.tensor(grid.kappas, dtype=DOUBLE).log())
    assert found <= min(path.error(path.level[list(best)]), path.error(even)) * (1 + 1e-9)


def test_costs_are_errors_of_single_steps() -> None:
    """From the reference, with the memory of a step on it, carried by the flow of a base."""
    gaussian, solver = law(), Multistep()
    x = 100 * torch.randn(2, 1, N, generator=torch.manual_seed(0), dtype=DOUBLE)
    path = Path(gaussian, solver, x, Context(), 7, None, None, gaussian)
    times = gaussian.process.times(7)
    fine = Path(gaussian, solver, x, Context(), 40, None, None, None)
    assert torch.allclose(fine.fields[-1], gaussian.flow(x, *times[[0, -1]]), atol=2e-2)
    cost = path.cost()
    for h, i, j in ((0, 1, 2), (1, 2, 5), (0, 4, 6)):
        step, fields = solver.step, path.fields
        _, state = step(gaussian, fields[h], times[h], times[i], Context(), solve.History(), None)
        end, _ = step(gaussian, fields[i], times[i], times[j], Context(), state, None)
        carried = [gaussian.flow(v, times[j], times[-1]) for v in (end, fields[j])]
        want = float((carried[0] - carried[1]).square().mean())
        assert float(cost[h, i, j]) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize(
    "solver",
    [Euler(eta=1.0), solve.Restart(), solve.Langevin(), solve.StochasticAdams(), solve.Adaptive()],
    ids=lambda s: type(s).__name__,
)
def test_a_grid_is_refined_for_solvers_without_noise(solver: solve.Solver) -> None:
    """Single noisy steps differ from the flow by their noise, whatever the grid."""
    x = 100 * torch.randn(2, 1, N, generator=torch.manual_seed(0), dtype=DOUBLE)
    with pytest.raises(InputError, match="draws noise"):
        refine(blobs(), solver, x, 5)


@pytest.mark.parametrize("steps", [5, 8, 10])
def test_a_refined_grid_beats_the_fixed_ones(steps: int) -> None:
    """On a mixture, at few evaluations, on other draws than it was found on."""
    mixture = blobs()
    x = 100 * torch.randn(512, 1, N, generator=torch.manual_seed(0), dtype=DOUBLE)
    grid = refine(mixture, Multistep(), x, steps, candidates=16)
    fixed = [end_error(mixture, g, Multistep(), steps) for g in (LogKappa(), Rho(), CosineGrid())]
    assert end_error(mixture, grid, Multistep(), steps) < 0.97 * min(fixed)


def test_a_saved_sampler_keeps_its_grid() -> None:
    """Through JSON and back: the same draws, to the bit."""
    classes = model.CLASSES | {c.__name__: c for c in (Given, Rho, LogKappa, CosineGrid, Uniform)}
    gaussian: Gaussian = law(VP)
    for grid in (align(LEVELS, 6, 100.0, 0.01), *GRIDS.values()):
        sampler = Diffusion(gaussian, Multistep(), 6, grid=grid)
        encoder = tree.Encoder()
        text = json.dumps(encoder.encode(sampler))
        again = tree.decode(json.loads(text), encoder.tensors, classes)
        assert again.grid == grid
        draws = [s((2, 1, N), Context(), Streams.of(0, 2)) for s in (sampler, again)]
        assert torch.equal(*draws)
