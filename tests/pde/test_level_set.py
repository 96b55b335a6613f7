"""Two phases as the sign of a Gaussian field: orthant probabilities, the arcsine law, inversion."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sciddm.basis import Cosine
from sciddm.covariance import PowerLaw, Spectral, ZeroMean
from sciddm.errors import InputError
from sciddm.pde import Darcy, GaussianField, Interface, LevelSet, Seen
from sciddm.pde.elliptic import solve_darcy
from sciddm.pde.interface import _Search, solve_many
from sciddm.pde.level_set import arcsine_law, orthant
from sciddm.random import Streams

LATENT = Spectral(ZeroMean(PowerLaw(2.0, 3.0, 3.0)), (1.0, 1.0), Cosine())
LAW = LevelSet(LATENT, 3.0, 12.0)


def correlation(size: int) -> torch.Tensor:
    unit = torch.eye(size**2, dtype=torch.float64).view(-1, 1, size, size)
    full = LATENT(unit).flatten(1)
    std = full.diagonal().sqrt()
    return full / (std[:, None] * std)


@pytest.mark.parametrize("rho", [0.9, -0.5])
def test_gibbs_has_the_mean_of_a_quadrant(rho: float) -> None:
    # E[z1; z1, z2 > 0] = (1 + rho) / (2 sqrt(2 pi)), over the probability 1/4 + arcsin(rho) / 2 pi
    spread = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)
    z = orthant(spread, torch.tensor([True, True]), Streams.of(0, 4000), 20)
    mean = (1 + rho) / (2 * math.sqrt(2 * math.pi)) / (0.25 + math.asin(rho) / (2 * math.pi))
    assert bool((z >= 0).all())
    assert float((z.mean(0) - mean).abs().max()) < 4 * float(z.std()) / math.sqrt(4000)


def test_a_sign_seen_at_one_point_gives_the_arcsine_law_everywhere() -> None:
    like = torch.zeros(4000, 1, 6, 6)
    draws = LAW.given(torch.tensor([8]), torch.tensor([12.0]), like, Streams.of(1, 4000), 5)
    share = (LAW(draws) == 12.0).double().mean(0).flatten()
    exact = 0.5 + correlation(6)[8].clamp(-1, 1).arcsin() / math.pi
    error = (exact * (1 - exact) / 4000).sqrt()
    assert float(share[8]) == 1.0
    assert bool(((share - exact).abs() <= 4.5 * error + 1e-12).all())


def test_members_do_not_depend_on_their_batch_and_keep_every_sign() -> None:
    truth = LAW(GaussianField().draw(1, 16, seed=3))
    index = torch.arange(0, 256, 7)
    values = truth.flatten()[index]
    many = LAW.given(index, values, torch.zeros(5, 1, 16, 16), Streams.of(2, 5), 10)
    one = LAW.given(index, values, torch.zeros(1, 1, 16, 16), Streams.of(2, [3]), 10)
    assert torch.allclose(many[3:4], one, atol=1e-10)
    assert bool((LAW(many).flatten(1)[:, index] == values).all())


def test_the_latent_law_is_found_from_the_phases_alone() -> None:
    g = GaussianField().draw(3000, 16, seed=0)
    found = arcsine_law(torch.where(g >= 0, 1.0, -1.0))
    unit = torch.eye(256, dtype=torch.float64)[::19].view(-1, 1, 16, 16)
    std = found.diagonal(unit).flatten().sqrt()
    rho = found(unit).flatten(1) / (std[::19, None] * std)
    # a correlation of 3,000 pairs of signs has an error of 1 / sqrt(3000) = 0.018
    assert float((rho - correlation(16)[::19]).abs().max()) < 0.03


def test_many_right_sides_by_blocks_are_those_of_the_banded_factor() -> None:
    generator = torch.Generator().manual_seed(0)
    a = 3 + 9 * torch.rand(9, 12, generator=generator, dtype=torch.float64)
    f = torch.randn(4, 9, 12, generator=generator, dtype=torch.float64)
    each = solve_darcy(a.expand(4, 1, 9, 12).contiguous(), f[:, None])[:, 0]
    assert torch.allclose(solve_many(a, f), each, atol=1e-14)


def seen_of(truth: torch.Tensor, share: float, noise: float, seed: int) -> Seen:
    size = truth.shape[-1]
    u = Darcy()(truth)[0, 0]
    rng = np.random.default_rng(seed)
    row, col = np.divmod(rng.choice(size**2, round(share * size**2), replace=False), size)
    std = noise * float(u.std())
    values = u[row, col] + std * torch.from_numpy(rng.standard_normal(len(row)))
    at = torch.from_numpy(np.stack([row, col], 1) / (size - 1))
    return Seen(at, values, torch.full((len(row),), std, dtype=torch.float64))


def test_the_linearisation_is_the_derivative() -> None:
    problem = Interface(LAW, 16, coarse=16, modes=6)
    search = _Search(problem, seen_of(LAW(GaussianField().draw(1, 16, seed=4)), 0.1, 0.01, 0))
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(16, 16, generator=generator, dtype=torch.float64)
    step = torch.zeros(16, 16, dtype=torch.float64)
    step[:6, :6] = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    slope = (search.value(w + 1e-4 * step, 2.0) - search.value(w - 1e-4 * step, 2.0)) / 2e-4
    found = search.jacobian(w, 2.0 * search.cell) @ step[:6, :6].flatten()
    assert float((found - slope).norm() / slope.norm()) < 1e-3


def test_phases_are_found_from_the_solution_and_members_fit_it() -> None:
    truth = LAW(GaussianField().draw(1, 24, seed=11))
    seen = seen_of(truth, 0.25, 0.01, 1)
    problem = Interface(LAW, 24, coarse=24, modes=24)
    mode = problem.mode(seen)
    members = problem.coefficient(problem.draw(seen, mode, Streams.of(0, 3)))
    wrong = (problem.coefficient(mode) != truth[0, 0]).double().mean()
    nothing = min((truth == 3).double().mean(), (truth == 12).double().mean())
    assert float(wrong) < 0.3 * float(nothing)
    row, col = (seen.position * 23).round().long().T
    gap = (Darcy()(members[:, None])[:, 0, row, col] - seen.values) / seen.std
    assert 0.8 < float(gap.square().mean().sqrt()) < 1.5
    assert bool(((members == 3) | (members == 12)).all())


def test_metropolis_steps_reach_the_posterior_of_one_value() -> None:
    problem, at = Interface(LAW, 8, coarse=8, modes=4), torch.tensor([[3 / 7, 4 / 7]])
    prior = Streams.of(5, 2000).normal(torch.zeros(2000, 8, 8, dtype=torch.float64))
    u = Darcy()(problem.coefficient(prior)[:, None])[:, 0, 3, 4]
    std = 0.5 * u.std()
    y = u.mean() + u.std()
    weight = torch.softmax(-0.5 * ((u - y) / std) ** 2, dim=0)
    exact = float((weight * u).sum())
    spread = float((weight * (u - exact) ** 2).sum().sqrt())
    search = _Search(problem, Seen(at, y[None], std[None]))
    ends = []
    for i in range(60):
        rng = Streams.of(6, [i])
        noise = rng.at("polish").normal(torch.zeros(1, 60, 2, dtype=torch.float64))[0]
        ends.append(search.value(search.polish(prior[i], y[None], noise, rng), 0.0)[0])
    error = spread / math.sqrt(60)
    assert abs(float(torch.stack(ends).mean()) - exact) < 3.5 * error
    assert abs(float(u.mean()) - exact) > 7 * error  # the prior is told apart


@pytest.mark.parametrize(
    "ask",
    [
        lambda: LevelSet(LATENT, 12.0, 3.0),
        lambda: LAW.given(
            torch.tensor([1, 1]), torch.ones(2), torch.zeros(1, 1, 4, 4), Streams.of(0, 1)
        ),
        lambda: orthant(torch.ones(2, 2), torch.tensor([True, False]), Streams.of(0, 1)),
        lambda: arcsine_law(torch.zeros(3, 1, 8, 8)),
        lambda: Interface(LAW, 2),
        lambda: Seen(torch.zeros(0, 2), torch.zeros(0), torch.zeros(0)),
        lambda: Seen(torch.zeros(2, 2), torch.zeros(2), torch.tensor([1.0, 0.0])),
        lambda: Interface(LAW, 8, 8).mode(Seen(2 * torch.ones(1, 2), torch.ones(1), torch.ones(1))),
    ],
)
def test_bad_input_is_one_line(ask: object) -> None:
    with pytest.raises(InputError) as fault:
        ask()  # type: ignore[operator]
    assert "\n" not in str(fault.value)
