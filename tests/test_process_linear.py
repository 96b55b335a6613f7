"""Linear equations over coupled channels: their law, its reverse, and the two known members."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import Tensor

from sciddm.basis import Cosine
from sciddm.covariance import Matern, Spectral, White
from sciddm.errors import InputError
from sciddm.process import VP
from sciddm.random import Streams
from sciddm.sde.linear import LinearSDE, critically_damped

DOUBLE = torch.float64


def random_member(size: int) -> LinearSDE:
    draw = torch.randn(3, size, size, generator=torch.manual_seed(size), dtype=DOUBLE)
    r, w, s = draw[0] @ draw[0].T, draw[1] - draw[1].T, draw[2] @ draw[2].T + 0.1 * torch.eye(size)
    return LinearSDE(r, w, s)


MEMBERS = {"two": random_member(2), "four": random_member(4), "langevin": critically_damped()}
members = pytest.mark.parametrize("sde", MEMBERS.values(), ids=MEMBERS.keys())


def test_the_lyapunov_residual_of_random_members() -> None:
    assert max(random_member(k).lyapunov() for k in range(1, 9)) < 1e-10
    assert critically_damped(0.3).lyapunov() < 1e-10


@members
def test_the_transition_is_exact(sde: LinearSDE) -> None:
    """Stationary, a semigroup, and the integral of dP = A P + P A^T + R at any step."""
    s = sde.stationary.double()
    for tau in (1e-4, 0.03, 0.4, 3.0):
        f, p = sde.transition(tau)
        assert torch.allclose(f @ s @ f.T + p, s, atol=1e-12)
        (f1, p1), (f2, p2) = sde.transition(0.3 * tau), sde.transition(0.7 * tau)
        assert torch.allclose(f2 @ f1, f, atol=1e-12)
        assert torch.allclose(f2 @ p1 @ f2.T + p2, p, rtol=1e-9, atol=1e-24)
        a, r = sde.generator.numpy(), sde.symmetric.double().numpy()

        def slope(_: float, flat: np.ndarray, a: np.ndarray = a, r: np.ndarray = r) -> np.ndarray:
            p = flat.reshape(a.shape)
            return (a @ p + p @ a.T + r).ravel()

        found = integrate.solve_ivp(
            slope, (0, tau), np.zeros(a.size), method="DOP853", rtol=1e-11, atol=1e-20
        )
        expected = torch.from_numpy(found.y[:, -1].reshape(a.shape))
        assert torch.allclose(p, expected, rtol=1e-7, atol=1e-10 * float(expected.abs().max()))


def test_variance_preserving_is_identity_and_zero() -> None:
    one = torch.eye(2, dtype=DOUBLE)
    sde = LinearSDE(one, 0 * one, one)
    for tau in (0.01, 0.5, 5.0):
        f, p = sde.transition(tau)
        alpha, _, sigma = VP().at(torch.tensor(math.sqrt(math.expm1(tau)), dtype=DOUBLE))
        assert torch.allclose(f, alpha * one) and torch.allclose(p, sigma**2 * one)


def test_langevin_is_critically_damped() -> None:
    """Position moves by the velocity alone, noise enters the velocity alone, one double rate."""
    mass = 0.3
    sde = critically_damped(mass)
    friction = 2 * math.sqrt(mass)
    expected = torch.tensor([[0, 1 / mass], [-1, -friction / mass]], dtype=DOUBLE)
    assert torch.allclose(sde.generator, expected)
    rates = torch.linalg.eigvals(sde.generator)
    assert torch.allclose(rates.real, torch.full_like(rates.real, -1 / math.sqrt(mass)), atol=1e-6)
    assert float(rates.imag.abs().max()) < 1e-6
    assert sde.symmetric.tolist() == [[0, 0], [0, 2 * friction]]
    assert float(torch.linalg.eigvalsh(sde.transition(0.1)[1])[0]) > 0


class Data:
    """X_0 ~ N(mean, spread) over the channels, and its exact denoiser."""

    def __init__(self, sde: LinearSDE) -> None:
        size = len(sde.stationary)
        draw = torch.randn(size, size, generator=torch.manual_seed(9), dtype=DOUBLE)
        self.sde, self.spread = sde, draw @ draw.T + 0.2 * torch.eye(size, dtype=DOUBLE)
        self.mean = torch.linspace(-1, 2, size, dtype=DOUBLE)

    def law(self, tau: float) -> tuple[Tensor, Tensor]:
        f, p = self.sde.transition(tau)
        return f @ self.mean, f @ self.spread @ f.T + p

    def gain(self, tau: float) -> Tensor:
        f, _ = self.sde.transition(tau)
        return torch.linalg.solve(self.law(tau)[1], f @ self.spread).T

    def __call__(self, x_t: Tensor, tau: float) -> Tensor:
        """x_hat (B, K, 1)."""
        gap = x_t[..., 0] - self.law(tau)[0]
        return (self.mean + gap @ self.gain(tau).T)[..., None]


@members
def test_the_reverse_drift_carries_the_law_back(sde: LinearSDE) -> None:
    """Moments of dX = (A X - R g) dtau + R^(1/2) dB from tau = 1 to 0.1, by integration."""
    data, size = Data(sde), len(sde.stationary)
    unit = torch.cat([torch.zeros(1, size, 1, dtype=DOUBLE), torch.eye(size)[..., None].double()])
    for tau in (0.1, 1.0):
        x, (mean, spread) = 3 * unit, data.law(tau)
        score = -torch.linalg.solve(spread, (x[..., 0] - mean).T).T
        assert torch.allclose(sde.pull(x, data(x, tau), tau)[..., 0], score, rtol=1e-6, atol=1e-6)

    def slope(back: float, state: np.ndarray) -> np.ndarray:
        drift = sde.reverse_drift(unit, data(unit, 1 - back), 1 - back)[..., 0]
        still, linear = drift[0], (drift[1:] - drift[0]).T
        mean, p = torch.from_numpy(state[:size]), torch.from_numpy(state[size:].reshape(size, size))
        change = -linear @ p - p @ linear.T + sde.symmetric.double()
        return torch.cat([-(still + linear @ mean), change.flatten()]).numpy()

    start = torch.cat([v.flatten() for v in data.law(1.0)]).numpy()
    found = integrate.solve_ivp(slope, (0, 0.9), start, rtol=1e-6, atol=1e-8).y[:, -1]
    end = torch.cat([v.flatten() for v in data.law(0.1)])
    assert torch.allclose(torch.from_numpy(found), end, rtol=1e-4, atol=1e-4)


class Fixed(Streams):
    """Stands for addressed noise: the unit fields times ``seed``."""

    def normal(self, like: Tensor) -> Tensor:
        return self.seed * torch.eye(like[0].numel(), dtype=DOUBLE).view(like.shape)


@members
def test_the_ancestral_step_keeps_the_law_on_a_field(sde: LinearSDE) -> None:
    """X ~ N(x_hat, V), then X_s given X_t and X, under coloured noise: laws G (x) C."""
    noise = Spectral(Matern(0.3, 0.5), (1.0,), Cosine())
    size, points = len(sde.stationary), 3
    sde = LinearSDE(sde.symmetric, sde.antisymmetric, sde.stationary, noise)
    c = noise(torch.eye(points, dtype=DOUBLE).view(points, 1, points)).flatten(1)
    data, unit = Data(sde), torch.eye(size * points, dtype=DOUBLE).view(-1, size, points)
    zero, still, fresh = 0 * unit, Fixed(0, (), ()), Fixed(1, (), ())
    for t, s in ((2.0, 0.3), (0.5, 0.45)):
        gain = data.gain(t)
        through = sde.back(unit, torch.einsum("ij,bjn->bin", gain, unit), t, s, still).flatten(1)
        by_x = sde.back(zero, unit, t, s, still).flatten(1)
        drawn = sde.back(zero, zero, t, s, fresh).flatten(1)
        v = data.spread - gain @ sde.transition(t)[0] @ data.spread
        total = through.T @ torch.kron(data.law(t)[1], c) @ through
        total = total + by_x.T @ torch.kron(v, c) @ by_x + drawn.T @ drawn
        assert torch.allclose(total, torch.kron(data.law(s)[1], c), atol=1e-9)
        ahead = sde.forward(zero, t, fresh).flatten(1)
        assert torch.allclose(ahead.T @ ahead, torch.kron(sde.transition(t)[1], c), atol=1e-9)


ONE, SKEW = torch.eye(2), torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
BAD = {
    "asymmetric R": (ONE + SKEW, SKEW, ONE, "expected R"),
    "indefinite R": (torch.diag(torch.tensor([1.0, -1.0])), SKEW, ONE, "expected R"),
    "symmetric W": (ONE, ONE, ONE, "expected W"),
    "singular S": (ONE, SKEW, torch.diag(torch.tensor([1.0, 0.0])), "expected S"),
    "another size": (ONE, SKEW, torch.eye(3), r"\(K, K\)"),
    "nan": (ONE * math.nan, SKEW, ONE, "not finite"),
}


@pytest.mark.parametrize(("r", "w", "s", "said"), BAD.values(), ids=BAD.keys())
def test_matrices_without_a_stationary_law_are_refused(
    r: Tensor, w: Tensor, s: Tensor, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        LinearSDE(r, w, s, White())


def test_times_and_masses_are_checked() -> None:
    for tau in (-0.1, math.nan):
        with pytest.raises(InputError, match="step"):
            critically_damped().transition(tau)
    for mass in (0.0, math.inf, math.nan):
        with pytest.raises(InputError, match="mass"):
            critically_damped(mass)
