r"""Two phases as the sign of a latent Gaussian field, and its exact posterior from point values.

The coefficient is ``high`` where g >= 0 and ``low`` elsewhere, g ~ N(0, C). Values of it seen
without error are signs of g at n points, so the posterior is exact in two steps: z = g at the
points is a Gaussian truncated to an orthant, drawn by Gibbs sweeps; the rest of g given z is
Gaussian, drawn by Matheron's rule,

    g = g' + C A^T (A C A^T)^{-1} (z - A g'),     g' ~ N(0, C).

In geostatistics this is truncated Gaussian simulation. Where C is not known, `arcsine_law` fits it
to fields of two phases: the signs of two values of correlation rho have (2 / pi) arcsin(rho).

References
----------
Matheron, Beucher, de Fouquet, Galli, Guerillot, Ravenne. Conditional simulation of the geometry of
fluvio-deltaic reservoirs. SPE 1987 (truncated Gaussian). https://doi.org/10.2118/16753-MS
Geweke. Efficient simulation from the multivariate normal and Student-t distributions subject to
linear constraints. 1991 (the Gibbs sweep).
Liu, Sabatti. Generalised Gibbs sampler and multigrid Monte Carlo for Bayesian computation.
Biometrika 2000, theorem 1 (the move of scale). https://doi.org/10.1093/biomet/87.2.353
Van Vleck, Middleton. The spectrum of clipped noise. Proc. IEEE 1966 (the arcsine law).
https://doi.org/10.1109/PROC.1966.4567
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_ndtr, ndtri_exp
from torch import Tensor

from sciddm.basis import Cosine
from sciddm.covariance import Covariance, PowerLaw, Spectral, ZeroMean
from sciddm.errors import InputError
from sciddm.random import Streams

SWEEPS = 150
"""Gibbs sweeps before a draw is taken: on the benchmark's field the moments settle within 50."""


@final
@dataclass(frozen=True)
class LevelSet:
    """A field of two values: ``high`` where g >= 0, g ~ N(0, latent), and ``low`` elsewhere.

    Parameters
    ----------
    latent : covariance of g; only its correlations matter. low, high : the two values.

    Raises `InputError` where ``low`` is not below ``high``.
    """

    latent: Covariance
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InputError(
                f"Got the phases {self.low:g} and {self.high:g}; expected the lower one first."
            )

    def __call__(self, g: Tensor) -> Tensor:
        """The field of two values of a latent field ``g`` of any shape."""
        return torch.where(g >= 0, self.high, self.low).to(g)

    def given(
        self, index: Tensor, values: Tensor, like: Tensor, rng: Streams, sweeps: int = SWEEPS
    ) -> Tensor:
        """Draws of g (B, 1, *grid), float64, given exact values of the field at grid points.

        Parameters
        ----------
        index : (n,) positions in the flattened grid, each once. values : (n,), each of the nearer
            phase. like : (B, 1, *grid), shape of the draws. rng : an address for each.

        Raises `InputError` for doubled or outlying positions. Cost: ``sweeps`` times B n^2.
        """
        size = like[0].numel()
        n = len(index)
        if len(index.unique()) < n or (n and not 0 <= int(index.min()) <= int(index.max()) < size):
            raise InputError(
                f"Got {n} positions, {len(index.unique())} of them different; expected each once, "
                f"within 0 and {size - 1}; take the doubled ones together."
            )
        prior = self.latent.sample(like.double(), rng.at("latent"))
        if not n:
            return prior
        rows = torch.zeros(n, size, dtype=torch.float64)
        rows[torch.arange(n), index] = 1.0
        images = self.latent(rows.view(n, *like.shape[1:])).flatten(1)
        spread = 0.5 * (images[:, index] + images[:, index].T)
        z = orthant(spread, values > 0.5 * (self.low + self.high), rng, sweeps)
        gap = z - prior.flatten(1)[:, index]
        moved = torch.linalg.solve(spread, gap.T).T @ images
        return prior + moved.view_as(prior)


