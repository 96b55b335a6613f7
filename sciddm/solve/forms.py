r"""Exponential integration: what is solved exactly, and what is taken for a polynomial.

With u = (x_t - beta m) / alpha the probability flow is du / d kappa = (u - x_hat) / kappa. A form
chooses a scale M(kappa), of which the exact solution is known where its value q vanishes, and

    u_s = M_s / M_t u_t + M_s \int_{kappa_s}^{kappa_t} q g d kappa,

where q is a polynomial in log kappa, in kappa or in the clock's time through the values at a few
nodes. All weights are integrals of that polynomial in float64.

==================  ==================  ==============================  ==========================
form                M                   q                               g
==================  ==================  ==============================  ==========================
`DataForm`          kappa               x_hat                           1 / kappa^2
`NoiseForm`         1                   (x_hat - u) / kappa = -z_hat    1
`StraightForm`      1 + kappa           x_hat - z_hat                   1 / (1 + kappa)^2
`RotationForm`      (1 + kappa^2)^.5    sigma x_hat - alpha z_hat       1 / (1 + kappa^2)
`GaussianForm`      (P + kappa^2 C)^.5  M (x_hat - base(x_t)) / kappa   1 / (P + kappa^2 C)
==================  ==================  ==============================  ==========================

The fourth, said for alpha = cos and sigma = sin, is exact for data of the law of the noise. The
last is per eigendirection of a Gaussian base N(mu, P): its own flow is exact in one step, and
the network's correction to it is integrated. Zero and infinite P give the first and the second.

References
----------
Lu et al. DPM-Solver. NeurIPS 2022, eq. 3.4 (noise). https://arxiv.org/abs/2206.00927
Lu et al. DPM-Solver++. 2022, eq. 8 (data). https://arxiv.org/abs/2211.01095
Zhang, Chen. Fast sampling of diffusion models with exponential integrator. ICLR 2023, eq. 15
(polynomials in time and in kappa). https://arxiv.org/abs/2204.13902
Zheng et al. DPM-Solver-v3. NeurIPS 2023, eq. 8-11 (statistics of the model take the place of the
fixed forms). https://arxiv.org/abs/2310.13268
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sciddm.denoise import Context, Gaussian
from sciddm.errors import InputError
from sciddm.process import Process, shift

Rule = Callable[[Tensor], Tensor]
"""The integrals of tau^i g (r, ...) -> the weights of the nodes (r, ...)."""

_ROOTS, _WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(32))


class Variable(ABC):
    """What a polynomial is in."""

    @abstractmethod
    def __call__(self, process: Process, kappa: Tensor) -> Tensor:
        """The variable at noise levels ``kappa``, of their shape, float64."""


@dataclass(frozen=True)
class InLogKappa(Variable):
    """log kappa, half the log-SNR with a minus sign."""

    def __call__(self, process: Process, kappa: Tensor) -> Tensor:
        return kappa.log()


@dataclass(frozen=True)
class InKappa(Variable):
    """kappa itself."""

    def __call__(self, process: Process, kappa: Tensor) -> Tensor:
        return kappa


@dataclass(frozen=True)
class InTime(Variable):
    """The time of the process' clock."""

    def __call__(self, process: Process, kappa: Tensor) -> Tensor:
        return process.clock.time(kappa)


@dataclass(frozen=True, eq=False)
class Span:
    """One step from t to s: its noise levels, and a variable tau that is 0 at t and 1 at s."""

    process: Process
    variable: Variable
    t: Tensor
    s: Tensor

    @property
    def levels(self) -> tuple[Tensor, Tensor]:
        """kappa at t and at s."""
        return self.process.kappa(self.t), self.process.kappa(self.s)

    def tau(self, kappa: Tensor) -> Tensor:
        """The variable at levels ``kappa``; 0 in a cell whose clock stands still."""
        start, end = (self.variable(self.process, k) for k in self.levels)
        still = start == end
        length = torch.where(still, torch.ones_like(start), end - start)
        gap = self.variable(self.process, kappa) - start
        return torch.where(still, torch.zeros_like(gap), gap) / length

    def integrals(self, count: int, weight: Callable[[Tensor], Tensor], extra: int = 0) -> Tensor:
        r"""\int tau^i weight d kappa from kappa_s to kappa_t for i < ``count``: (count, ...).

        ``weight`` maps levels (Q, ...) to (Q, ...); ``extra`` axes that it adds at the end.
        """
        high, low = (k.log() for k in self.levels)
        half = 0.5 * (high - low)
        nodes = (half * _column(_ROOTS, half) + 0.5 * (high + low)).exp()
        measure = nodes * half * _column(_WEIGHTS, half)
        tau = self.tau(nodes)
        ends = (1,) * extra
        nodes, measure, tau = (v.reshape(*v.shape, *ends) for v in (nodes, measure, tau))
        inner = measure * weight(nodes)
        return torch.stack([(tau**i * inner).sum(0) for i in range(count)])


