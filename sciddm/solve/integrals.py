r"""Exact integrals of the linear part: what every multistep solver of the reverse law shares.

With u = (x - beta m) / alpha, l = -log kappa and a dial tau, the reverse equation over one step is
solved by

    u_s = e^{-a h} u_t + \int_0^h a e^{-a (h - l)} x_hat(l) dl + kappa_s sqrt(1 - e^{-2 tau^2 h}) z,

a = 1 + tau^2, h = log(kappa_t / kappa_s), z ~ N(0, C). Only the clean estimate is approximated, by
the polynomial through its values at a few nodes; a constant one gives the kernel of
`sciddm.solve.kernel`.

References
----------
Xue et al. SA-Solver: stochastic Adams solver for fast sampling of diffusion models. NeurIPS 2023,
eq. 13-18. https://arxiv.org/abs/2309.05019
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sciddm.process import Process, shift

SERIES = 17
"""Terms of the series of `moments`; it stands for rate * width below 1."""


def moments(rate: Tensor, width: Tensor, count: int) -> list[Tensor]:
    """\\int_0^h a e^{-a (h - l)} l^k dl for k < count, at rates a and widths h, float64.

    The recursion by parts loses digits where a h is small; a series stands in there.
    """
    z = rate * width
    found = [-torch.expm1(-z)]
    powers = (-z) ** torch.arange(SERIES).view(-1, *[1] * z.ndim)
    for k in range(1, count):
        by_parts = width**k - k / rate * found[-1]
        factors = [math.factorial(k) / math.factorial(k + 1 + j) for j in range(SERIES)]
        terms = torch.tensor(factors, dtype=z.dtype).view(-1, *[1] * z.ndim)
        series = z * width**k * (powers * terms).sum(0)
        found.append(torch.where(z < 1, series, by_parts))
    return found


def integral(values: Sequence[Tensor], nodes: Sequence[Tensor], weight: Sequence[Tensor]) -> Tensor:
    """The weighted integral of the polynomial through ``values`` at ``nodes``.

    Parameters
    ----------
    values : fields (B, C, *grid), one for every node. nodes : positions that broadcast against a
        field, float64. weight : integrals of the powers 0, 1, ... of the position, one for every
        node.

    Newton's form: where two neighbouring nodes coincide (a cell whose clock stood still) the
    difference between them, and all that is built on it, is left out.
    """
    level = list(values)
    live = [torch.ones_like(p, dtype=torch.bool) for p in nodes]
    basis = [torch.ones_like(nodes[0])]  # coefficients of (l - p_0) ... (l - p_j), low first
    total = weight[0].to(values[0]) * level[0]
    for j in range(1, len(nodes)):
        fresh, alive = [], []
        for i in range(len(level) - 1):
            gap = nodes[i + j] - nodes[i]
            both = live[i] & live[i + 1] & (gap != 0)
            scale = torch.where(both, 1 / torch.where(both, gap, torch.ones_like(gap)), 0.0)
            fresh.append((level[i + 1] - level[i]) * scale.to(level[i]))
            alive.append(both)
        level, live = fresh, alive
        last = nodes[j - 1]
        lower, upper = [*basis, torch.zeros_like(last)], [torch.zeros_like(last), *basis]
        basis = [b - last * c for b, c in zip(upper, lower, strict=True)]
        share = sum((c * w for c, w in zip(basis, weight, strict=False)), torch.zeros_like(last))
        total = total + share.to(level[0]) * level[0]
    return total


def adams(
    process: Process,
    x_t: Tensor,
    t: Tensor,
    s: Tensor,
    values: Sequence[Tensor],
    times: Sequence[Tensor],
    tau: Tensor,
    z: Tensor | None,
    anchor: Tensor | None,
) -> Tensor:
    """x_s from x_t (B, C, *grid), with the clean estimates ``values`` at ``times`` (any of them).

    tau : the dial of this step, 0 deterministic; broadcasts against x. z : noise with covariance C,
    or None for none.
    """
    here = process.kappa(t).log()
    width = here - process.kappa(s).log()
    rate = 1 + tau**2
    nodes = [here - process.kappa(v).log() for v in times]
    mean = integral(values, nodes, moments(rate, width, len(nodes)))
    return land(process, x_t, t, s, torch.exp(-rate * width), mean, tau**2 * width, z, anchor)


def land(
    process: Process,
    x_t: Tensor,
    t: Tensor,
    s: Tensor,
    keep: Tensor,
    mean: Tensor,
    forget: Tensor,
    z: Tensor | None,
    anchor: Tensor | None,
) -> Tensor:
    """alpha_s (keep u_t + mean) + sigma_s sqrt(1 - e^{-2 forget}) z + beta_s m."""
    before, beta_t, _ = process.coefficients(t)
    alpha, beta, sigma = process.coefficients(s)
    old = shift(x_t, -beta_t.to(x_t), anchor)
    x_s = (alpha / before * keep).to(x_t) * old + alpha.to(x_t) * mean
    if z is not None:
        x_s = x_s + (sigma * torch.sqrt(-torch.expm1(-2 * forget))).to(x_t) * z
    return shift(x_s, beta.to(x_t), anchor)
