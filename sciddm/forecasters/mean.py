"""What is expected of the next frame: the part of a forecast that needs no network.

An engine that draws ``(next frame - mean) / scale`` learns what the mean does not know. A mean is
a module ``(recent (B, C, T, *grid), context, frame) -> (B, C, *grid)``; `Mean.ahead` follows it for
several frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters.linear import LinearGaussian


class Mean(nn.Module, ABC):
    """The mean of the frame after ``recent``.

    history : frames of the past that it needs.
    """

    history: int = 1

    @abstractmethod
    def forward(self, recent: Tensor, context: Context, frame: int) -> Tensor:
        """(B, C, *grid) of ``recent`` (B, C, T, *grid), T >= `history`; ``frame`` is the number of
        the frame that is meant, 1 the first of the forecast."""

    def ahead(self, recent: Tensor, context: Context, frame: int, count: int) -> Tensor:
        """The next ``count`` frames, each the mean of those before it: (B, C, count, *grid)."""
        out = []
        for k in range(count):
            out.append(self(recent, context, frame + k))
            recent = torch.cat([recent[:, :, 1:], out[-1][:, :, None]], dim=2)
        return torch.stack(out, dim=2)


class Persistence(Mean):
    """The newest frame."""

    def __init__(self) -> None:  # without arguments, which a saved model keeps
        nn.Module.__init__(self)

    def forward(self, recent: Tensor, context: Context, frame: int) -> Tensor:
        return recent[:, :, -1]


class Damped(Mean):
    """A share of the newest frame; in anomalies the rest is the climatology.

    factor : (C,), (C, *grid) or a scalar tensor. 0 is the climatology itself.
    """

    def __init__(self, factor: Tensor) -> None:
        nn.Module.__init__(self)
        self.factor = factor

    @staticmethod
    def fit(films: Tensor) -> Damped:
        """The regression of a frame on the one before, a channel at a time, in films (N, C, T,
        *grid) of anomalies."""
        before, after = films[:, :, :-1].double(), films[:, :, 1:].double()
        over = [0, *range(2, films.ndim)]
        power = before.square().sum(over)
        if not bool((power > 0).all()):
            raise InputError("Got a channel that is zero in every frame; expected one that varies.")
        return Damped((before * after).sum(over) / power)

    def forward(self, recent: Tensor, context: Context, frame: int) -> Tensor:
        newest = recent[:, :, -1]
        factor = self.factor.to(newest)
        if factor.ndim == 1:
            factor = factor.view(-1, *[1] * (newest.ndim - 2))
        return factor * newest


class Linear(Mean):
    """The mean of a linear law, over as many past frames as it has matrices.

    law : a `LinearGaussian`, such as `linear_inverse` fits.
    """

    def __init__(self, law: LinearGaussian) -> None:
        nn.Module.__init__(self)
        self.law, self.history = law, law.history

    def forward(self, recent: Tensor, context: Context, frame: int) -> Tensor:
        return self.law.expected(recent)
