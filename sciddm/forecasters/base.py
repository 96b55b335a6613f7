"""What every forecaster is: frame after frame of p(future | past), each member on its own.

A forecaster is a `sciddm.solve.Sampler`: ``(shape, context, rng) -> (B, C, T, *grid)``. What it is
built from is `frames`, an endless walk that holds only the frames it needs, so a forecast of any
length takes the memory of one step. Physical time is an axis of the film and is counted in frames:
frame n = 1, 2, ... lies n lead steps after the newest frame of the past.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.random import Streams


class Known(ABC):
    """Something that is known of every frame, to which each is held.

    mask : (C, *grid), true where the values themselves are known, or None.
    """

    mask: Tensor | None

    @abstractmethod
    def impose(self, frame: Tensor, past: Tensor) -> Tensor:
        """``frame`` (B, C, *grid) as it has to be; ``past`` (B, C, T, *grid)."""


@dataclass(frozen=True, eq=False)
class Boundary(Known):
    """Values that are known in every frame: walls, land, nodes that do not move.

    mask : (C, *grid), true where they are known.
    values : (C, *grid), or None for those of the newest frame of the past.
    """

    mask: Tensor
    values: Tensor | None = None

    def impose(self, frame: Tensor, past: Tensor) -> Tensor:
        known = past[:, :, -1] if self.values is None else self.values.to(frame)
        return torch.where(self.mask.to(frame.device), known, frame)


@dataclass(frozen=True)
class Band(Known):
    """No Fourier mode beyond ``modes`` along any axis: what a solver that cuts products off leaves
    of a periodic field. A network's rest there would feed on itself in a long forecast.

    Orszag. On the elimination of aliasing in finite-difference schemes by filtering high-wavenumber
    components. J. Atmos. Sci. 1971.
    """

    modes: int

    def __post_init__(self) -> None:
        if self.modes < 0:
            raise InputError(f"Got a band up to mode {self.modes}; expected 0 or more.")

    @property
    def mask(self) -> None:  # type: ignore[override]
        return None

    def impose(self, frame: Tensor, past: Tensor) -> Tensor:
        grid, axes = frame.shape[2:], tuple(range(2, frame.ndim))
        keep = torch.ones((), dtype=torch.bool, device=frame.device)
        for k, n in enumerate(grid):
            wave = (
                torch.fft.fftfreq(n, 1 / n) if k < len(grid) - 1 else torch.fft.rfftfreq(n, 1 / n)
            )
            within = wave.to(frame.device).abs() <= self.modes + 1e-3
            keep = keep[..., None] & within
        return torch.fft.irfftn(torch.fft.rfftn(frame, dim=axes) * keep, s=grid, dim=axes)


class Forecaster(nn.Module, ABC):
    """p(next frames | past frames), rolled out.

    history : frames of the past that it needs.
    boundary : what is known of every frame, or None. Every frame is held to it before it is given
        out, and before the next one sees it.
    longest : the most frames that it serves, or None for any number.
    """

    history: int = 1
    boundary: Known | None = None
    longest: int | None = None

    @property
    @abstractmethod
    def evaluations(self) -> float:
        """Network evaluations a frame and member."""

    @abstractmethod
    def walk(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        """Frames 1, 2, ... (B, C, *grid), without end or up to `longest`.

        ``context.past`` (B, C, history, *grid) is where it starts; ``context.fields`` (B, S, *grid)
        never change; ``context.forcings`` are known ahead. Noise of frame n is drawn inside
        ``rng.inside("frame", n)``, so that a frame does not depend on how many are asked for.
        """

    def frames(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        """`walk`, checked: frames (B, C, *grid) one lead step after another.

        Raises `InputError` for a past that is missing or too short.
        """
        past = context.past
        if past is None or past.shape[2] < self.history:
            came = 0 if past is None else past.shape[2]
            raise InputError(
                f"Got {came} frames of the past; expected at least {self.history} to start from."
            )
        walk = self.walk(context, rng)
        while True:
            with torch.no_grad():  # not around a yield: the caller's own gradients go on
                frame = next(walk, None)
            if frame is None:
                return
            yield frame

    def imposed(self, frame: Tensor, context: Context) -> Tensor:
        """``frame`` (B, C, *grid) held to the boundary."""
        if self.boundary is None or context.past is None:
            return frame
        return self.boundary.impose(frame, context.past)

    def forward(self, shape: Sequence[int], context: Context, rng: Streams) -> Tensor:
        """A film (B, C, T, *grid) of the T frames that ``shape`` asks for.

        Raises `InputError` for more frames than it serves.
        """
        wanted = shape[2]
        if self.longest is not None and wanted > self.longest:
            raise InputError(
                f"Got {wanted} lead steps; this model serves {self.longest}, expected no more."
            )
        return torch.stack(list(islice(self.frames(context, rng), wanted)), dim=2)


class Learner(Forecaster):
    """A forecaster with weights that `sciddm.train` fits on films.

    window : frames of a training film, the past included.
    stages : shares of the training at which another loss begins, for methods that learn in stages.
    """

    window: int = 2
    stages: tuple[float, ...] = ()

    @abstractmethod
    def loss(self, film: Tensor, context: Context, rng: Streams, share: float) -> Tensor:
        """What is minimised, (B,), for films (B, C, window, *grid) of the training data.

        context : ``forcings`` (B, K, window, *grid), ``fields`` and ``index`` as they are known.
        rng : addressed by training step; every draw of the loss comes from it.
        share : how much of the training is done, in [0, 1); methods that learn in stages divide it.
        """


def conditions(
    recent: Tensor, context: Context, frame: int, ahead: int = 1, history: int | None = None
) -> Tensor:
    """What a network sees beside its state, on the grid: (B, C history + S + K (history + ahead),
    *grid).

    recent : (B, C, history, *grid), the frames just before frame number ``frame`` (1 is the first
        that is wanted). ahead : frames that are drawn together. history : how many frames of
        ``context.forcings`` lie before frame 1; default as many as ``recent`` has.
    The order is: recent frames (channels of the oldest first), static fields, forcings by time.
    """
    parts, depth = [recent.transpose(1, 2).flatten(1, 2)], recent.shape[2]
    grid, rows = recent.shape[3:], recent.shape[0]
    if context.fields is not None:
        parts.append(context.fields.to(recent).expand(rows, *context.fields.shape[1:]))
    if context.forcings is not None:
        before = depth if history is None else history
        first = frame - 1 + before - depth
        known = context.forcings[:, :, first : first + depth + ahead].to(recent)
        if known.shape[2] < depth + ahead:
            raise InputError(
                f"Got forcings of {context.forcings.shape[2] - before} lead steps; expected at "
                f"least {frame - 1 + ahead}."
            )
        flat = known.transpose(1, 2).flatten(1, 2)
        parts.append(flat.expand(rows, flat.shape[1], *grid))
    return torch.cat(parts, dim=1)
