"""Conditional means: what each expects, and how it is followed ahead."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sciddm.covariance import PowerLaw
from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters import Damped, Linear, LinearGaussian, Mean, Persistence, linear_inverse
from sciddm.pde import StochasticHeat

HEAT = StochasticHeat(2 * math.pi, 0.012, 0.08, 0.25, PowerLaw(1.0, 3.0, 1.4))
POINTS = 12


def test_persistence_and_damping_ahead() -> None:
    recent = torch.randn(3, 2, 2, POINTS, generator=torch.Generator().manual_seed(0))
    newest = recent[:, :, -1]
    kept = Persistence().ahead(recent, Context(), 1, 3)
    torch.testing.assert_close(kept, newest[:, :, None].expand(-1, -1, 3, -1))
    factor = torch.tensor([0.5, -0.2])
    faded = Damped(factor).ahead(recent, Context(), 1, 3)
    for n in range(3):
        torch.testing.assert_close(faded[:, :, n], factor[:, None] ** (n + 1) * newest)
    at_every_point = Damped(torch.linspace(0, 1, POINTS).expand(2, POINTS))
    torch.testing.assert_close(
        at_every_point(recent, Context(), 1), torch.linspace(0, 1, POINTS) * newest
    )


def test_a_mean_is_told_the_number_of_the_frame() -> None:
    class Counting(Mean):
        def forward(self, recent: torch.Tensor, context: Context, frame: int) -> torch.Tensor:
            return recent[:, :, -1] + 10.0**frame

    out = Counting().ahead(torch.zeros(1, 1, 1, 1), Context(), 2, 3)
    torch.testing.assert_close(out.flatten(), torch.tensor([100.0, 1100.0, 11100.0]))


def test_the_fitted_damping_is_the_autocorrelation() -> None:
    rng, n = np.random.default_rng(0), 40_000
    x = np.zeros((2, n, 3))
    for t in range(1, n):
        x[:, t] = [[0.9], [-0.4]] * x[:, t - 1] + rng.standard_normal((2, 3))
    found = Damped.fit(torch.from_numpy(x)[None]).factor
    torch.testing.assert_close(found, torch.tensor([0.9, -0.4]).double(), atol=0.01, rtol=0)
    with pytest.raises(InputError, match="zero in every frame"):
        Damped.fit(torch.zeros(1, 1, 5, 3))


def test_the_linear_mean_ahead_is_the_closed_one_and_the_best() -> None:
    """Several steps in a row are the law's own mean, and no other mean errs less."""
    law = LinearGaussian.circle(*HEAT.transition(POINTS, 1.0), POINTS)
    films = HEAT.films(2000, POINTS, 6, 1.0, seed=3)[:, None]
    recent, after = films[:, :, :2], films[:, :, 2:]
    exact = Linear(law).ahead(recent, Context(), 1, 4)
    torch.testing.assert_close(exact, law.means(recent, 4))
    error = (exact - after).square().mean((0, 1, 3))
    torch.testing.assert_close(error, law.variances(4).mean((1, 2)), rtol=0.04, atol=0)
    fitted = Linear(linear_inverse(HEAT.films(500, POINTS, 20, 1.0, seed=4)[:, None], POINTS))
    for other, least in ((fitted, 1.0), (Persistence(), 1.3), (Damped.fit(films), 1.1)):
        ratio = (other.ahead(recent, Context(), 1, 4) - after).square().mean((0, 1, 3)) / error
        assert bool((ratio > least - 0.01).all())
    assert float(((fitted.ahead(recent, Context(), 1, 4) - exact) / exact.std()).std()) < 0.05


def test_a_second_order_process_needs_two_frames() -> None:
    """A damped oscillation seen through one value: two past frames predict it, one cannot."""
    rng, n = np.random.default_rng(2), 20_000
    turn = 0.95 * np.exp(0.9j)
    x = np.zeros(n)
    for t in range(2, n):
        x[t] = 2 * turn.real * x[t - 1] - abs(turn) ** 2 * x[t - 2] + rng.standard_normal()
    film = torch.from_numpy(np.stack([x, np.roll(x, 7)])[None, :, :, None])
    two, one = (Linear(linear_inverse(film, 2, order=p)) for p in (2, 1))
    assert two.history == 2 and one.history == 1
    recent = torch.stack([film[0, :, k : n - 60 + k] for k in range(2)]).permute(2, 1, 0, 3)
    after = film[0, :, 2 : n - 58].movedim(1, 0)
    errors = [float((m(recent, Context(), 1) - after)[:, 0].var()) for m in (two, one)]
    assert errors[0] == pytest.approx(1.0, abs=0.03) and errors[1] > 3
