r"""Moments of one-dimensional tilted laws N(z; m, v) p(y | z), element by element.

A log-concave density is integrated by the Gauss-Legendre rule between the points where it has
fallen by e^-36, or where it ends.

References
----------
Rasmussen, Williams. Gaussian processes for machine learning. 2006, eq. 3.52-3.53 (tilted moments).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

Pointwise = Callable[[Tensor], Tensor]

DROP = 36.0
NODES = 96


def log_normal(gap: Tensor, variance: Tensor) -> Tensor:
    """log N(gap; 0, variance)."""
    return -0.5 * (gap.square() / variance + variance.log() + math.log(2 * math.pi))


def hazard(z: Tensor) -> tuple[Tensor, Tensor]:
    """r = phi(z) / Phi(z), and r (z + r): the mean of Z above -z, and how much its variance falls,
    for a standard normal Z. Accurate in both tails; float64."""
    rate = math.sqrt(2 / math.pi) / torch.special.erfcx(-z / math.sqrt(2))
    fall = rate * (z + rate)
    far = z.clamp_max(-1e3)
    return rate, torch.where(z < -1e3, 1 - far.reciprocal().square(), fall.clamp(0, 1))


def unimodal(log_density: Pointwise, mode: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of z under a log-concave density, known up to a factor.

    ``mode`` is where it is highest, ``width`` a first guess of its scale.
    """
    top = log_density(mode)
    low, high = (
        _edge(lambda z: log_density(z) - top + DROP, mode, sign * width) for sign in (-1, 1)
    )
    nodes, share = (v.to(mode).view(-1, *[1] * mode.ndim) for v in _legendre())
    z = low + (high - low) * nodes
    weight = torch.softmax(log_density(z) + share.log(), dim=0)
    mean = (weight * z).sum(0)
    return mean, (weight * (z - mean).square()).sum(0)


@lru_cache(maxsize=1)
def _legendre() -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return torch.from_numpy(0.5 * (nodes + 1)), torch.from_numpy(0.5 * weights)


def root(slope: Pointwise, high: Tensor, width: Tensor) -> Tensor:
    """Where a falling ``slope`` is zero, at or below ``high``."""
    low, step = high - width, width
    for _ in range(60):
        short = slope(low) < 0
        if not bool(short.any()):
            break
        step = 2 * step
        low = torch.where(short, low - step, low)
    for _ in range(70):
        middle = 0.5 * (low + high)
        right = slope(middle) < 0
        low, high = torch.where(right, low, middle), torch.where(right, middle, high)
    return 0.5 * (low + high)


def _edge(height: Pointwise, mode: Tensor, step: Tensor) -> Tensor:
    """Where ``height`` falls through zero on the side of ``step``, beyond it by at most 1 %."""
    far = mode + step
    for _ in range(60):
        short = ~(height(far) < 0)
        if not bool(short.any()):
            break
        step = torch.where(short, 2 * step, step)
        far = torch.where(short, mode + step, far)
    near = mode
    for _ in range(40):
        middle = 0.5 * (near + far)
        inside = height(middle) >= 0
        near, far = torch.where(inside, middle, near), torch.where(inside, far, middle)
    return far
