"""Ensemble-Kalman guidance: its limits as members grow, and that no gradient is ever asked."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sciddm.basis import Cosine
from sciddm.covariance import Matern, Spectral
from sciddm.denoise import Context, Gaussian
from sciddm.errors import InputError
from sciddm.guide import Conditioned
from sciddm.observe import Function, Observation
from sciddm.particle import EnKG, EnsembleKalman
from sciddm.process import VE, VP, Flow, LogLinear
from sciddm.random import Streams
from sciddm.solve import Diffusion

DOUBLE = torch.float64
SMOOTH = Spectral(Matern(0.4, 1.5, 1.2), (1.0,), Cosine())
CLOCK = LogLinear(0.02, 100.0)
PRIOR = Gaussian(torch.tensor(0.2, dtype=DOUBLE), SMOOTH, VP(clock=CLOCK))
Y = torch.tensor([0.6, -0.8, 1.5], dtype=DOUBLE)
MATRIX = torch.randn(8, 3, generator=torch.manual_seed(0), dtype=DOUBLE) / 2
ROOT = torch.randn(3, 3, generator=torch.manual_seed(1), dtype=DOUBLE)
ERRORS = 0.02 * ROOT @ ROOT.T + 0.05 * torch.eye(3, dtype=DOUBLE)


class Opaque(torch.autograd.Function):
    """A program without an adjoint."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.from_numpy(x.detach().numpy().reshape(len(x), -1) @ MATRIX.numpy())

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:  # type: ignore[override]
        raise AssertionError("a gradient of the operator was asked for")


def program(x: Tensor) -> Tensor:
    return Opaque.apply(x)  # type: ignore[no-any-return,no-untyped-call]


BLACK = Observation(Y, Function(program), ERRORS)
CLEAR = Observation(Y, Function(lambda x: x.flatten(1) @ MATRIX), ERRORS)


def fields(count: int) -> Tensor:
    x = torch.randn(count, 1, 8, generator=torch.manual_seed(2), dtype=DOUBLE)
    return 0.7 * x.requires_grad_()


def slope(errors: list[float], counts: list[int]) -> float:
    """d log error / d log count, between the ends."""
    return math.log(errors[-1] / errors[0]) / math.log(counts[-1] / counts[0])


@pytest.mark.parametrize("kind", [VE, VP, Flow], ids=lambda k: k.__name__)
def test_it_tends_to_the_kalman_update_at_the_rate_of_monte_carlo(
    kind: type[VE] | type[VP] | type[Flow],
) -> None:
    """Relative to the closed form: 1 / sqrt(members), by draws a member or by members."""
    prior = PRIOR.under(kind(clock=CLOCK))
    t = prior.process.clock.time(torch.tensor(1.3, dtype=DOUBLE))
    x = fields(16).detach()
    x_hat, wanted = prior(x, t, Context()), Conditioned(prior, CLEAR, prior)(x, t, Context())
    counts, errors = [4, 16, 128], []
    for draws in counts:
        square = 0.0
        for seed in range(8):
            found = EnsembleKalman(prior, BLACK, prior, seed, draws)(x, t, Context())
            square += float((found - wanted).square().sum() / (wanted - x_hat).square().sum())
        errors.append(math.sqrt(square / 8))
    assert slope(errors, counts) == pytest.approx(-0.5, abs=0.12)
    assert errors[-1] < 0.07


def test_the_published_direction_tends_to_the_preconditioned_gradient() -> None:
    """<x - mean, G - mean G> R^{-1} (y - G) -> C A^T R^{-1} (y - A x), C that of the estimates."""
    counts, errors = [64, 512, 4096], []
    for count in counts:
        square = 0.0
        for seed in range(8):
            x_hat = SMOOTH.sample(torch.zeros(count, 1, 8, dtype=DOUBLE), Streams.of(seed, count))
            like = torch.linalg.solve(ERRORS, (Y - x_hat[:20].flatten(1) @ MATRIX).T)
            wanted = SMOOTH((MATRIX @ like).T.reshape(20, 1, 8))
            found = EnKG(PRIOR, BLACK).direction(x_hat)[:20]
            square += float((found - wanted).square().sum() / wanted.square().sum())
        errors.append(math.sqrt(square / 8))
    assert slope(errors, counts) == pytest.approx(-0.5, abs=0.12)
    assert errors[-1] < 0.06


def test_the_published_step_has_the_length_of_zeta() -> None:
    """The weights that members give each other have norm zeta, whatever the units of y."""
    t = PRIOR.process.clock.time(torch.tensor(1.0, dtype=DOUBLE))
    x = fields(40)
    x_hat = PRIOR(x, t, Context())
    moved = EnKG(PRIOR, BLACK, 0.5)(x, t, Context()) - x_hat
    values, spread = program(x_hat), (x_hat - x_hat.mean(0)).flatten(1)
    weight = ((values - values.mean(0)) @ torch.linalg.solve(ERRORS, (Y - values).T)).T
    expected = 0.5 * (weight / weight.norm() @ spread).view_as(moved)
    assert torch.allclose(moved, expected)
    larger = Observation(10 * Y, Function(lambda x: 10 * program(x)), 100 * ERRORS)
    assert torch.allclose(EnKG(PRIOR, larger, 0.5)(x, t, Context()) - x_hat, moved)