class Form(ABC):
    """See the table in `sciddm.solve.forms`."""

    @abstractmethod
    def value(
        self, process: Process, x: Tensor, x_hat: Tensor, t: Tensor, anchor: Tensor | None
    ) -> Tensor:
        """q (B, C, *grid) at a field ``x`` with clean estimate ``x_hat``."""

    @abstractmethod
    def advance(
        self, x_t: Tensor, span: Span, values: Sequence[Tensor], rule: Rule, anchor: Tensor | None
    ) -> Tensor:
        """x_s, from x_t and the values q at the nodes that ``rule`` is for."""


class ScalarForm(Form):
    """A form that treats all values of a field alike, so it serves every process."""

    @abstractmethod
    def scale(self, kappa: Tensor) -> Tensor:
        """M at levels ``kappa``."""

    @abstractmethod
    def weight(self, kappa: Tensor) -> Tensor:
        """g at levels ``kappa``."""

    def advance(
        self, x_t: Tensor, span: Span, values: Sequence[Tensor], rule: Rule, anchor: Tensor | None
    ) -> Tensor:
        start, end = (self.scale(k) for k in span.levels)
        weights = end * rule(span.integrals(len(values), self.weight))
        u = (end / start).to(x_t) * span.process.centred(x_t, span.t, anchor)
        for w, value in zip(weights, values, strict=True):
            u = u + w.to(x_t) * value
        alpha, beta, _ = (c.to(x_t) for c in span.process.coefficients(span.s))
        return shift(alpha * u, beta, anchor)


@dataclass(frozen=True)
class DataForm(ScalarForm):
    """The clean estimate: DPM-Solver++."""

    def value(
        self, process: Process, x: Tensor, x_hat: Tensor, t: Tensor, anchor: Tensor | None
    ) -> Tensor:
        return x_hat

    def scale(self, kappa: Tensor) -> Tensor:
        return kappa

    def weight(self, kappa: Tensor) -> Tensor:
        return kappa**-2


@dataclass(frozen=True)
class NoiseForm(ScalarForm):
    """The noise that remains: DPM-Solver, DEIS."""

    def value(
        self, process: Process, x: Tensor, x_hat: Tensor, t: Tensor, anchor: Tensor | None
    ) -> Tensor:
        return -process.residual(x, x_hat, t, anchor)

    def scale(self, kappa: Tensor) -> Tensor:
        return torch.ones_like(kappa)

    def weight(self, kappa: Tensor) -> Tensor:
        return torch.ones_like(kappa)


@dataclass(frozen=True)
class StraightForm(ScalarForm):
    """The velocity of the straight line from noise to data, for any process."""

    def value(
        self, process: Process, x: Tensor, x_hat: Tensor, t: Tensor, anchor: Tensor | None
    ) -> Tensor:
        return x_hat - process.residual(x, x_hat, t, anchor)

    def scale(self, kappa: Tensor) -> Tensor:
        return 1 + kappa

    def weight(self, kappa: Tensor) -> Tensor:
        return (1 + kappa) ** -2


@dataclass(frozen=True)
class RotationForm(ScalarForm):
    """The velocity on the circle alpha = cos, sigma = sin, for any process: the part of the answer
    that data N(0, C) do not have, for which a step of any length is exact."""

    def value(
        self, process: Process, x: Tensor, x_hat: Tensor, t: Tensor, anchor: Tensor | None
    ) -> Tensor:
        kappa = process.kappa(t)
        alpha = torch.rsqrt(1 + kappa**2)
        z_hat = process.residual(x, x_hat, t, anchor)
        return (kappa * alpha).to(x) * x_hat - alpha.to(x) * z_hat

    def scale(self, kappa: Tensor) -> Tensor:
        return torch.sqrt(1 + kappa**2)

    def weight(self, kappa: Tensor) -> Tensor:
        return 1 / (1 + kappa**2)


