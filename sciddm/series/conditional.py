r"""Draws of the wanted cells given the known ones, in one pass: kriging, and what it leaves out.

The `Posterior` of a Gaussian law says x = mean + L w with white w. What is diffused is the
innovation e = x - mean, with noise of exactly that covariance, L L^T: on the circle alpha = cos a,
sigma = sin a,

    e_a = cos(a) e + sin(a) L w,        d e_a / d a = E[cos(a) L w - sin(a) e | e_a],

which is 0 where the law is right. The network's answer is this velocity, cell by cell in units of
the posterior s.d.; while it is 0 the draw is the law's own posterior, in any number of steps.
Training adds what the law does not know: skewness, bounds, jumps, dependence on the level.

The posterior and the network's reading of the known cells are computed once a series; only the
wanted cells of each member pass through the network again.

References
----------
Tashiro et al. CSDI: conditional score-based diffusion models for probabilistic time series
imputation. NeurIPS 2021, section 4 (known cells as conditions). https://arxiv.org/abs/2107.03502
Kollovieh et al. Flow matching with Gaussian process priors for probabilistic time series
forecasting. ICLR 2025, section 3.2 (the posterior as the source). https://arxiv.org/abs/2410.03024
Bilos et al. Modeling temporal data as continuous functions with stochastic process diffusion. ICML
2023, section 3 (noise of a process at irregular times). https://arxiv.org/abs/2211.02590
Salimans, Ho. Progressive distillation for fast sampling of diffusion models. ICLR 2022, appendix D
(the velocity on the circle).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sciddm.covariance import Covariance, Function, White
from sciddm.denoise import Context, Denoiser
from sciddm.errors import InputError
from sciddm.process import VP, CosineAlpha, OneClock
from sciddm.random import Streams
from sciddm.series.base import SeriesLearner
from sciddm.series.law import Law, factor, posterior
from sciddm.series.panel import Panel
from sciddm.solve import Adams, History, InTime, RotationForm, Solver


@dataclass(frozen=True, eq=False)
class Given:
    """All that a network may know of a panel beside the noise, float32 where it holds numbers.

    panel : with values only at known cells, 0 at the others.
    mean, std : (B, m) of the law's posterior; at exact known cells their values and 0.
    index : (B, h) the wanted cells of each series, in their order, filled up with others.
    wanted : (B, h) bool, False where it is filled.
    """

    panel: Panel
    mean: Tensor
    std: Tensor
    index: Tensor
    wanted: Tensor

    def at(self, x: Tensor) -> Tensor:
        """(B, h) of what is (B, m): at the wanted cells."""
        return x.gather(1, self.index)


class Backbone(nn.Module, ABC):
    """A network that reads the known cells once and is then asked about the wanted ones.

    Its last layer starts at zero.
    """

    @abstractmethod
    def encode(self, given: Given) -> Any:  # noqa: ANN401  (each network's own)
        """What `forward` needs of a panel of B series: computed once, for all members and steps."""

    @abstractmethod
    def forward(self, x: Tensor, log_kappa: Tensor, memory: Any) -> Tensor:  # noqa: ANN401
        """(B, M, h) for M members of each series.

        x : (B, M, h, 2), at each wanted cell the noised innovation over its s.d., and the value
            that it stands for. log_kappa : (B, M), or (1, 1) for one level of all.
        """


class Conditional(SeriesLearner):
    """p(wanted | known) as the posterior of a law and what a network adds to it.

    Parameters
    ----------
    backbone : such as `sciddm.nn.SetTransformer` (irregular) or another `Backbone`.
    law : a Gaussian law of any panel, such as a fitted `sciddm.series.kernel.Mixed`.
    channels : C. floor : s.d. in normalised units below which errors are not magnified.
    process : without an anchor; its own noise is not used. None: cosine, even steps in the angle.
    solver, steps : of a draw; the default costs one evaluation a step.
    copies : noised copies of every series in a training step, which share what is read once.
    """

    def __init__(
        self,
        backbone: Backbone,
        law: Law,
        channels: int,
        floor: float = 1e-3,
        process: OneClock | None = None,
        solver: Solver | None = None,
        steps: int = 12,
        copies: int = 4,
    ) -> None:
        nn.Module.__init__(self)
        if steps < 1 or copies < 1 or not floor > 0:
            raise InputError(
                f"Got {steps} steps, {copies} copies and a floor of {floor}; expected positive "
                "numbers."
            )
        self.backbone, self.law, self.channels, self.floor = backbone, law, channels, floor
        self.process = VP(clock=CosineAlpha(offset=0.004)) if process is None else process
        self.solver = Adams(3, InTime(), RotationForm()) if solver is None else solver
        self.steps, self.copies = steps, copies

    @property
    def evaluations(self) -> float:
        return float(self.solver.evaluations(self.steps))

    def draw(self, panel: Panel, rng: Streams) -> Tensor:
        with torch.no_grad():
            read, rows = self._read(panel)
            x = self._walk(self.denoiser(read.given, rows), len(rng.members), rng)
            e = x.view(len(panel), -1, rows.factor.shape[1])
            if panel.error is None:
                at = read.given.index[:, None].expand(e.shape)
                found = read.mean[:, None].repeat(1, e.shape[1], 1).scatter_add(2, at, e)
            else:
                found = read.mean[:, None] + read.others(e, rows.factor, rng.at("known"))
        return found.to(panel.value.dtype)

    def _read(self, panel: Panel) -> tuple[Read, Rows]:
        """What is computed once a series: for all members, copies and levels."""
        blank = torch.where(panel.known, panel.value, torch.zeros_like(panel.value))
        panel = replace(panel, value=blank)
        post = posterior(self.law, panel)
        order = torch.argsort(panel.wanted.byte(), dim=1, descending=True, stable=True)
        h = max(1, int(panel.wanted.sum(1).max()))
        given = Given(
            panel, post.mean.float(), post.std.float(), order[:, :h],
            panel.wanted.gather(1, order[:, :h]),
        )  # fmt: skip
        lower = post.factor
        if panel.error is not None:  # wanted cells first, then those that are known within errors
            spread = square(lower @ lower.mT, order)
            gone = torch.diag_embed(1 - panel.real.gather(1, order).double())
            lower = factor(spread + gone) - gone
            inner = lower[:, :h, :h]
        else:
            inner = square(lower, order[:, :h])
        live = given.wanted.double()
        read = Read(given, post.mean, order, lower)
        return read, Rows(inner * live[:, :, None] * live[:, None, :])

    def denoiser(self, given: Given, rows: Rows) -> Innovation:
        """Of the innovations (B M, 1, h) of the wanted cells."""
        return Innovation(self.backbone, self.process, given, rows, self.floor)

    def _walk(self, denoiser: Innovation, count: int, rng: Streams) -> Tensor:
        process, noise = denoiser.process, denoiser.process.noise
        times = torch.linspace(1, 0, self.steps + 1, dtype=torch.float64)
        self.solver.check(process, times)
        # an innovation of the law itself has this spread where all is noise, and at the end
        alpha, _, sigma = process.coefficients(times[0])
        x = noise.sample(denoiser.blank(count), rng.at("start")) * torch.hypot(alpha, sigma)
        state, context = History(), Context()
        for k in range(self.steps):
            t, s = times[k], times[k + 1]
            x, state = self.solver.step(denoiser, x, t, s, context, state, rng.at("step", k))
        return x

    def loss(self, panel: Panel, rng: Streams, share: float) -> Tensor:
        """Squared error of the velocity in units of the s.d., each wanted cell of the batch alike:
        1 for an untrained network where the law is right."""
        with torch.no_grad():
            read, rows = self._read(panel)
        given, n = read.given, self.copies
        clean = torch.where(given.wanted, given.at(panel.value.double() - read.mean), 0.0)
        clean = clean.repeat_interleave(n, dim=0)[:, None]
        place = torch.special.ndtr(rng.at("time").normal(clean.new_zeros(len(panel), 1)))
        shift = torch.arange(n, device=clean.device) / n  # a series is seen at levels far apart
        t = (place + shift).remainder(1).view(-1, 1, 1)
        white = rng.at("noise").normal(clean.new_zeros(len(panel), n, clean.shape[2]))
        denoiser = self.denoiser(given, rows)
        alpha, _, sigma = denoiser.process.coefficients(t)
        x_t = alpha * clean + sigma * rows.sqrt(white.view_as(clean))
        known, size, answer = denoiser.parts(x_t, t)
        gap = (answer - ((clean - known) / size).to(answer)).square()
        live = given.wanted.to(gap)
        total = (gap.view(len(panel), n, -1).mean(1) * live).sum(1)
        return total / live.sum(1).mean().clamp_min(1)


class Innovation(Denoiser):
    """E[e | e_t] of the wanted cells, (B M, 1, h) float64, cells beyond those of a series 0.

    Karras et al. 2022, eq. 7 at unit variance in units of the posterior: while the network is
    silent, exact for an e that has the law of the noise.
    """

    def __init__(
        self, backbone: Backbone, process: OneClock, given: Given, rows: Rows, floor: float
    ) -> None:
        nn.Module.__init__(self)
        self.backbone, self.rows = backbone, rows
        self.process = replace(process, noise=rows)  # type: ignore[type-var]
        self.scale = (given.at(given.std).double().square() + floor**2).sqrt()[:, None]
        self.mean = given.at(given.mean)[:, None]
        self.live = given.wanted[:, None]
        self.memory = backbone.encode(given)

    def blank(self, count: int) -> Tensor:
        """(B M, 1, h) of zeros for B M = ``count`` rows."""
        return self.rows.factor.new_zeros(count, 1, self.rows.factor.shape[1])

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        known, size, answer = self.parts(x_t, t)
        return known + size * answer.to(known)

    def parts(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(known, size, answer): the estimate is known + size * answer of the network."""
        kappa = self.process.kappa(t)
        turn = torch.rsqrt(1 + kappa**2)
        u = self.process.centred(x_t, t)
        known = u * turn**2
        shape = (len(self.scale), -1, x_t.shape[2])
        seen = (u * turn).view(shape) / self.scale
        value = self.mean + known.view(shape)
        level = kappa.log().float().view(1 if kappa.numel() == 1 else shape[0], -1)
        answer = self.backbone(torch.stack([seen, value], -1).float(), level, self.memory)
        answer = torch.where(self.live, answer, 0.0).reshape(x_t.shape)
        size = self.scale.expand(seen.shape).reshape(x_t.shape) * (kappa * turn)
        return known, size, answer


