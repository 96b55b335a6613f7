"""From noise to a draw: trajectories along a time grid, and the `Sampler` that labels see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser
from sciddm.random import Streams
from sciddm.solve.early import Early
from sciddm.solve.grids import Grid, LogKappa
from sciddm.solve.solvers import History, Multistep, Solver


class Sampler(Protocol):
    """All that the labelled side sees: a shape, what is given, and addressed noise."""

    def __call__(self, shape: Sequence[int], context: Context, rng: Streams) -> Tensor:
        """A batch of draws (B, C, *grid)."""
        ...


def trajectory(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    context: Context,
    solver: Solver,
    rng: Streams | None = None,
) -> Iterator[Tensor]:
    """Yield x_s along decreasing ``times`` (N,), then the clean estimate at the last of them.

    ``x`` (B, C, *grid) is the field at ``times[0]``. The last yield is the draw.
    """
    solver.check(denoiser.process, times)
    state = History()
    for k, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        noise = None if rng is None else rng.at("step", k)
        x, state = solver.step(denoiser, x, t, s, context, state, noise)
        yield x
    yield denoiser(x, times[-1], context)


@dataclass(frozen=True)
class Diffusion:
    """A `Sampler`: noise at ``kappa_max``, ``steps`` times on a grid, a clean estimate.

    Parameters
    ----------
    denoiser : a prior or a guided denoiser.
    solver : see the table in `sciddm.solve`.
    steps : number of times on the grid; with the default solver also of network evaluations.
    kappa_max, kappa_min : ends of the grid, or None for those of the process' clock.
    grid : where the times lie between them.
    early : a Gaussian that stands for the model above a lower level, where the grid then starts, or
        None: the network from the start.
    """

    denoiser: Denoiser
    solver: Solver = field(default_factory=Multistep)
    steps: int = 32
    kappa_max: float | None = None
    kappa_min: float | None = None
    grid: Grid = field(default_factory=LogKappa)
    early: Early | None = None

    @property
    def evaluations(self) -> int:
        """Network evaluations a draw."""
        return self.solver.evaluations(self.steps)

    @property
    def highest(self) -> float | None:
        """Noise level where the grid starts, or None for that of the process' clock."""
        return self.kappa_max if self.early is None else self.early.kappa

    @property
    def times(self) -> Tensor:
        """The times on the grid (N,), falling."""
        return self.grid.times(self.denoiser.process, self.steps, self.highest, self.kappa_min)

    def start(self, shape: Sequence[int], context: Context, rng: Streams) -> tuple[Tensor, Tensor]:
        """The field (B, C, *grid) at the first of the times, and all times (N,)."""
        process, times = self.denoiser.process, self.times
        blank = torch.zeros(tuple(shape))
        if self.early is None:
            return process.start(blank, times[0], context.anchor, rng.at("start")), times
        first = process.times(2, self.kappa_max, self.kappa_min)[0]
        x = self.early.start(self.denoiser, blank, first, times[0], context.anchor, rng)
        return x, times

    @torch.no_grad()
    def __call__(self, shape: Sequence[int], context: Context, rng: Streams) -> Tensor:
        x, times = self.start(shape, context, rng)
        for x_s in trajectory(self.denoiser, x, times, context, self.solver, rng):
            x = x_s
        return x