@dataclass(frozen=True, eq=False)
class GaussianForm(Form):
    """The correction to a Gaussian base, whose own flow is exact: DPM-Solver-v3.

    Parameters
    ----------
    base : statistics of the data, under any process with the eigenvectors of the sampled one's
        noise. With the data's own law every step is exact, of any length.
    """

    base: Gaussian

    def value(
        self, process: Process, x: Tensor, x_hat: Tensor, t: Tensor, anchor: Tensor | None
    ) -> Tensor:
        base, kappa = self.base.under(process), process.kappa(t)
        known = base(x, t, Context(anchor=anchor))
        return base.prior.joint(
            x_hat - known, process.noise, lambda p, c: torch.sqrt(p + kappa**2 * c) / kappa
        )

    def advance(
        self, x_t: Tensor, span: Span, values: Sequence[Tensor], rule: Rule, anchor: Tensor | None
    ) -> Tensor:
        process, (_, end) = span.process, span.levels
        base = self.base.under(process)
        x = base.flow(x_t, span.t, span.s, anchor)

        def weight(node: int) -> Callable[[Tensor, Tensor], Tensor]:
            def f(p: Tensor, c: Tensor) -> Tensor:
                p, c = p.cpu(), c.cpu()  # the weights are small and made beside the times
                inner = span.integrals(
                    len(values), lambda k: 1 / (p + k**2 * c), extra=max(p.ndim, c.ndim)
                )
                return torch.sqrt(p + end**2 * c) * rule(inner)[node]

            return f

        alpha = process.coefficients(span.s)[0].to(x_t)
        for node, value in enumerate(values):
            x = x + alpha * base.prior.joint(value, process.noise, weight(node))
        return x


def check_form(form: Form, process: Process, times: Tensor) -> None:
    """Raise `InputError` where ``form`` cannot serve ``process``."""
    if isinstance(form, GaussianForm) and process.kappa(times[0]).numel() > 1:
        raise InputError(
            "Got a process with a clock per cell for a GaussianForm; its flow needs one noise "
            "level. Use NoiseForm, DataForm, StraightForm or RotationForm."
        )


def lagrange(span: Span, nodes: Sequence[Tensor]) -> Rule:
    """The rule of the polynomial through values at times ``nodes``, newest first."""
    tau = torch.stack([span.tau(span.process.kappa(v)) for v in nodes])
    return matched(torch.stack([tau**i for i in range(len(nodes))]))


def matched(moments: Tensor) -> Rule:
    """Weights w with sum_j moments[i, j] w_j = integral_i; ``moments`` (r, r, *cells).

    moments[i, j] is what value j reports of the function tau^i. In a cell whose clock stood still
    two values stand at one place, and only as many of the newest are used as differ.
    """

    def rule(integrals: Tensor) -> Tensor:
        count, cells = len(moments), moments.shape[2:]
        if count == 1:
            return integrals
        if moments[0, 0].numel() == 1:
            flat = torch.linalg.solve(moments.reshape(count, count), integrals.reshape(count, -1))
            return flat.view_as(integrals)
        table = moments.reshape(count, count, -1).permute(2, 0, 1)
        wanted = integrals.reshape(count, -1).T
        weights = torch.zeros_like(wanted)
        for k in range(1, count + 1):
            places = table[:, 1, :k]
            gap = (places[:, :, None] - places[:, None, :]).abs() + torch.eye(k).to(places)
            good = (gap > 0).flatten(1).all(1)
            some = torch.linalg.solve(table[good][:, :k, :k], wanted[good, :k])
            weights[good] = torch.nn.functional.pad(some, (0, count - k))
        return weights.T.reshape(count, *cells)

    return rule


def _column(v: Tensor, like: Tensor) -> Tensor:
    return v.to(like).reshape(-1, *(1,) * like.ndim)
