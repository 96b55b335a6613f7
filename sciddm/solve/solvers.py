"""Solvers: values that hold numbers and no model, each a few lines on the one kernel.

=========================  ==========  ===========  =============================================
solver                     order       evaluations  expect (guided, on an even grid in log kappa)
=========================  ==========  ===========  =============================================
`Euler(eta=0)`             1           1 a step     spread 0.83 of the exact one at 20 evaluations
`Euler(eta=1)`             1           1 a step     ancestral; narrower still, forgets its errors
`Heun`                     2           2 a step     breaks below 20 evaluations: 1.45
`Singlestep(n)`            n = 1 to 3  n a step     1.05; for long runs to a high order
`Multistep` (default)      2, or 1, 3  1 a step     1.03, and 1.03 at 10
`Adams(3)`, `Adams(4)`     3, 4        1 a step     0.99, 1.00; 0.92, 0.97 at 10
`Adams(corrector=n)`       up to n     1 a step     1.02; at 10 it magnifies a network's errors
`Adams(GaussianForm(b))`   points      1 a step     without guidance: exact where b is the law
`HeavyBall(dial)`          rounded up  1 a step     bounded under strong guidance, at low dials
=========================  ==========  ===========  =============================================

The figures are those of `benchmarks/limits.py`, Poisson inverse with the exact prior. Stochastic
solvers are in `sciddm.solve.stochastic`.

References
----------
Lu et al. DPM-Solver++. 2022, algorithm 2 (`Multistep`). https://arxiv.org/abs/2211.01095
Karras et al. 2022, algorithm 1 (`Heun`). https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser
from sciddm.errors import InputError
from sciddm.process import Process
from sciddm.random import Streams
from sciddm.solve.forms import (
    DataForm,
    Form,
    InKappa,
    InLogKappa,
    NoiseForm,
    Span,
    Variable,
    check_form,
    lagrange,
)
from sciddm.solve.kernel import transition


class History(NamedTuple):
    """What a multistep solver remembers, newest first: clean estimates, or what its form makes of
    them, and their times.

    ``kept`` is for what else a solver needs of its last step (the field it left, its noise).
    """

    x_hat: tuple[Tensor, ...] = ()
    t: tuple[Tensor, ...] = ()
    kept: tuple[Tensor, ...] = ()

    def push(self, x_hat: Tensor, t: Tensor, keep: int, kept: tuple[Tensor, ...] = ()) -> History:
        """With one more evaluation, of which ``keep`` are remembered."""
        return History((x_hat, *self.x_hat)[:keep], (t, *self.t)[:keep], kept)


class Solver(ABC):
    """``step`` moves a field from t to s < t. Holds numbers, never a model."""

    @abstractmethod
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
        """(x_s, state) from x_t (B, C, *grid); the first state is ``History()``."""

    def check(self, process: Process, times: Tensor) -> None:  # noqa: B027
        """Raise `InputError` where this solver cannot serve the process or the grid ``times``."""

    @abstractmethod
    def evaluations(self, steps: int) -> int:
        """Network evaluations on a grid of ``steps`` times, the last clean estimate included."""


@dataclass(frozen=True)
class Euler(Solver):
    """One kernel step; ``eta`` in [0, 1] from deterministic to ancestral."""

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise InputError(f"Got eta = {self.eta}; expected a number from 0 to 1.")

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
        x_hat = denoiser(x_t, t, context)
        x_s = transition(
            denoiser.process, x_t, x_hat, t, s, anchor=context.anchor, eta=self.eta, rng=rng
        )
        return x_s, state

    def evaluations(self, steps: int) -> int:
        return steps


@dataclass(frozen=True)
class Heun(Solver):
    """Second order: the trapezoid of the slopes at both ends of the step.

    With u = x / alpha the probability flow is du / d kappa = z_hat, so the default takes the mean
    of the noise estimates (Karras et al. 2022, algorithm 1, for any process);
    ``Heun(StraightForm(), InTime())`` is Heun in time on a `Flow` with `LinearSigma`.
    """

    form: Form = field(default_factory=NoiseForm)
    variable: Variable = field(default_factory=InKappa)

    def check(self, process: Process, times: Tensor) -> None:
        check_form(self.form, process, times)

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
        span = Span(process, self.variable, t, s)
        here = self.form.value(process, x_t, denoiser(x_t, t, context), t, m)
        guess = self.form.advance(x_t, span, (here,), lagrange(span, (t,)), m)
        there = self.form.value(process, guess, denoiser(guess, s, context), s, m)
        x_s = self.form.advance(x_t, span, (here, there), lagrange(span, (t, s)), m)
        return x_s, state

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1


@dataclass(frozen=True)
class Multistep(Solver):
    """DPM-Solver++ multistep, exponential in log kappa on the clean estimate: the default.

    Parameters
    ----------
    order : 1 to 3. At 2 the estimate is extrapolated linearly to the middle of the step, then one
        kernel step is taken (Lu et al. 2022, algorithm 2); 3 integrates the parabola through the
        last three.
    """

    order: int = 2

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise InputError(f"Got order {self.order}; expected 1, 2 or 3.")

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
        x_hat = denoiser(x_t, t, context)
        after = state.push(x_hat, t, keep=self.order - 1)
        if self.order == 3 and state.t:
            span, form = Span(process, InLogKappa(), t, s), DataForm()
            rule = lagrange(span, (t, *state.t))
            return form.advance(x_t, span, (x_hat, *state.x_hat), rule, m), after
        middle = x_hat
        if state.x_hat:
            now, before, end = (process.kappa(v).log() for v in (t, state.t[0], s))
            # a cell whose clock stood still carries no slope
            gap = torch.where(before == now, torch.ones_like(now), before - now)
            share = torch.where(before == now, torch.zeros_like(now), 0.5 * (now - end) / gap)
            middle = x_hat + share.to(x_hat) * (x_hat - state.x_hat[0])
        return transition(process, x_t, middle, t, s, anchor=m), after

    def evaluations(self, steps: int) -> int:
        return steps
