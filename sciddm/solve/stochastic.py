r"""Stochastic multistep solvers: how much noise returns is a dial, set apart from the steps.

`StochasticAdams` (SA-Solver) solves the reverse law whose noise is set by tau(kappa): 0 is the
probability flow, 1 the reverse diffusion. `ExtendedReverse` (ER-SDE-Solver) is its twin with a free
noise function phi(kappa), over one step

    u_s = (phi_s / phi_t) u_t + phi_s \int x_hat(kappa) d(1 / phi)
          + sqrt(kappa_s^2 - kappa_t^2 (phi_s / phi_t)^2) z,

phi = kappa the probability flow, kappa^2 the reverse diffusion, kappa^(1 + tau^2) that of tau.

All stochastic solvers, with W2 to the exact law of a smooth 32 x 32 field (white noise, kappa 152
to 0.01 of VP, even in log kappa) in per cent, as `benchmarks/limits.py` prints it:

=======================  ==========  ===========  ==============  ================================
solver                   weak order  evaluations  W2 at 10, 20,   expect
                                     a step       50 evaluations
=======================  ==========  ===========  ==============  ================================
`Euler(eta=1)`           1           1            36, 21, 9.0     too narrow below 200
`StochasticAdams()`      2           1            28, 2.4, 0.42   too wide below 20
`ExtendedReverse()`      2           1            13, 1.7, 0.40   the steadiest at few evaluations
`Langevin(Euler())`      1 to 2      2            44, 22, 8.5     keeps the law at every level
`Matched()`              exact       1            all 0.39        needs Cov[X | x_t]; no step error
`Restart(Multistep())`   2           by rounds    -               forgets errors made above it
`Adaptive()`             2           2 and more   -               2.7 times fewer than ancestral
=======================  ==========  ===========  ==============  ================================

0.39 is what the two ends of this range leave.

References
----------
Xue et al. SA-Solver: stochastic Adams solver for fast sampling of diffusion models. NeurIPS 2023,
algorithm 1. https://arxiv.org/abs/2309.05019
Cui, Zhang, Wang, Wang, Li. Elucidating the solution space of extended reverse-time SDE for
diffusion models. 2023, eq. 15-21 and algorithms 1-3. https://arxiv.org/abs/2309.06169
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser
from sciddm.errors import InputError
from sciddm.random import Streams
from sciddm.solve.integrals import adams, integral, land
from sciddm.solve.solvers import History, Solver


class Dial(ABC):
    """How much noise returns in a step that starts at noise level kappa."""

    @abstractmethod
    def tau(self, kappa: Tensor) -> Tensor:
        """tau >= 0 at ``kappa``, of its shape, float64."""


@dataclass(frozen=True)
class Constant(Dial):
    """The same ``level`` of tau everywhere: 0 the probability flow, 1 the reverse diffusion."""

    level: float = 1.0

    def __post_init__(self) -> None:
        _dial(self.level)

    def tau(self, kappa: Tensor) -> Tensor:
        return torch.full_like(kappa, self.level)


@dataclass(frozen=True)
class Band(Dial):
    """tau = ``level`` for steps that start with low <= kappa <= high, no noise elsewhere.

    Noise forgets errors where the data have structure; above and below it only costs accuracy.
    """

    low: float = 0.05
    high: float = 1.0
    level: float = 1.0

    def __post_init__(self) -> None:
        _dial(self.level)
        if not 0 <= self.low < self.high < math.inf:
            raise InputError(
                f"Got noise levels from {self.low} to {self.high}; expected 0 <= low < high, "
                "both finite."
            )

    def tau(self, kappa: Tensor) -> Tensor:
        inside = (kappa >= self.low) & (kappa <= self.high)
        return torch.where(inside, torch.full_like(kappa, self.level), torch.zeros_like(kappa))


@dataclass(frozen=True)
class StochasticAdams(Solver):
    """SA-Solver: an Adams predictor and corrector in log kappa, one evaluation a step.

    The clean estimate at the predicted field corrects that field, with the noise of its step, and
    then predicts the next (predict, evaluate, correct). The first steps use the points there are.

    Parameters
    ----------
    predictor : clean estimates that the predictor uses, 1 to 4.
    corrector : past clean estimates that the corrector uses beside the new one, 1 to 4; 0 for no
        corrector.
    dial : tau at each noise level.
    """

    predictor: int = 3
    corrector: int = 3
    dial: Dial = field(default_factory=Constant)

    def __post_init__(self) -> None:
        _points("predictor", self.predictor, 1)
        _points("corrector", self.corrector, 0)

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
        values, times = (x_hat, *state.x_hat), (t, *state.t)
        if state.kept and self.corrector:
            before, *noise = state.kept
            start = state.t[0]
            tau = self.dial.tau(process.kappa(start))
            count = self.corrector + 1
            z = noise[0] if noise else None
            x_t = adams(process, before, start, t, values[:count], times[:count], tau, z, m)
        tau = self.dial.tau(process.kappa(t))
        fresh = (process.noise.sample(x_t, rng),) if bool((tau > 0).any()) else ()
        count = self.predictor
        z = fresh[0] if fresh else None
        x_s = adams(process, x_t, t, s, values[:count], times[:count], tau, z, m)
        keep = max(self.predictor - 1, self.corrector, 1)
        return x_s, state.push(x_hat, t, keep=keep, kept=(x_t, *fresh))

    def evaluations(self, steps: int) -> int:
        return steps


class NoiseFunction(ABC):
    """phi(kappa), positive; phi / kappa must not fall, or less than no noise would return."""

    @abstractmethod
    def log(self, kappa: Tensor) -> Tensor:
        """log phi at ``kappa``, of its shape, float64."""


@dataclass(frozen=True)
class Power(NoiseFunction):
    """phi = kappa^exponent: 1 the probability flow, 2 the reverse diffusion."""

    exponent: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.exponent < math.inf:
            raise InputError(
                f"Got exponent = {self.exponent}; expected 1 (no noise) or more, finite."
            )

    def log(self, kappa: Tensor) -> Tensor:
        return self.exponent * kappa.log()


@dataclass(frozen=True)
class Stretched(NoiseFunction):
    """phi = kappa (e^(kappa^power) + offset): noise at high levels alone. Cui et al. 2023, the
    recommended member (power 0.3, offset 10)."""

    power: float = 0.3
    offset: float = 10.0

    def __post_init__(self) -> None:
        if not (0 < self.power < math.inf and 0 <= self.offset < math.inf):
            raise InputError(
                f"Got power = {self.power}, offset = {self.offset}; expected power > 0 and "
                "offset >= 0, both finite."
            )

    def log(self, kappa: Tensor) -> Tensor:
        offset = torch.tensor(self.offset, dtype=torch.float64).log().to(kappa)
        return kappa.log() + torch.logaddexp(kappa**self.power, offset)


@dataclass(frozen=True)
class ExtendedReverse(Solver):
    """ER-SDE-Solver: a free noise function, clean estimates interpolated in kappa.

    Parameters
    ----------
    order : clean estimates used, 1 to 3; order 1 with `Power` (1) is DDIM, with `Power` (2) the
        ancestral step.
    phi : the noise function.
    """

    order: int = 3
    phi: NoiseFunction = field(default_factory=Stretched)

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise InputError(f"Got order = {self.order}; expected 1, 2 or 3.")

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
        process = denoiser.process
        x_hat = denoiser(x_t, t, context)
        values, times = (x_hat, *state.x_hat), (t, *state.t)
        k_t, k_s = process.kappa(t), process.kappa(s)
        fall = self.phi.log(k_t) - self.phi.log(k_s)
        width = (k_t / k_s).log()
        forget = fall - width
        if not bool((forget >= -1e-9 * (1 + width)).all()):
            raise InputError(
                f"Got a noise function {self.phi} that falls against kappa from "
                f"{float(k_t.max()):g} to {float(k_s.min()):g}; expected phi / kappa to rise with "
                "kappa. Power(1) is the least noise."
            )
        forget = torch.where(forget > 1e-12 * (1 + width), forget, torch.zeros_like(forget))
        nodes = [process.kappa(v) - k_t for v in times]
        weight = self._moments(k_t, k_s, len(nodes))
        mean = integral(values, nodes, weight)
        z = process.noise.sample(x_t, rng) if bool((forget > 0).any()) else None
        x_s = land(process, x_t, t, s, torch.exp(-fall), mean, forget, z, context.anchor)
        return x_s, state.push(x_hat, t, keep=self.order - 1)

    def _moments(self, k_t: Tensor, k_s: Tensor, count: int) -> list[Tensor]:
        """phi_s \\int (kappa - kappa_t)^j d(1 / phi) over the step, for j < count.

        By parts, then a Gauss rule in log kappa.
        """
        end = self.phi.log(k_s)
        found = [-torch.expm1(end - self.phi.log(k_t))]
        if count == 1:
            return found
        width = (k_t / k_s).log()
        rule = np.polynomial.legendre.leggauss(NODES)
        p, w = (torch.as_tensor(v).view(-1, *[1] * k_t.ndim) for v in rule)
        kappa = k_s * torch.exp(0.5 * width * (1 + p))
        share = 0.5 * w * width * kappa * torch.exp(end - self.phi.log(kappa))
        for j in range(1, count):
            rest = (share * j * (kappa - k_t) ** (j - 1)).sum(0)
            found.append((k_s - k_t) ** j + rest)
        return found

    def evaluations(self, steps: int) -> int:
        return steps


NODES = 32
"""Points of the Gauss rule for the integrals of a noise function."""


def _dial(tau: float) -> None:
    if not 0 <= tau < math.inf:
        raise InputError(
            f"Got tau = {tau}; expected 0 (no noise) or more, finite; 1 is the reverse diffusion."
        )


def _points(name: str, count: int, least: int) -> None:
    if count not in range(least, 5):
        raise InputError(f"Got {count} {name} points; expected {least} to 4.")
