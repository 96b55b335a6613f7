r"""How strange a series is: by its likelihood, or by the time a diffusion would take to make it.

Every score is one number a series (B,) of its known cells; the larger, the stranger.

==================  ==============================================================================
score               expect
==================  ==============================================================================
`Surprise`          -log p a value, under a law (exact) or a prior; knows times, gaps and errors
`DiffusionTime`     DTE without a network: windows of one length against those of training, by
                    their nearest neighbours; finds what is far, whatever the law
`TimeNet`           the same from one pass of a network, however large the training set
==================  ==============================================================================

Let a window y be a training window and noise of variance v, without shrinking. With r^2 the mean
squared distance of y to its nearest training windows, in d dimensions,

    p(v | y) is inverse gamma of shape d / 2 - 1 and scale r^2 / 2, with its mode at r^2 / d,

so the estimated variance is a monotone map of the distance to the neighbours: it ranks as they do.
It is kept as a continuous number; the grid of 300 times of the authors makes ties.

References
----------
Livernoche, Jain, Hezaveh, Ravanbakhsh. On diffusion modeling for anomaly detection. ICLR 2024,
section 4, proposition 1. https://arxiv.org/abs/2305.18593
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from sciddm.errors import InputError
from sciddm.process import Clock, LogLinear
from sciddm.random import Streams
from sciddm.series.law import Law, log_prob
from sciddm.series.panel import Panel
from sciddm.series.prior import FunctionPrior

CELLS = 2**24
"""Distances that are held at a time."""


class Anomaly(nn.Module, ABC):
    """A score of series, larger for stranger ones."""

    @abstractmethod
    def forward(self, panel: Panel) -> Tensor:
        """(B,) float64, of the known cells."""


class Surprise(Anomaly):
    """-log p(known values) / their number, in nats.

    law : a Gaussian `Law`, whose density is exact, or a `FunctionPrior`, whose density is followed
        along its flow in ``steps`` steps.
    """

    def __init__(self, law: Law | FunctionPrior, steps: int = 32) -> None:
        super().__init__()
        self.law, self.steps = law, steps

    def forward(self, panel: Panel) -> Tensor:
        if isinstance(self.law, FunctionPrior):
            total = self.law.log_prob(panel, steps=self.steps)
        else:
            total = log_prob(self.law, panel)
        return -total / panel.known.sum(1).clamp_min(1)


class Windows(Anomaly):
    """A score of whole windows: all cells of a series on one regular grid, standardised.

    mean, std : (d,), of the training windows at each cell.
    """

    mean: Tensor
    std: Tensor

    def points(self, panel: Panel) -> Tensor:
        """(B, d) float64 standardised values. Raises `InputError` for windows of another length and
        for cells that are not known."""
        d = len(self.mean)
        if panel.cells != d or not bool(panel.known.all()):
            raise InputError(
                f"Got series of {panel.cells} cells, {int((~panel.known).sum())} of them unknown; "
                f"expected whole windows of {d} cells. Score series with gaps by Surprise."
            )
        return (panel.value.double() - self.mean) / self.std


class DiffusionTime(Windows):
    """Diffusion-time estimation by the nearest training windows.

    Parameters
    ----------
    windows : (N, d), of training, as they are: series without anomalies.
    neighbours : 5 in the paper.
    clock : of the noise whose time is `time`; it changes no ranking.
    own : whether the windows that are scored are those of training themselves, whose
        nearest neighbour at distance 0 is left out.
    """

    def __init__(
        self,
        windows: Tensor,
        neighbours: int = 5,
        clock: Clock | None = None,
        own: bool = False,
    ) -> None:
        super().__init__()
        if windows.ndim != 2 or len(windows) < neighbours + own:
            raise InputError(
                f"Got windows of shape {tuple(windows.shape)} for {neighbours} neighbours; "
                "expected (N, d) with more windows than neighbours."
            )
        self.windows, self.neighbours, self.own = windows, neighbours, own
        self.clock = LogLinear(0.05, 3.0) if clock is None else clock
        self.mean, self.std = _moments(windows)
        self._points = (windows.double() - self.mean) / self.std

    def forward(self, panel: Panel) -> Tensor:
        """The most likely variance of the noise, r^2 / d."""
        return self.distance2(panel) / len(self.mean)

    def distance2(self, panel: Panel) -> Tensor:
        """r^2 (B,), the mean squared distance to the neighbours."""
        x, out = self.points(panel), []
        count = self.neighbours + self.own
        for part in x.split(max(1, CELLS // len(self._points))):
            gap = torch.cdist(part, self._points, compute_mode="donot_use_mm_for_euclid_dist")
            near = gap.square().topk(count, dim=1, largest=False).values
            out.append(near[:, self.own :].mean(1))
        return torch.cat(out) if out else x.new_zeros(0)

    def time(self, panel: Panel) -> Tensor:
        """The diffusion time in [0, 1] at which the noise has that variance."""
        low, high = self.clock.ends()
        return self.clock.time(self.forward(panel).sqrt().clamp(low, high))

    def log_density(self, variance: Tensor, panel: Panel) -> Tensor:
        """log p(v | y) of variances (V,), (B, V): the inverse gamma law."""
        shape, scale = 0.5 * len(self.mean) - 1, 0.5 * self.distance2(panel)[:, None]
        v = variance.double()
        norm = shape * scale.log() - math.lgamma(shape)
        return norm - (shape + 1) * v.log() - scale / v


class TimeNet(Windows):
    """Diffusion-time estimation by a network: log v of training windows with noise of variance v.

    Parameters
    ----------
    mean, std : (d,), of the training windows, see `TimeNet.of`.
    width : of the two hidden layers. clock : of the noise in training, at times even in [0, 1].
    """

    def __init__(
        self, mean: Tensor, std: Tensor, width: int = 256, clock: Clock | None = None
    ) -> None:
        super().__init__()
        self.mean, self.std, self.width = mean, std, width
        self.clock = LogLinear(0.05, 3.0) if clock is None else clock
        self.net = nn.Sequential(
            nn.Linear(len(mean), width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, 1),
        )  # fmt: skip

    @staticmethod
    def of(windows: Tensor, width: int = 256) -> TimeNet:
        """With the moments of training windows (N, d), as they are."""
        return TimeNet(*_moments(windows), width)

    def loss(self, panel: Panel, rng: Streams) -> Tensor:
        """(B,) squared errors of log v at times drawn anew."""
        x = self.points(panel)
        share = torch.special.ndtr(rng.at("time").normal(x.new_zeros(len(x), 1)))
        kappa = self.clock.kappa(share)
        log_v = 2 * kappa.log()
        return (self._answer(x + kappa * rng.at("noise").normal(x)) - log_v[:, 0]).square()

    @torch.no_grad()
    def forward(self, panel: Panel) -> Tensor:
        """The estimated variance of the noise."""
        return self._answer(self.points(panel)).exp()

    def _answer(self, x: Tensor) -> Tensor:
        # values far outside the levels of training keep their order
        size = (x.square().mean(1, keepdim=True)).clamp_min(1e-12)
        inside = x * torch.rsqrt(1 + size)
        out: Tensor = self.net(inside.to(next(self.parameters()).dtype))[:, 0].double()
        return out + torch.log1p(size[:, 0])


def _moments(windows: Tensor) -> tuple[Tensor, Tensor]:
    x = windows.double()
    std = x.std(0, unbiased=False)
    return x.mean(0), torch.where(std > 0, std, torch.ones_like(std))