def arcsine_law(signs: Tensor, anchors: int = 32) -> Spectral:
    """The latent power law on the cosines of the unit square that fits fields of two phases.

    The correlations of the signs with those at ``anchors`` points, averaged over the fields, are
    met by (2 / pi) arcsin(rho) in least squares over ``alpha`` and ``tau`` of
    ``(k^2 + tau^2)^(-alpha)``, without the constant mode. The scale of g has no say and is 1.

    Parameters
    ----------
    signs : (N, 1, H, W) of +1 and -1, about as many of either.

    Raises `InputError` for other values.
    """
    if signs.ndim != 4 or signs.shape[1] != 1 or not bool((signs.abs() == 1).all()):
        raise InputError(
            f"Got fields of shape {tuple(signs.shape)} and values up to "
            f"{float(signs.abs().max()):g}; expected (N, 1, H, W) of +1 and -1."
        )
    size = signs[0].numel()
    # multiples of the golden ratio spread over the grid and prefer no row
    index = (torch.arange(anchors) * size * 0.5 * (math.sqrt(5) - 1)).long() % size
    flat = signs.flatten(1).float()
    seen = (flat[:, index].T @ flat / len(flat)).double()
    one = torch.zeros(anchors, size, dtype=torch.float64)
    one[torch.arange(anchors), index] = 1.0
    rows = one.view(anchors, *signs.shape[1:])

    def law(unknown: np.ndarray) -> Spectral:
        density = PowerLaw(float(unknown[0]), math.exp(float(unknown[1])), 1.0)
        return Spectral(ZeroMean(density), (1.0, 1.0), Cosine())

    def loss(unknown: np.ndarray) -> float:
        if unknown[0] <= 1:  # its variance would grow with the grid
            return math.inf
        latent = law(unknown)
        std = latent.diagonal(rows).flatten().sqrt()
        rho = latent(rows).flatten(1) / (std[index, None] * std)
        return float((2 / math.pi * rho.clamp(-1, 1).arcsin() - seen).square().mean())

    found = minimize(loss, np.array([2.0, 1.0]), method="Nelder-Mead", options={"xatol": 1e-4})
    return law(found.x)


def orthant(spread: Tensor, above: Tensor, rng: Streams, sweeps: int = SWEEPS) -> Tensor:
    """Draws (B, n), float64, of z ~ N(0, spread) given that z >= 0 where ``above`` and < 0 else.

    One Gibbs chain a row: each value in turn is drawn from its truncated conditional, N(m, v) with
    ``v = 1 / P_ii`` and ``m = -v sum_j P_ij z_j``, P the inverse of ``spread`` (n, n). After each
    sweep all of z is scaled at once: its signs do not change, and of ``c z`` the law of
    ``c^2 z^T P z`` is chi-square with n degrees. Without it a chain needs four times as long.

    Raises `InputError` for a covariance that is not positive definite.
    """
    chol, fault = torch.linalg.cholesky_ex(spread.double())
    if int(fault) or above.shape != spread.shape[:1]:
        raise InputError(
            f"Got a covariance {tuple(spread.shape)} and {tuple(above.shape)} signs; expected a "
            "positive definite one with a sign for each row; leave doubled points out."
        )
    precision = torch.cholesky_inverse(chol).numpy()
    width = 1 / np.sqrt(np.diagonal(precision))
    sign = np.where(above.numpy(), 1.0, -1.0)
    # every value turned to be positive; means in units of the conditional s.d.
    turned = precision * np.outer(sign, sign)
    weight = -turned * width[:, None]
    np.fill_diagonal(weight, 0.0)
    count = len(rng.members), sweeps + 1, len(sign)
    noise = rng.at("orthant").normal(torch.zeros(count, dtype=torch.float64)).numpy().T
    scale = rng.at("orthant scale").normal(torch.zeros(count, dtype=torch.float64)).numpy()
    chi_square = np.square(scale).sum(2)
    z = np.abs(noise[:, 0]) * width[:, None]
    for sweep in range(1, sweeps + 1):
        share = log_ndtr(noise[:, sweep])  # logarithms of uniform numbers
        for i in range(len(sign)):
            middle = weight[i] @ z
            z[i] = (middle - ndtri_exp(share[i] + log_ndtr(middle))) * width[i]
        z *= np.sqrt(chi_square[:, sweep] / np.einsum("im,im->m", z, turned @ z))
    return torch.from_numpy((z * sign[:, None]).T.copy())
