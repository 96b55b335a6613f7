r"""Backbones for series on a regular grid: long convolutions, gated.

A backbone of series is ``(x (B, K, m), log_kappa, panel of B rows) -> (B, 1, m)``: K numbers at
every cell of the panel, one level a row or one for all. What else is known of the cells it takes
from the panel: times, channels, covariates, static features, which of them are ``real``. Values and
``known`` of the panel are for the model around it, which puts what may be seen into x. The last
layer starts at zero.

`LongConv` is a structured state space in its convolution form: every feature is filtered by

    k(j) = 2 Re sum_s c_s exp(-(a_s + i w_s) d j),   a_s, d > 0,

forward and backward in time, by FFT; so memory may be as long as the series, and the cost is
n log n. The channels of a series are features of one time, so that each step sees them all.

References
----------
Gu, Gupta, Goel, Re. On the parameterization and initialization of diagonal state space models.
NeurIPS 2022, eq. 6 and section 4 (S4D-Lin). https://arxiv.org/abs/2206.11893
Kollovieh et al. Predict, refine, synthesize (TSDiff). NeurIPS 2023, appendix B.
https://arxiv.org/abs/2307.11494
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.nn.spectral import Film, NoiseLevel, conv, zero
from sciddm.series.panel import Panel

NOTHING = Context()


class Kernels(nn.Module):
    """Filters features (B, H, n) forward and backward in time, each by a kernel of its own.

    states : S, decaying waves a kernel. reach : shortest and longest decay time at the start, in
    steps of the grid.
    """

    def __init__(self, width: int, states: int, reach: tuple[float, float]) -> None:
        nn.Module.__init__(self)
        low, high = math.log(1 / reach[1]), math.log(1 / reach[0])
        step = low + (high - low) * torch.rand(2, width, 1)
        self.log_step = nn.Parameter(step)
        self.log_decay = nn.Parameter(torch.zeros(2, width, states))
        waves = math.pi * torch.arange(states, dtype=torch.float32)
        self.wave = nn.Parameter(waves.repeat(2, width, 1))
        self.weight = nn.Parameter(torch.randn(2, 2, width, states) / math.sqrt(states))
        self.skip = nn.Parameter(torch.randn(width))

    def kernels(self, n: int) -> Tensor:
        """(2, H, n): forward, and backward from lag 1."""
        step = self.log_step.exp()
        at = torch.arange(n, dtype=step.dtype, device=step.device)
        decay = (step * self.log_decay.exp())[..., None]
        phase = (step * self.wave)[..., None] * at
        real, imag = self.weight[0][..., None], self.weight[1][..., None]
        waves = (real * phase.cos() + imag * phase.sin()) * torch.exp(-decay * at)
        # of unit size whatever the memory, so that no feature drowns another at the start
        return 2 * (step.clamp_max(1.0).sqrt() * waves.sum(2))

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[-1]
        ahead, back = self.kernels(n)
        both = torch.cat([ahead, x.new_zeros(len(ahead), 1), back[:, 1:].flip(-1)], dim=-1)
        long = torch.fft.rfft(x, 2 * n) * torch.fft.rfft(both)
        return torch.fft.irfft(long, 2 * n)[..., :n] + self.skip[:, None] * x


class GatedBlock(nn.Module):
    """h (B, H, n) -> (h + next, skip): a filter between the level and a gate. `LongConv`'s step."""

    def __init__(self, width: int, states: int, reach: tuple[float, float], embedding: int) -> None:
        nn.Module.__init__(self)
        self.norm = nn.GroupNorm(1, width)
        self.film = Film(embedding, width)
        self.filter = Kernels(width, states, reach)
        self.mix = nn.Conv1d(width, 2 * width, 1)
        self.out = nn.Conv1d(width, 2 * width, 1)

    def forward(self, h: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        left, right = self.mix(self.filter(self.film(self.norm(h), level))).chunk(2, dim=1)
        more, skip = self.out(torch.tanh(left) * torch.sigmoid(right)).chunk(2, dim=1)
        return (h + more) / math.sqrt(2), skip


class Steps(nn.Module):
    """Cells (B, K, m) of a dense panel -> features of its steps (B, H, n), and the level (B, E).

    Beside x a step has the mask of its channels, its place in the window, its phase in every one of
    ``periods`` and its covariates.
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        width: int,
        covariates: int,
        static: int,
        periods: tuple[float, ...],
    ) -> None:
        nn.Module.__init__(self)
        self.inputs, self.channels, self.covariates = inputs, channels, covariates
        self.static, self.periods = static, periods
        count = (inputs + 1) * channels + 2 + 2 * len(periods) + covariates
        self.lift = nn.Conv1d(count, width, 1)
        self.level = NoiseLevel(2 * width, static)

    def forward(self, x: Tensor, log_kappa: Tensor, panel: Panel) -> tuple[Tensor, Tensor]:
        if panel.dense is None or panel.dense[0] != self.channels:
            raise InputError(
                f"Got a panel with dense = {panel.dense}; this backbone expects {self.channels} "
                "channels on one regular grid. Use a backbone for irregular cells."
            )
        rows, (_, n) = len(x), panel.dense
        if x.shape[1] != self.inputs or len(panel) != rows:
            raise InputError(
                f"Got {x.shape[1]} inputs for {rows} rows and a panel of {len(panel)}; expected "
                f"{self.inputs} inputs and a panel with as many rows."
            )
        real = panel.real.to(x)
        parts = [(x * real[:, None]).reshape(rows, -1, n), real.reshape(rows, -1, n)]
        time = panel.time[:, :n]
        place = torch.linspace(-1, 1, n).to(x).expand(rows, 1, n)
        parts += [place, place.square()]
        for period in self.periods:
            angle = 2 * math.pi / period * time[:, None]
            parts += [angle.sin().to(x), angle.cos().to(x)]
        if self.covariates:
            if panel.covariates is None or panel.covariates.shape[1] != self.covariates:
                raise InputError(f"This backbone expects {self.covariates} covariates a cell.")
            parts.append(panel.covariates[:, :, :n].to(x))
        scalars = Context(scalars=panel.static) if self.static else NOTHING
        return self.lift(torch.cat(parts, dim=1)), self.level(log_kappa, scalars, x)


class LongConv(nn.Module):
    """``(x (B, K, m), log_kappa, panel) -> (B, 1, m)`` for panels on a regular grid.

    Parameters
    ----------
    inputs : K. channels : C of the panels. width, blocks : features, and gated filters.
    states : decaying waves a kernel.
    reach : shortest and longest memory at the start, in steps.
    covariates, static : how many a panel has. periods : in the unit of time of the panel, whose
        phases every step knows (a day, a week).

    Any number of steps; a longer window only takes longer memory.
    """

    def __init__(
        self,
        inputs: int = 1,
        channels: int = 1,
        width: int = 48,
        blocks: int = 3,
        states: int = 16,
        reach: tuple[float, float] = (2.0, 200.0),
        covariates: int = 0,
        static: int = 0,
        periods: tuple[float, ...] = (),
    ) -> None:
        nn.Module.__init__(self)
        self.inputs, self.channels, self.width, self.blocks = inputs, channels, width, blocks
        self.states, self.reach = states, (reach[0], reach[1])
        self.covariates, self.static, self.periods = covariates, static, tuple(periods)
        self.steps = Steps(inputs, channels, width, covariates, static, self.periods)
        self.body = nn.ModuleList(
            GatedBlock(width, states, self.reach, 2 * width) for _ in range(blocks)
        )
        self.last = nn.Conv1d(width, width, 1)
        self.head = conv(1, width, channels, 1, False)
        zero(self.head)

    def forward(self, x: Tensor, log_kappa: Tensor, panel: Panel) -> Tensor:
        h, level = self.steps(x, log_kappa, panel)
        total = torch.zeros_like(h)
        for block in self.body:
            h, skip = block(h, level)
            total = total + skip
        out: Tensor = self.head(nn.functional.silu(self.last(total / math.sqrt(self.blocks))))
        return out.reshape(len(x), 1, -1)
