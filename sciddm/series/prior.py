r"""An unconditional diffusion of series as functions of physical time, conditioned afterwards.

The noise is a Gaussian law of its own at each series' own times (an Ornstein-Uhlenbeck process, any
GP, or white), by default the fitted law of the data:

    u = x + kappa z,   z ~ N(0, C(times)),   x_hat(u, kappa) = E[X | u].

Under the law of the noise itself that estimate is mu + (u - mu) / (1 + kappa^2), and the network
learns what is not Gaussian: an untrained (zero) one is exactly the law. One network is the
denoiser and the score: in the geometry of the noise

    C grad log p(u) = (x_hat - u) / kappa^2 = -z_hat / kappa,

so the inverse of C is never needed. Nothing is trained for a task. Bound to a panel (`at`) the
prior is an ordinary `Denoiser` of fields (B, 1, m), and a `Rule` imposes the cells that are known.

References
----------
Bilos, Rasul, Schneider, Nevmyvaka, Gunnemann. Modeling temporal data as continuous functions with
stochastic process diffusion. ICML 2023, section 3. https://arxiv.org/abs/2211.02590
Franzese et al. Continuous-time functional diffusion processes. NeurIPS 2023.
https://arxiv.org/abs/2303.00800
Kollovieh et al. Predict, refine, synthesize (TSDiff). NeurIPS 2023.
https://arxiv.org/abs/2307.11494
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from sciddm.denoise import Context, Denoiser, LinearMap, Moments
from sciddm.errors import InputError
from sciddm.likelihood import log_prob
from sciddm.process import VP, Clock, LogLinear
from sciddm.random import Streams, normal
from sciddm.series.base import SeriesLearner
from sciddm.series.cells import CellNoise, Cells
from sciddm.series.law import Law
from sciddm.series.panel import Panel
from sciddm.series.rules import Matching, Rule
from sciddm.series.targets import Correction, Spectrum, Target


class FunctionPrior(SeriesLearner):
    """p(series), and p(wanted cells | known cells) by ``rule``.

    Parameters
    ----------
    law : Gaussian law of the data: mean and scale of all, and the covariance that guides.
    backbone : ``(x (B, K, m), log_kappa, panel) -> (B, 1, m)``, K = 1, or 2 where ``noise`` is
        given (then the law's own estimate is the second); or None: the law alone.
    noise : law of the noise, whose mean is not used; None takes ``law``.
    rule : how known cells are imposed, see `sciddm.series.rules`.
    target : what the backbone answers. spectrum : a loss in Fourier space beside, or None.
    clock : noise levels. noise_mean, noise_std : of log kappa in training.
    channels : C, or None.
    """

    def __init__(
        self,
        law: Law,
        backbone: nn.Module | None = None,
        noise: Law | None = None,
        rule: Rule | None = None,
        target: Target | None = None,
        spectrum: Spectrum | None = None,
        clock: Clock | None = None,
        noise_mean: float = -0.5,
        noise_std: float = 1.5,
        channels: int | None = None,
    ) -> None:
        nn.Module.__init__(self)
        self.law, self.backbone, self.noise = law, backbone, noise
        self.rule = Matching() if rule is None else rule
        self.target = Correction() if target is None else target
        self.spectrum = spectrum
        self.clock = LogLinear(5e-3, 50.0) if clock is None else clock
        self.noise_mean, self.noise_std = noise_mean, noise_std
        self.channels = channels

    @property
    def evaluations(self) -> float:
        return float(self.rule.evaluations)

    def at(self, panel: Panel) -> Bound:
        """The prior at the cells of a panel."""
        return Bound(self, panel)

    @torch.no_grad()
    def draw(self, panel: Panel, rng: Streams) -> Tensor:
        series, rows = len(panel), len(rng.members)
        if rows % max(series, 1):
            raise InputError(f"Got {rows} addresses for {series} series; expected as many each.")
        count, out = rows // max(series, 1), []
        for i in range(series):
            part = slice(i * count, (i + 1) * count)
            one, own = panel.rows(slice(i, i + 1)), _rows(rng, part)
            x = self.rule.draw(self.at(one), own)
            if panel.error is None:
                x = torch.where(one.known, one.value.to(x), x)
            out.append(torch.where(one.real, x, 0.0))
        return torch.stack(out) if out else panel.time.new_zeros(0, 0, panel.cells)

    def loss(self, panel: Panel, rng: Streams, share: float) -> Tensor:
        """Denoising score matching at all real cells, known or not, in units of `Target.scale`.

        A cell without a value is no cell (`Panel.real`): its noise is integrated out, and the
        network sees the mask. The exact denoiser of the law scores 1 at every level.
        """
        if self.backbone is None:
            raise InputError("Got a FunctionPrior without a backbone; it has nothing to train.")
        cells = Cells.of(panel, self.law, self.noise)
        x = torch.where(panel.real, panel.value.double(), cells.mean)
        white = rng.at("level").normal(x.new_zeros(len(x), 1))
        low, high = self.clock.ends()
        kappa = (self.noise_mean + self.noise_std * white).exp().clamp(low, high)
        u = x + kappa * cells.coloured(rng.at("noise").normal(x))
        x_hat, scale = self.estimate(cells, u, kappa, panel)
        gap = torch.where(panel.real, (x_hat - x) / scale.clamp_min(1e-12), 0.0)
        loss = gap.square().sum(1) / panel.real.sum(1).clamp_min(1)
        return loss if self.spectrum is None else loss + self.spectrum(gap, panel)

    def seen(self, cells: Cells, u: Tensor, kappa: Tensor, panel: Panel) -> tuple[Tensor, Tensor]:
        """What the backbone sees of u (B, m): inputs (B, K, m), and log kappa."""
        total = torch.sqrt(cells.std.square() + (kappa * cells.noise_std).square())
        parts = [(u - cells.mean) / total.clamp_min(1e-12)]
        if self.noise is not None:
            parts.append((cells.estimate(u, kappa) - cells.mean) / cells.std.clamp_min(1e-12))
        inputs = torch.where(panel.real[:, None], torch.stack(parts, dim=1), 0.0)
        return inputs.to(self._dtype), kappa.log()

    def estimate(
        self, cells: Cells, u: Tensor, kappa: Tensor, panel: Panel
    ) -> tuple[Tensor, Tensor]:
        """x_hat (B, m), float64, and the unit of the network's answer there."""
        base = cells.estimate(u, kappa)
        scale = self.target.scale(cells.std.expand_as(u), cells.error(kappa).expand_as(u))
        if self.backbone is None:
            return base, scale
        answer = self.backbone(*self.seen(cells, u, kappa, panel), panel)[:, 0].double()
        return self.target(answer, base, cells.mean, scale), scale

    def log_prob(self, panel: Panel, steps: int = 64) -> Tensor:
        """log p(known values) of each series without the others, (B,), float64, nats.

        Along the probability flow (`sciddm.likelihood.log_prob`), with exact traces: m backward
        passes a step. For the law alone see `sciddm.series.log_prob`, which is exact.
        """
        out = []
        for i in range(len(panel)):
            one = _known(panel.rows(slice(i, i + 1)))
            prior = self.at(one)
            out.append(log_prob(prior, one.value[:, None].double(), steps=steps)[0])
        return torch.stack(out) if out else panel.time.new_zeros(0)

    @property
    def _dtype(self) -> torch.dtype:
        found = () if self.backbone is None else self.backbone.parameters()
        return next((p.dtype for p in found), torch.float64)


class Bound(Denoiser, Moments):
    """A `FunctionPrior` at the cells of one panel: E[X | x_t] of fields (n, 1, m).

    n is the number of series, or any number where the panel has one. The moments are those of the
    law. Times are one for all rows, or one a row.
    """

    exact: ClassVar[bool] = True

    def __init__(self, prior: FunctionPrior, panel: Panel) -> None:
        nn.Module.__init__(self)
        self.prior, self.panel = prior, panel
        self.cells = Cells.of(panel, prior.law, prior.noise)
        self.process = VP(CellNoise(self.cells.turn), prior.clock)

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        u = self.process.centred(x_t.double(), t)[:, 0]
        x_hat, _ = self.prior.estimate(self.cells, u, self._level(t), self._panel(len(u)))
        return x_hat[:, None].to(x_t)

    def covariance(self, t: Tensor) -> LinearMap:
        kappa = self._level(t)
        return lambda g: self.cells.covariance(g[:, 0].double(), kappa)[:, None].to(g)

    def respond(self, x_hat: Tensor, gap: Tensor, rows: Tensor, update: LinearMap) -> Tensor:
        return update(gap)

    def fluctuation(self, t: Tensor, like: Tensor, rng: Streams | None = None) -> Tensor:
        w = normal(like, rng)[:, 0].double()
        return self.cells.fluctuation(w, self._level(t))[:, None].to(like)

    def start(self, t: Tensor, centre: Tensor, rng: Streams) -> Tensor:
        """x_t (n, 1, m), float64, of the law moved to ``centre`` (1 or n, m)."""
        w = rng.normal(torch.zeros(len(rng.members), self.panel.cells, dtype=torch.float64))
        alpha, _, _ = self.process.coefficients(t)
        return (alpha * (centre + self.cells.start(w, self._level(t))))[:, None]

    def seen(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Panel]:
        """What the backbone is called with at x_t, such as to name the parts of its answer."""
        u, panel = self.process.centred(x_t.double(), t)[:, 0], self._panel(len(x_t))
        return *self.prior.seen(self.cells, u, self._level(t), panel), panel

    def _level(self, t: Tensor) -> Tensor:
        kappa = self.process.kappa(t)
        return kappa if kappa.ndim == 0 else kappa.reshape(-1, 1)

    def _panel(self, rows: int) -> Panel:
        return self.panel if len(self.panel) == rows else self.panel.repeated(rows)


def _rows(rng: Streams, part: slice) -> Streams:
    return replace(rng, cases=rng.cases[part], members=rng.members[part])


def _known(panel: Panel) -> Panel:
    """One series of its known cells alone. Those of a regular grid stay on it only where all of
    them are known."""
    if bool(panel.known.all()):
        return panel
    at = panel.known[0].nonzero()[:, 0]
    time, channel, value = (v[:, at] for v in (panel.time, panel.channel, panel.value))
    whole = torch.ones_like(channel, dtype=torch.bool)
    covariates = None if panel.covariates is None else panel.covariates[:, :, at]
    return Panel(time, channel, value, whole, whole, None, covariates, panel.static)
