r"""Linear noising of coupled channels: every one that keeps a Gaussian stationary law.

    dX = -1/2 (R + W) S^{-1} X dtau + R^{1/2} dB,  B with covariance C over the grid

over K channels (a field and its velocity, say), with R symmetric and non-negative, W antisymmetric
and S positive: N(0, S (x) C) is stationary. R = S = 1 and W = 0 is `sciddm.process.VP` at kappa^2 =
exp(tau) - 1; `critically_damped` is Langevin's equation, where noise enters through the velocity.
With A = -1/2 (R + W) S^{-1}, X_tau given X_0 is N(F X_0, P (x) C), F = exp(A tau), P = S - F S F^T;
reverse time, with g = C grad log p = P^{-1} (F x_hat - x), has the drift A x - R g.

References
----------
Du, Zhang, Yang, Du. A flexible diffusion model. ICML 2023. https://arxiv.org/abs/2206.10365
Dockhorn, Vahdat, Kreis. Critically-damped Langevin diffusion. ICLR 2022. arXiv:2112.07068
Van Loan. Computing integrals involving the matrix exponential. IEEE TAC 1978, theorem 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.covariance import Covariance, White
from sciddm.errors import InputError
from sciddm.random import Streams


@dataclass(frozen=True, eq=False)
class LinearSDE:
    """Parameters: ``symmetric`` R, ``antisymmetric`` W, ``stationary`` S, each (K, K); ``noise`` C,
    the same for every channel; fields are (B, K, *grid). Raises `InputError` where R, W or S is
    not what the module says it is."""

    symmetric: Tensor
    antisymmetric: Tensor
    stationary: Tensor
    noise: Covariance = White()

    def __post_init__(self) -> None:
        for name in ("symmetric", "antisymmetric", "stationary"):
            object.__setattr__(self, name, getattr(self, name).double())
        r, w, s = self.symmetric, self.antisymmetric, self.stationary
        even = r.ndim == 2 and r.shape == w.shape == s.shape == r.T.shape
        if not even or not bool((r + w + s).isfinite().all()):
            raise InputError("Got matrices uneven or not finite; expected three of (K, K) numbers.")
        least, floor = torch.linalg.eigvalsh(torch.stack([r, s]))[:, 0], -1e-10 * r.abs().max()
        for right, expected in (
            (torch.allclose(r, r.T) and bool(least[0] >= floor), "R symmetric and non-negative"),
            (torch.allclose(w, -w.T), "W antisymmetric"),
            (torch.allclose(s, s.T) and bool(least[1] > 0), "S symmetric and positive"),
        ):
            if not right:
                raise InputError(f"Got matrices without a stationary law; expected {expected}.")

    @property
    def generator(self) -> Tensor:
        """A (K, K), float64: the drift is A X."""
        return -0.5 * torch.linalg.solve(self.stationary, (self.symmetric + self.antisymmetric).T).T

    def lyapunov(self) -> float:
        """The largest entry of A S + S A^T + R, zero where S is stationary."""
        image = self.generator @ self.stationary
        return float((image + image.T + self.symmetric).abs().max())

    def transition(self, tau: float) -> tuple[Tensor, Tensor]:
        """(F, P), each (K, K), float64: X_(s + tau) given X_s is N(F X_s, P (x) C)."""
        if not tau >= 0:
            raise InputError(f"Got a step of {tau}; expected at least 0.")
        a, r, s = self.generator, self.symmetric, self.stationary
        f = torch.linalg.matrix_exp(a * tau)
        if float(a.norm()) * tau > 1:
            return f, s - f @ s @ f.T
        # near tau = 0 the difference cancels, Van Loan's block does not
        block = torch.cat([torch.cat([-a, r], 1), torch.cat([0 * a, a.T], 1)])
        p = f @ torch.linalg.matrix_exp(block * tau)[: len(a), len(a) :]
        return f, 0.5 * (p + p.T)

    def forward(self, x: Tensor, tau: float, rng: Streams | None = None) -> Tensor:
        """Draw X_(s + tau) given X_s = ``x``."""
        f, p = self.transition(tau)
        return _mix(f, x) + _mix(_root(p), self.noise.sample(x, rng))

    def pull(self, x_t: Tensor, x_hat: Tensor, tau: float) -> Tensor:
        """g = C grad log p(x_t) at ``tau`` > 0, from ``x_hat`` = E[X_0 | x_t] of all channels."""
        f, p = self.transition(tau)
        return _mix(torch.linalg.inv(p), _mix(f, x_hat) - x_t)

    def reverse_drift(self, x_t: Tensor, x_hat: Tensor, tau: float) -> Tensor:
        """A x - R g: dX = (A X - R g) dtau + R^{1/2} dB runs from tau to 0."""
        return _mix(self.generator, x_t) - _mix(self.symmetric, self.pull(x_t, x_hat, tau))

    def back(self, x_t: Tensor, x: Tensor, t: float, s: float, rng: Streams | None) -> Tensor:
        """Draw X_s given X_t = ``x_t`` and X_0 = ``x`` for s < t: the ancestral step."""
        (f_s, p_s), (f, p), (f_t, p_t) = map(self.transition, (s, t - s, t))
        gain = torch.linalg.solve(p_t, f @ p_s).T
        rest = p_s - gain @ f @ p_s
        mean = _mix(f_s, x) + _mix(gain, x_t - _mix(f_t, x))
        return mean + _mix(_root(0.5 * (rest + rest.T)), self.noise.sample(x_t, rng))


def critically_damped(mass: float = 0.25) -> LinearSDE:
    """Position and velocity, friction 2 sqrt(mass), stationary variances 1 and ``mass``: Dockhorn
    et al. 2022, whose mass is 1/4; tau is their beta times time."""
    if not 0 < mass < math.inf:
        raise InputError(f"Got mass = {mass}; expected a positive, finite number.")
    r = torch.tensor([0.0, 4 * math.sqrt(mass)], dtype=torch.float64).diag()
    w = torch.tensor([[0.0, -2.0], [2.0, 0.0]], dtype=torch.float64)
    return LinearSDE(r, w, torch.tensor([1.0, mass], dtype=torch.float64).diag())


def _mix(matrix: Tensor, x: Tensor) -> Tensor:
    """A (K, K) matrix over the channels of (B, K, *grid)."""
    return torch.einsum("ij,bj...->bi...", matrix.to(x), x)


def _root(p: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(p)
    return vectors * values.clamp_min(0).sqrt()
