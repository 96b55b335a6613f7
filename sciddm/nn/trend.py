r"""A backbone of series whose answer is a trend, a season and a rest that can be looked at.

Every block reads two series off its features. One is projected onto polynomials of time, which is
the trend; of the other only the few largest Fourier modes are kept, without the mean and the
fastest, which is the season. The sums over the blocks, and a rest, are the answer:

    answer = sum_b P_degree a_b + sum_b F_top h_b + rest.

Projections are orthogonal, and the season is taken from what is left of its series without its own
trend, so that a slow trend is not written as a season.

`sciddm.series.Spectrum` is the loss in Fourier space that goes with it.

References
----------
Yuan, Qiao. Diffusion-TS: interpretable diffusion for general time series generation. ICLR 2024,
eq. 5-7 (trend, season), eq. 9 (Fourier loss). https://arxiv.org/abs/2403.01742
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sciddm.errors import InputError
from sciddm.nn.series import GatedBlock, Steps
from sciddm.nn.spectral import conv, zero
from sciddm.series.panel import Panel


class Parts(NamedTuple):
    """Of an answer (B, 1, m), which is their sum."""

    trend: Tensor
    season: Tensor
    rest: Tensor


class TrendSeason(nn.Module):
    """``(x (B, K, m), log_kappa, panel) -> (B, 1, m)`` for panels on a regular grid.

    Parameters
    ----------
    degree : of the trend. modes : Fourier modes of the season, for each block and channel; the
        authors take the whole part of log(number of modes).
    inputs, channels, width, blocks, states, reach, covariates, static, periods : as of `LongConv`.

    Raises `InputError` for a degree below 0 and fewer than one mode.
    """

    def __init__(
        self,
        inputs: int = 1,
        channels: int = 1,
        width: int = 48,
        blocks: int = 2,
        degree: int = 3,
        modes: int = 3,
        states: int = 16,
        reach: tuple[float, float] = (2.0, 200.0),
        covariates: int = 0,
        static: int = 0,
        periods: tuple[float, ...] = (),
    ) -> None:
        nn.Module.__init__(self)
        if degree < 0 or modes < 1:
            raise InputError(f"Got degree {degree} and {modes} modes; expected 0 and 1 at least.")
        self.inputs, self.channels, self.width, self.blocks = inputs, channels, width, blocks
        self.degree, self.modes, self.states = degree, modes, states
        self.reach, self.covariates = (reach[0], reach[1]), covariates
        self.static, self.periods = static, tuple(periods)
        self.steps = Steps(inputs, channels, width, covariates, static, self.periods)
        self.body = nn.ModuleList(
            GatedBlock(width, states, self.reach, 2 * width) for _ in range(blocks)
        )
        self.read = nn.ModuleList(conv(1, width, 2 * channels, 1, False) for _ in range(blocks))
        self.head = conv(1, width, channels, 1, False)
        for last in (*self.read, self.head):
            zero(last)

    def components(self, x: Tensor, log_kappa: Tensor, panel: Panel) -> Parts:
        """The trend, the season and the rest of the answer."""
        h, level = self.steps(x, log_kappa, panel)
        shape = (len(x), self.channels, h.shape[-1])
        trend, season = h.new_zeros(shape), h.new_zeros(shape)
        for block, read in zip(self.body, self.read, strict=True):
            h, skip = block(h, level)
            slow, wave = read(skip).chunk(2, dim=1)
            trend = trend + polynomial(slow, self.degree)
            season = season + largest(wave - polynomial(wave, self.degree), self.modes)
        rest = self.head(h)
        return Parts(*(part.reshape(len(x), 1, -1) for part in (trend, season, rest)))

    def forward(self, x: Tensor, log_kappa: Tensor, panel: Panel) -> Tensor:
        parts = self.components(x, log_kappa, panel)
        return parts.trend + parts.season + parts.rest


def polynomial(x: Tensor, degree: int) -> Tensor:
    """The polynomials of time nearest to series (..., n)."""
    n = x.shape[-1]
    place = torch.linspace(-1, 1, n, dtype=torch.float64)
    powers = place[:, None] ** torch.arange(min(degree + 1, n))
    basis = torch.linalg.qr(powers)[0].to(x)
    return x @ basis @ basis.mT


def largest(x: Tensor, modes: int) -> Tensor:
    """The ``modes`` largest Fourier modes of each series (..., n), without the mean and, where n is
    even, the fastest."""
    n = x.shape[-1]
    lines = torch.fft.rfft(x)
    inner = lines[..., 1 : (n + 1) // 2]
    if inner.shape[-1] > modes:
        kept = inner.abs().topk(modes, dim=-1).indices
        inner = torch.zeros_like(inner).scatter(-1, kept, inner.gather(-1, kept))
    blank = torch.zeros_like(lines[..., :1])
    tail = lines.shape[-1] - 1 - inner.shape[-1]
    whole = torch.cat([blank, inner, *[blank] * tail], dim=-1)
    return torch.fft.irfft(whole, n) if n > 1 else torch.zeros_like(x)
