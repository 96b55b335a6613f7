r"""Twisted sequential Monte Carlo: a cloud of particles, exact as it grows, and the evidence.

A cloud moves down the noise levels. At each level particles are weighted (see
`sciddm.particle.twist` for the weights) and, where the effective sample size

    ESS = (sum_i w_i)^2 / sum_i w_i^2

falls below a share of the cloud, resampled: one uniform number places B evenly spaced pointers on
the cumulated weights. Between two resamplings weights multiply up. With L_k the mean weight before
the k-th resampling, prod_k L_k estimates p(y) without bias.

What is lost. Members of a cloud are not independent: they share the weights' normalisation and,
after a resampling, ancestors. A cloud is one draw of an ensemble. It cannot be drawn in
micro-batches or extended by more members later, its noise has one address, that of its first row,
and standard errors want several clouds (several first members).

References
----------
Wu et al. Practical and asymptotically exact conditional sampling in diffusion models. NeurIPS 2023,
algorithm 1. https://arxiv.org/abs/2306.17775
Douc, Cappe, Moulines. Comparison of resampling schemes for particle filtering. ISPA 2005
(systematic). https://arxiv.org/abs/cs/0507025
Chopin, Papaspiliopoulos. An introduction to sequential Monte Carlo. 2020, ch. 10.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.particle.local import normal
from sciddm.particle.twist import Twist
from sciddm.random import Streams
from sciddm.solve import Grid, LogKappa


@dataclass(frozen=True, eq=False)
class Cloud:
    """Weighted particles, and what they say of the evidence.

    Parameters
    ----------
    particles : (B, C, *grid). log_weight : (B,), float64, normalised: the weights sum to 1.
    log_evidence : estimate of log p(y), or of the log of the mean of a potential.
    effective : ESS / B at each noise level and at the end, before resampling; a value near 1 / B
        means that one particle is left, and no figure of this cloud can be trusted.
    members : (B, C, *grid), resampled: equal weights, with repeats.
    """

    particles: Tensor
    log_weight: Tensor
    log_evidence: float
    effective: tuple[float, ...]
    members: Tensor

    @property
    def mean(self) -> Tensor:
        """The weighted mean (C, *grid); less noisy than that of `members`."""
        return self._average(self.particles)

    @property
    def variance(self) -> Tensor:
        """The weighted variance (C, *grid)."""
        return self._average((self.particles - self.mean).square())

    def _average(self, values: Tensor) -> Tensor:
        weight = self.log_weight.exp().to(values)
        return (weight @ values.flatten(1)).view(values.shape[1:])


@dataclass(frozen=True, eq=False)
class TwistedSMC:
    """A `Sampler` whose batch is one cloud: draws depend on each other, see the module.

    Parameters
    ----------
    twist : the prior, what is observed, proposal and weights: `Matched` where Cov[X | x_t] is known
        in closed form, else `Ancestral`; `Reweighted` for potentials.
    steps : number of times on the grid; of network evaluations a particle.
    threshold : resample where ESS / B falls below it, in (0, 1].
    kappa_max, kappa_min, grid : as in `Diffusion`.
    dtype : of the fields; weights are float64.
    """

    twist: Twist
    steps: int = 32
    threshold: float = 0.5
    kappa_max: float | None = None
    kappa_min: float | None = None
    grid: Grid = field(default_factory=LogKappa)
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise InputError(f"Got {self.steps} steps; expected at least 2.")
        if not 0 < self.threshold <= 1:
            raise InputError(
                f"Got a resampling threshold of {self.threshold}; expected a share of the cloud "
                "in (0, 1]."
            )

    @property
    def evaluations(self) -> int:
        """Network evaluations a particle."""
        return self.steps

    def __call__(self, shape: Sequence[int], context: Context, rng: Streams) -> Tensor:
        """The members (B, C, *grid) of one cloud, equally weighted."""
        return self.cloud(shape, context, rng).members

    @torch.no_grad()
    def cloud(self, shape: Sequence[int], context: Context, rng: Streams) -> Cloud:
        """Draw one cloud of ``shape`` (B, C, *grid).

        Raises `InputError` for fewer than two particles, rows of several cases or a process with a
        clock per cell.
        """
        times = self._check(shape, rng)
        like = torch.zeros(tuple(shape), dtype=self.dtype)
        tally = Tally(len(like), self.threshold)
        view, gained = self.twist.start(like, times[0], context, rng.at("start"))
        index = tally.add(gained, rng.at("resample"))
        for k, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True), 1):
            view = view if index is None else view.take(index)
            view, gained = self.twist.move(view, t, s, context, rng.at("step", k))
            index = tally.add(gained, rng.at("resample", k))
        view = view if index is None else view.take(index)
        x, gained = self.twist.finish(view, times[-1], rng.at("step", self.steps))
        tally.add(gained, None)
        pick = systematic(tally.log_weight, rng.at("resample", self.steps))
        return Cloud(x, tally.log_weight, tally.log_evidence, tuple(tally.effective), x[pick])

    def _check(self, shape: Sequence[int], rng: Streams) -> Tensor:
        if len(shape) < 2 or shape[0] < 2:
            raise InputError(f"Got a cloud of shape {tuple(shape)}; expected at least 2 particles.")
        if len(rng.members) != shape[0] or len(set(rng.cases)) != 1:
            raise InputError(
                f"Got {len(rng.members)} addresses in {len(set(rng.cases))} cases for "
                f"{shape[0]} particles; a cloud has one address a particle and one case."
            )
        process = self.twist.prior.process
        times = self.grid.times(process, self.steps, self.kappa_max, self.kappa_min)
        if process.kappa(times[0]).numel() != 1:
            raise InputError(
                f"Got a {type(process).__name__} process; particles need one noise level a step, "
                "no clock per cell (VE, VP and Flow serve)."
            )
        return times


class Tally:
    """The weights of a cloud as it moves."""

    def __init__(self, count: int, threshold: float) -> None:
        self.log_weight = torch.full((count,), -math.log(count), dtype=torch.float64)
        self.log_evidence, self.threshold = 0.0, threshold
        self.effective: list[float] = []

    def add(self, log_ratio: Tensor, rng: Streams | None) -> Tensor | None:
        """Multiply the weights; the particles to go on with, or None where all do.

        Raises `InputError` where no particle has a positive weight.
        """
        total = self.log_weight + log_ratio.cpu()
        # a particle out of all bounds has no weight
        total = torch.where(total.isnan(), torch.full_like(total, -math.inf), total)
        mean = torch.logsumexp(total, 0)
        if not bool(torch.isfinite(mean)):
            raise InputError(
                "No particle has a positive, finite weight; check the observations and their "
                "errors, or use more particles."
            )
        self.log_evidence += float(mean)
        self.log_weight = total - mean
        count = len(total)
        self.effective.append(float(1 / (self.log_weight * 2).exp().sum()) / count)
        if rng is None or self.effective[-1] >= self.threshold:
            return None
        index = systematic(self.log_weight, rng)
        self.log_weight = torch.full_like(total, -math.log(count))
        return index


def systematic(log_weight: Tensor, rng: Streams) -> Tensor:
    """Indices (B,) of as many particles: each comes floor(B w) or ceil(B w) times, B w on average.

    log_weight : (B,), normalised.
    """
    count = len(log_weight)
    shift = torch.special.ndtr(normal(log_weight[:1], rng))
    pointers = (torch.arange(count, dtype=torch.float64) + shift) / count
    edges = log_weight.exp().cumsum(0)
    return torch.searchsorted(edges / edges[-1], pointers).clamp_max(count - 1)