def test_members_of_a_linear_problem_are_the_posterior() -> None:
    """Drawn by the default solver; the ensemble's noise makes it a little too wide or narrow."""
    rule = EnsembleKalman(PRIOR, BLACK, PRIOR, draws=20)
    sampler = Diffusion(rule, steps=40)
    x = sampler((400, 1, 8), Context(), Streams.of(1, 400)).double().flatten(1)
    unit = torch.eye(8, dtype=DOUBLE).view(8, 1, 8)
    sigma = SMOOTH(unit).flatten(1)
    gain = torch.linalg.solve(MATRIX.T @ sigma @ MATRIX + ERRORS, MATRIX.T @ sigma).T
    mean = 0.2 + gain @ (Y - 0.2 * MATRIX.sum(0))
    std = (sigma - gain @ MATRIX.T @ sigma).diagonal().sqrt()
    assert float(((x.mean(0) - mean) / std).abs().max()) < 4 / math.sqrt(400) + 0.05
    assert bool(((x.std(0) / std - 1).abs() < 0.15).all())


def test_inflation_and_localisation() -> None:
    t = PRIOR.process.clock.time(torch.tensor(1.3, dtype=DOUBLE))
    x = fields(16)
    x_hat = PRIOR(x, t, Context())
    near = torch.ones(3, 1, 8, dtype=DOUBLE)
    near[:, :, 5:] = 0
    plain = EnsembleKalman(PRIOR, BLACK, PRIOR)(x, t, Context())
    local = EnsembleKalman(PRIOR, BLACK, PRIOR, localisation=near)(x, t, Context())
    assert torch.equal(local[..., 5:], x_hat[..., 5:])
    assert torch.allclose(local[..., :5], plain[..., :5])
    # a covariance that is twice as large, or errors of half the variance
    halved = Observation(Y, Function(program), ERRORS / 2)
    a = EnsembleKalman(PRIOR, BLACK, PRIOR, inflation=2.0)(x, t, Context())
    b = EnsembleKalman(PRIOR, halved, PRIOR)(x, t, Context())
    assert torch.allclose(a, b) and not torch.allclose(a, plain)


def test_draws_are_addressed() -> None:
    """The same at every call, others at another level or seed; torch's generator is untouched."""
    x, before = fields(6), torch.get_rng_state()
    times = [PRIOR.process.clock.time(torch.tensor(k, dtype=DOUBLE)) for k in (1.3, 1.2)]
    rule = EnsembleKalman(PRIOR, BLACK, PRIOR)
    assert torch.equal(rule(x, times[0], Context()), rule(x, times[0], Context()))
    assert torch.equal(torch.get_rng_state(), before)
    other = EnsembleKalman(PRIOR, BLACK, PRIOR, seed=1)(x, times[0], Context())
    assert not torch.equal(other, rule(x, times[0], Context()))


def test_bad_input() -> None:
    t = torch.tensor(0.5, dtype=DOUBLE)
    for rule in (EnsembleKalman(PRIOR, BLACK, PRIOR, draws=9), EnKG(PRIOR, BLACK)):
        with pytest.raises(InputError, match="at least 2 members"):
            rule(fields(1), t, Context())
    with pytest.raises(InputError, match="3 members with 1 draws each for 3 observations"):
        EnsembleKalman(PRIOR, BLACK, PRIOR)(fields(3), t, Context())
    with pytest.raises(InputError, match="at least 1"):
        EnsembleKalman(PRIOR, BLACK, PRIOR, draws=0)
    for inflation in (0.9, math.nan, math.inf):
        with pytest.raises(InputError, match="inflation"):
            EnsembleKalman(PRIOR, BLACK, PRIOR, inflation=inflation)
    for local in (torch.ones(2, 1, 8), 2 * torch.ones(3, 1, 8)):
        with pytest.raises(InputError, match="localisation"):
            EnsembleKalman(PRIOR, BLACK, PRIOR, localisation=local)
    for zeta in (0.0, -1.0, math.nan):
        with pytest.raises(InputError, match="zeta"):
            EnKG(PRIOR, BLACK, zeta)
    wrong = Observation(torch.zeros(2, dtype=DOUBLE), BLACK.operator, torch.tensor(1.0))
    with pytest.raises(InputError, match="values of shape"):
        EnKG(PRIOR, wrong)(fields(4), t, Context())
    with pytest.raises(InputError, match="values of shape"):
        EnsembleKalman(PRIOR, wrong, PRIOR)(fields(4), t, Context())
