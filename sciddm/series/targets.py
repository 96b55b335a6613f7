"""What the network of a prior of series answers, and a loss on its spectrum.

Yuan, Qiao. Diffusion-TS: interpretable diffusion for general time series generation. ICLR 2024,
eq. 8-9 (the series itself as the target, Fourier loss). https://arxiv.org/abs/2403.01742
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.series.panel import Panel


class Target(ABC):
    """What the network's answer means."""

    @abstractmethod
    def __call__(self, answer: Tensor, base: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """x_hat of an answer (B, m), given the law's own estimate and its mean."""

    @abstractmethod
    def scale(self, std: Tensor, error: Tensor) -> Tensor:
        """The unit of an answer, and of the loss, (B, m): of the s.d. of X and of the s.d. that the
        law leaves of it."""


@dataclass(frozen=True)
class Correction(Target):
    """What the law does not know, in units of what it leaves open; 0 is the law."""

    def __call__(self, answer: Tensor, base: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        return base + scale * answer

    def scale(self, std: Tensor, error: Tensor) -> Tensor:
        return error


@dataclass(frozen=True)
class Direct(Target):
    """X itself, in units of its s.d., as a backbone that names its parts wants it; 0 is the mean
    of the law. Poor at low noise, where `Correction` only has to leave the estimate alone."""

    def __call__(self, answer: Tensor, base: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        return mean + scale * answer

    def scale(self, std: Tensor, error: Tensor) -> Tensor:
        return std


@dataclass(frozen=True)
class Spectrum:
    """A loss on the Fourier coefficients of an error: weight x mean (|Re| + |Im|) over them.

    The squared error of coefficients is that of values (Parseval); their absolute error is another
    loss, which a mode or two that are wrong weigh more in than the same error spread over all.
    """

    weight: float = 0.1

    def __call__(self, gap: Tensor, panel: Panel) -> Tensor:
        """(B,) of errors ``gap`` (B, m) at the cells of a dense panel, 0 where there is none."""
        if panel.dense is None:
            raise InputError("Got irregular cells; a loss on the spectrum needs a regular grid.")
        lines = torch.fft.rfft(gap.reshape(len(gap), *panel.dense), norm="ortho")
        return self.weight * (lines.real.abs() + lines.imag.abs()).flatten(1).mean(1)