@dataclass(frozen=True, eq=False)
class Rows(Covariance):
    """C = L L^T, one for each series: fields (B M, 1, h), the M rows of a series together.

    factor : (B, h, h), L.
    """

    factor: Tensor

    def sqrt(self, w: Tensor) -> Tensor:
        wide = w.view(len(self.factor), -1, w.shape[2])
        return (wide @ self.factor.mT.to(w)).view(w.shape)

    def joint(self, x: Tensor, other: Covariance, f: Function) -> Tensor:
        values, vectors = torch.linalg.eigh(self.factor @ self.factor.mT)
        if isinstance(other, White):
            theirs = other.variance(x).to(values)
        elif other is self:
            theirs = values[:, None]
        else:
            raise InputError(
                f"Got {type(other).__name__} beside a covariance of series; expected White or the "
                "same one."
            )
        wide = x.view(len(values), -1, x.shape[2]).double()
        out = ((wide @ vectors) * f(values[:, None], theirs)) @ vectors.mT
        return out.view(x.shape).to(x)

    def average(self, like: Tensor, other: Covariance, f: Function) -> Tensor:
        raise InputError("Got a covariance that differs from series to series; it has no average.")

    def diagonal(self, like: Tensor) -> Tensor:
        return self.factor.square().sum(-1)


