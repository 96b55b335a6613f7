"""Gaps that surprise the prior: the inflated update, and that a right covariance is left alone."""

from __future__ import annotations

import torch

from sciddm.calibrate import Calibrated, TwoPhase
from sciddm.guide.surprise import Surprise
from sciddm.process import VE

DOUBLE = torch.float64


def law(n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """A V A^T of rank n and a correlated R."""
    g = torch.manual_seed(1)
    a = torch.randn(n, n, generator=g, dtype=DOUBLE)
    b = torch.randn(n, n, generator=g, dtype=DOUBLE)
    return a @ a.T / n, 0.1 * torch.eye(n, dtype=DOUBLE) + 0.02 * b @ b.T / n


def test_chi_square_is_that_of_the_dense_covariance() -> None:
    spread, noise = law()
    gap = torch.randn(5, 40, generator=torch.manual_seed(2), dtype=DOUBLE)
    dense = (gap @ torch.linalg.inv(spread + noise) * gap).sum(1)
    assert torch.allclose(Surprise(spread, noise).chi_square(gap), dense)


def test_a_right_covariance_is_left_alone() -> None:
    spread, noise = law()
    chol = torch.linalg.cholesky(spread + noise)
    gap = torch.randn(4000, 40, generator=torch.manual_seed(3), dtype=DOUBLE) @ chol.T
    same = (Surprise(spread, noise).stretch(gap) == gap).all(1)
    assert float(same.double().mean()) > 0.99


def test_a_surprised_row_gets_the_update_of_the_inflated_covariance() -> None:
    spread, noise = law()
    surprise = Surprise(spread, noise)
    chol = torch.linalg.cholesky(spread + noise)
    gap = 3 * torch.randn(6, 40, generator=torch.manual_seed(4), dtype=DOUBLE) @ chol.T
    longer = surprise.stretch(gap)
    gain = spread @ torch.linalg.inv(spread + noise)
    for d, e in zip(gap, longer, strict=True):
        low, high = 1.0, 1e8
        limit = 40 + 3 * 80**0.5
        for _ in range(200):  # the factor that brings chi^2 back to its limit, densely
            middle = (low * high) ** 0.5
            chi = d @ torch.linalg.solve(middle * spread + noise, d)
            low, high = (middle, high) if chi > limit else (low, middle)
        inflated = high * spread @ torch.linalg.solve(high * spread + noise, d)
        assert torch.allclose(gain @ e, inflated, rtol=1e-6, atol=1e-8)


def test_a_two_phase_update_moves_the_boundary_and_not_the_interior() -> None:
    blank = Calibrated(
        VE(), torch.zeros(1, 2, 4), torch.zeros(1), torch.zeros(1, 1, 1), torch.zeros(1, 2)
    )
    x_hat = torch.tensor([[[-1.0, -0.5, 0.0, 1.0], [3.0, 3.0, 3.0, 3.0]]])
    rows = torch.zeros(2, 2, 4)
    rows[0, 0, 1] = rows[1, 1, 2] = 1.0  # the first sees the phases, the second the other channel
    phases = TwoPhase(blank, 0, -1.0, 1.0)
    variance = torch.tensor([0.0, 0.75, 1.0, 0.0])  # (1 - x)(x + 1)
    for gap, weight in (([0.0, 1.0], variance / variance.mean()), ([1.0, 0.0], torch.ones(4))):
        moved = phases.respond(
            x_hat, torch.tensor([gap]), rows, lambda d: d.sum() * torch.ones_like(x_hat)
        )
        assert torch.allclose(moved[0, 0], weight)
        assert torch.equal(moved[0, 1], torch.ones(4))
