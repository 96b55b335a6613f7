r"""Restart: go back up in noise by the forward law, and come down again.

From x_low at kappa_low,   u_high = u_low + sqrt(kappa_high^2 - kappa_low^2) z,   z ~ N(0, C),

which is the forward law exactly, then a descent by the wrapped solver. The noise forgets errors
made above the interval, the descents stay as accurate as the solver. For a Gaussian of variance p
a round brings two fields closer by sqrt((p + kappa_low^2 c) / (p + kappa_high^2 c)) in each
direction.

References
----------
Xu, Deng, Cheng, Tian, Liu, Jaakkola. Restart sampling for improving generative processes. NeurIPS
2023, algorithm 1 and theorem 1. https://arxiv.org/abs/2306.14878
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser
from sciddm.errors import InputError
from sciddm.process import Process, shift
from sciddm.random import Streams
from sciddm.solve.address import below
from sciddm.solve.solvers import History, Multistep, Solver


@dataclass(frozen=True)
class Restart(Solver):
    """``rounds`` jumps from ``low`` back to ``high`` and down again, round any solver.

    The jumps are made once, at the first time of the grid whose noise level is at or below ``low``,
    and come back to that level. No round is the wrapped solver to the bit.

    Parameters
    ----------
    solver : descends, before and between the jumps.
    low, high : noise levels kappa of the interval. rounds : jumps. steps : steps of each descent,
        even in log kappa.
    """

    solver: Solver = field(default_factory=Multistep)
    low: float = 0.1
    high: float = 2.0
    rounds: int = 2
    steps: int = 6

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise InputError(
                f"Got an interval of noise levels from {self.low} to {self.high}; expected "
                "0 < low < high, both finite."
            )
        if self.rounds < 0 or self.steps < 1:
            raise InputError(
                f"Got {self.rounds} rounds of {self.steps} steps; expected at least 0 and 1."
            )

    def check(self, process: Process, times: Tensor) -> None:
        one_clock(process, times, type(self).__name__)
        first, last = (float(process.kappa(t)) for t in (times[0], times[-1]))
        if not last <= self.low * SLACK or not self.high <= first * SLACK:
            raise InputError(
                f"Got a restart from kappa {self.low:g} to {self.high:g} on a grid from {first:g} "
                f"to {last:g}; expected an interval inside the grid."
            )
        self.solver.check(process, times)

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        context: Context,
        state: History,
        rng: Streams | None,
    ) -> tuple[Tensor, History]:
        process, m = denoiser.process, context.anchor
        x_s, state = self.solver.step(denoiser, x_t, t, s, context, state, rng)
        end = float(process.kappa(s))
        if not end <= self.low * SLACK < float(process.kappa(t)):
            return x_s, state
        times = process.times(self.steps + 1, self.high, end)
        times = torch.cat([times[:-1], s.reshape(1)])
        for j in range(self.rounds):
            x = rise(process, x_s, s, times[0], m, below(rng, "restart", j))
            state = History()
            for k, (above, under) in enumerate(zip(times[:-1], times[1:], strict=True)):
                noise = below(rng, f"descent {j}", k)
                x, state = self.solver.step(denoiser, x, above, under, context, state, noise)
            x_s = x
        return x_s, state

    def evaluations(self, steps: int) -> int:
        descent = self.solver.evaluations(self.steps + 1) - 1
        return self.solver.evaluations(steps) + self.rounds * descent


def rise(
    process: Process,
    x_s: Tensor,
    s: Tensor,
    t: Tensor,
    anchor: Tensor | None,
    rng: Streams | None,
) -> Tensor:
    """x_t given x_s by the forward law, for t > s."""
    scale, pull, std = (c.to(x_s) for c in process.between(s, t))
    return shift(scale * x_s + std * process.noise.sample(x_s, rng), pull, anchor)


def one_clock(process: Process, times: Tensor, name: str) -> None:
    """Raise `InputError` for a process with a clock per frame or cell."""
    if process.kappa(times[0]).numel() != 1:
        raise InputError(
            f"Got a process with a clock per frame or cell for {name}; expected one with a single "
            "clock (VE, VP, Flow, ...). Multistep and StochasticAdams serve all."
        )


SLACK = 1 + 1e-9
"""Noise levels this close are the same."""