@dataclass(frozen=True, eq=False)
class Read:
    """What is known of a panel before any noise.

    mean : (B, m). order : (B, m), wanted cells first. lower : (B, m, m), factor of the posterior,
    in that order where known cells have errors.
    """

    given: Given
    mean: Tensor
    order: Tensor
    lower: Tensor

    def others(self, e: Tensor, inner: Tensor, rng: Streams) -> Tensor:
        """(B, M, m) innovations of all cells: those of the wanted ones as drawn (B, M, h), those of
        cells that are known within errors by the law given them."""
        live = self.given.wanted.double()
        inner = inner + torch.diag_embed(1 - live)
        white = torch.linalg.solve_triangular(inner, e.mT, upper=False).mT
        fresh = rng.normal(e.new_zeros(e.shape[0] * e.shape[1], self.mean.shape[1]))
        fresh = fresh.view(*e.shape[:2], -1)
        h = e.shape[2]
        first = torch.where(live[:, None] > 0, white, fresh[:, :, :h])
        out = torch.cat([first, fresh[:, :, h:]], dim=2) @ self.lower.mT
        at = self.order[:, None].expand(out.shape)
        real = self.given.panel.real[:, None]
        return torch.where(real, torch.zeros_like(out).scatter(2, at, out), 0.0)


def square(matrix: Tensor, index: Tensor) -> Tensor:
    """(B, h, h): the rows and columns ``index`` (B, h) of (B, m, m)."""
    rows = matrix.gather(1, index[:, :, None].expand(-1, -1, matrix.shape[2]))
    return rows.gather(2, index[:, None, :].expand(-1, index.shape[1], -1))
