r"""Refinement: the draws of any forecaster, moved to where the prior finds them likely.

The energy of a series x, of which the start is x_0, is

    E(x) = (1 + kappa^2)^2 / (2 kappa^2) E_z |T^{-1} (z - z_hat(x + kappa z))|^2
           + pull / 2 |x - x_0|^2_P,

the denoising loss at one representative level kappa beside the distance to the start. Its factor
makes the first term -log p(x), up to a constant, where the prior is the Gaussian law of the noise.
P is the covariance of the wanted cells given the known ones under that law: distances are in its
units and steps are along it, so known cells never move and step sizes need no tuning to the series:

    x <- x - rate P grad E(x) + sqrt(2 rate heat) P^{1/2} w.

heat = 0 is gradient descent, to the mode; heat = 1 is Langevin dynamics.

References
----------
Kollovieh et al. Predict, refine, synthesize (TSDiff). NeurIPS 2023, section 3.2, eq. 10-12,
algorithm 2 (white noise, 20 steps of rate 0.1). https://arxiv.org/abs/2307.11494
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from sciddm.errors import InputError
from sciddm.random import Streams
from sciddm.series.base import SeriesSampler
from sciddm.series.cells import Cells, times
from sciddm.series.law import posterior
from sciddm.series.panel import Panel
from sciddm.series.prior import FunctionPrior


class Refined(SeriesSampler):
    """Draws of ``base``, refined by ``prior``.

    Parameters
    ----------
    base : any sampler of series. prior : of the same channels.
    kappa : the level, see `representative`. steps, rate : of the descent.
    pull : how strongly a draw is held where it began. heat : 0 for the gradient, 1 for Langevin.

    Raises `InputError` for steps or levels that are not positive and negative pulls or heats.
    """

    def __init__(
        self,
        base: SeriesSampler,
        prior: FunctionPrior,
        kappa: float = 1.0,
        steps: int = 20,
        rate: float = 0.1,
        pull: float = 0.1,
        heat: float = 1.0,
    ) -> None:
        if steps < 1 or not (kappa > 0 and 0 < rate < 1) or min(pull, heat) < 0:
            raise InputError(
                f"Got {steps} steps of rate {rate} at level {kappa}, pull {pull} and heat {heat}; "
                "expected steps and level above 0, a rate between 0 and 1, and no negative number."
            )
        nn.Module.__init__(self)
        self.base, self.prior, self.kappa, self.steps = base, prior, kappa, steps
        self.rate, self.pull, self.heat = rate, pull, heat
        self.channels = base.channels if prior.channels is None else prior.channels

    @property
    def evaluations(self) -> float:
        return self.base.evaluations + 2 * self.steps  # forward and backward

    @torch.no_grad()
    def draw(self, panel: Panel, rng: Streams) -> Tensor:
        drawn, law = self.base.draw(panel, rng), posterior(self.prior.law, panel)
        count, out, own = drawn.shape[1], [], rng.inside("refine")
        for i in range(len(panel)):
            part = slice(i * count, (i + 1) * count)
            noise = replace(own, cases=rng.cases[part], members=rng.members[part])
            one = panel.rows(slice(i, i + 1))
            x = self._descended(one, drawn[i].double(), law.factor[i : i + 1], noise)
            out.append(torch.where(one.wanted, x, drawn[i].double()))
        return torch.stack(out) if out else drawn

    def _descended(self, panel: Panel, start: Tensor, half: Tensor, rng: Streams) -> Tensor:
        cells = Cells.of(panel, self.prior.law, self.prior.noise)
        many, x = panel.repeated(len(start)), start
        for k in range(self.steps):
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                energy = self._energy(cells, leaf, many, rng.at("level", k))
                (slope,) = torch.autograd.grad(energy.sum(), leaf)
            move = times(half, times(half.mT, slope)) + self.pull * (x - start)
            fresh = times(half, rng.at("heat", k).normal(x))
            x = x - self.rate * move + math.sqrt(2 * self.rate * self.heat) * fresh
        return x

    def _energy(self, cells: Cells, x: Tensor, panel: Panel, rng: Streams) -> Tensor:
        loss = noise_loss(self.prior, cells, x, self.kappa, panel, rng)
        return 0.5 * (1 + self.kappa**2) ** 2 / self.kappa**2 * loss


def noise_loss(
    prior: FunctionPrior, cells: Cells, x: Tensor, kappa: float, panel: Panel, rng: Streams
) -> Tensor:
    """|T^{-1} (z - z_hat)|^2 of series ``x`` (n, m) at one level, (n,): the loss of a network that
    predicts white noise, summed over the real cells."""
    level = torch.tensor(kappa, dtype=torch.float64)
    w = rng.normal(x)
    u = x + level * cells.coloured(w)
    x_hat, _ = prior.estimate(cells, u, level, panel)
    gap = w - cells.white((u - x_hat) / level)
    return torch.where(panel.real, gap, 0.0).square().sum(1)


@torch.no_grad()
def representative(
    prior: FunctionPrior, panel: Panel, rng: Streams, levels: int = 20
) -> tuple[float, Tensor, Tensor]:
    """The level whose loss is nearest to the mean over all levels, as the authors choose theirs.

    panel : training series, whose real cells hold the truth. Returns it, and all levels and losses
    per cell (levels,), float64.
    """
    cells = Cells.of(panel, prior.law, prior.noise)
    x = torch.where(panel.real, panel.value.double(), cells.mean)
    low, high = (math.log(v) for v in prior.clock.ends())
    kappa = torch.linspace(low, high, levels, dtype=torch.float64).exp()
    count = panel.real.sum()
    losses = torch.stack([
        noise_loss(prior, cells, x, float(k), panel, rng.at("level", i)).sum() / count
        for i, k in enumerate(kappa)
    ])  # fmt: skip
    return float(kappa[(losses - losses.mean()).abs().argmin()]), kappa, losses
