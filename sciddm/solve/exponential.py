r"""Exponential multistep solvers: one evaluation a step, any order, three kinds of memory.

`Adams` integrates the polynomial through its last values exactly (see `sciddm.solve.forms`). With
``NoiseForm()`` and the variable kappa, log kappa or time it is DEIS (rho-AB, log-rho AB, t-AB) and
DPM-Solver multistep; with ``DataForm()`` DPM-Solver++ multistep; with ``GaussianForm(base)``
DPM-Solver-v3. A ``corrector`` replaces the step that led here by the implicit one, whose value is
the evaluation that the next step needs anyway (UniC, Adams-Moulton as PEC).

`HeavyBall` integrates through values with momentum, v_n = (1 - b) v_{n-1} + b q_n. Such a mean
knows the function at a mean place, so the weights are those for which polynomials come out exact.

References
----------
Zhang, Chen. Fast sampling of diffusion models with exponential integrator. ICLR 2023, eq. 14-15.
https://arxiv.org/abs/2204.13902
Zhao et al. UniPC. NeurIPS 2023, algorithm 1-2. https://arxiv.org/abs/2302.04867
Wizadwongsa et al. Diffusion sampling with momentum for mitigating divergence artifacts. ICLR 2024,
section 4 (even steps; here any steps). https://arxiv.org/abs/2307.11118
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser
from sciddm.errors import InputError
from sciddm.process import Process
from sciddm.random import Streams
from sciddm.solve.forms import (
    Form,
    InLogKappa,
    NoiseForm,
    Rule,
    Span,
    Variable,
    check_form,
    lagrange,
    matched,
)
from sciddm.solve.solvers import History, Solver


@dataclass(frozen=True)
class Adams(Solver):
    """Exponential Adams-Bashforth of order ``points``.

    Parameters
    ----------
    points : values that the polynomial goes through, 1 to 4; the first steps have fewer.
    variable : what the polynomial is in.
    form : what is solved exactly and what is a polynomial.
    corrector : values of the corrector, the one at its own end included: 2 to 4, or 0 for none.
        The order is min(points + 1, corrector) with one.
    """

    points: int = 3
    variable: Variable = field(default_factory=InLogKappa)
    form: Form = field(default_factory=NoiseForm)
    corrector: int = 0

    def __post_init__(self) -> None:
        if self.points not in range(1, 5):
            raise InputError(f"Got {self.points} points; expected 1 to 4 (2 or 3 serve best).")
        if self.corrector not in (0, 2, 3, 4):
            raise InputError(
                f"Got a corrector of {self.corrector} values; expected 2 to 4, or 0 for none."
            )

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
        value = self.form.value(process, x_t, denoiser(x_t, t, context), t, m)
        values, nodes = (value, *state.x_hat), (t, *state.t)

        def advance(x: Tensor, start: Tensor, end: Tensor, count: int) -> Tensor:
            span = Span(process, self.variable, start, end)
            rule = lagrange(span, nodes[:count])
            return self.form.advance(x, span, values[:count], rule, m)

        if self.corrector and state.kept:
            x_t = advance(state.kept[0], state.t[0], t, self.corrector)
        x_s = advance(x_t, t, s, self.points)
        keep = max(self.points, self.corrector) - 1
        return x_s, state.push(value, t, keep, (x_t,) if self.corrector else ())

    def evaluations(self, steps: int) -> int:
        return steps


@dataclass(frozen=True)
class HeavyBall(Solver):
    """Generalised heavy ball: an Adams solver with momentum, for stiff guidance at few steps.

    Parameters
    ----------
    order : the dial, above 0 up to 3. A whole number n is ``Adams(n)``; between n - 1 and n the
        error has order n with a constant that grows as the dial falls, and the region of stability
        grows towards that of ``Adams(n - 1)``. Up to 1: Polyak on Euler.
    variable, form : as of `Adams`.
    """

    order: float = 1.5
    variable: Variable = field(default_factory=InLogKappa)
    form: Form = field(default_factory=NoiseForm)

    def __post_init__(self) -> None:
        if not 0 < self.order <= 3:
            raise InputError(f"Got order {self.order}; expected a number above 0, up to 3.")

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
        count = math.ceil(self.order)
        share = self.order - (count - 1)
        value = self.form.value(process, x_t, denoiser(x_t, t, context), t, m)
        if state.x_hat:
            value = torch.lerp(state.x_hat[0], value, share)
        values, times = (value, *state.x_hat)[:count], (t, *state.t)
        span = Span(process, self.variable, t, s)
        rule = _averaged(span, times, share, len(values))
        x_s = self.form.advance(x_t, span, values, rule, m)
        return x_s, History((value, *state.x_hat)[: max(count - 1, 1)], times)

    def evaluations(self, steps: int) -> int:
        return steps


def _averaged(span: Span, times: tuple[Tensor, ...], share: float, count: int) -> Rule:
    """The rule for the ``count`` newest running means over values at ``times``, newest first."""
    extra = span.levels[0].ndim - span.t.ndim
    tau = span.tau(span.process.kappa(torch.stack(times).reshape(-1, *(1,) * extra, *span.t.shape)))
    # the oldest value is the mean before the second: it has no share of its own
    shares = share * (1 - share) ** torch.arange(len(times), dtype=torch.float64)
    moments = []
    for age in range(count):
        weights = torch.cat([torch.zeros(age, dtype=torch.float64), shares[: len(times) - age]])
        weights[-1] = (1 - share) ** (len(times) - 1 - age)
        moments.append(
            torch.stack([torch.tensordot(weights, tau**i, dims=1) for i in range(count)])
        )
    return matched(torch.stack(moments, dim=1))
