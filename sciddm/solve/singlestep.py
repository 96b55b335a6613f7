"""Exponential Runge-Kutta solvers: several evaluations a step, no memory of the steps before.

References
----------
Lu et al. DPM-Solver. NeurIPS 2022, algorithms 1-2 (``NoiseForm``). https://arxiv.org/abs/2206.00927
Lu et al. DPM-Solver++. 2022, algorithm 1 (``DataForm``). https://arxiv.org/abs/2211.01095
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser
from sciddm.errors import InputError
from sciddm.process import Process
from sciddm.random import Streams
from sciddm.solve.forms import Form, InLogKappa, NoiseForm, Span, check_form, lagrange
from sciddm.solve.solvers import History, Solver


@dataclass(frozen=True)
class Singlestep(Solver):
    """DPM-Solver of order 1 to 3: inner evaluations at the middle, or at both thirds, of the step
    in log kappa.

    Parameters
    ----------
    order : 1 to 3, which is also the number of evaluations a step.
    form : ``NoiseForm()`` for DPM-Solver, ``DataForm()`` for DPM-Solver++.
    """

    order: int = 2
    form: Form = field(default_factory=NoiseForm)

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise InputError(f"Got order {self.order}; expected 1, 2 or 3.")

    def check(self, process: Process, times: Tensor) -> None:
        check_form(self.form, process, times)
        if process.kappa(times[0]).numel() > 1:
            raise InputError(
                "Got a process with a clock per cell; inner evaluations need one noise level. "
                "Use Multistep, Adams or Heun."
            )

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
        high, low = (process.kappa(v).log() for v in (t, s))
        nodes = [
            process.clock.time(torch.lerp(high, low, k / self.order).exp())
            for k in range(1, self.order)
        ]
        values = [self.form.value(process, x_t, denoiser(x_t, t, context), t, m)]
        known = [t]
        for end in (*nodes, s):
            # the third order leaves its first inner value out at the end
            use = [0, -1] if end is s and self.order == 3 else list(range(len(known)))
            span = Span(process, InLogKappa(), t, end)
            rule = lagrange(span, [known[k] for k in use])
            x = self.form.advance(x_t, span, [values[k] for k in use], rule, m)
            if end is not s:
                values.append(self.form.value(process, x, denoiser(x, end, context), end, m))
                known.append(end)
        return x, state

    def evaluations(self, steps: int) -> int:
        return self.order * (steps - 1) + 1
