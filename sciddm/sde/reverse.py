r"""The reverse diffusion as a stochastic equation of its own, integrated by torchsde.

With the forward equation dX = (a X + b M) dt + g dW_C and C grad log p = -z_hat / sigma, the time
run backwards from noise to data, r = -t, gives

    dX = [-(a X + b M) - (1 + eta^2) / 2 * g^2 z_hat / sigma] dr + eta g dW_C,

whose law at every time is that of the process whatever eta: 0 the probability flow, 1 the reverse
diffusion. The independent variable here counts steps, even in log kappa.

torchsde wants fields as rows, increasing times, and a Brownian path. Its own path repeats only by
one entropy for the whole batch; `Path` draws every increment from the address of its row, so a
member is the same in any batch.

References
----------
Anderson. Reverse-time diffusion equation models. Stochastic Processes and their Applications 1982.
Song et al. Score-based generative modeling through stochastic differential equations. ICLR 2021,
eq. 6. https://arxiv.org/abs/2011.13456
Li, Wong, Chen, Duvenaud. Scalable gradients for stochastic differential equations. AISTATS 2020
(torchsde). https://arxiv.org/abs/2001.01328
Roessler. Runge-Kutta methods for the strong approximation of solutions of stochastic differential
equations. SINUM 2010 (`Scheme.SRK`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
import torchsde
from torch import Tensor, nn

from sciddm.denoise import Context, Denoiser
from sciddm.errors import InputError
from sciddm.random import Streams, normal


class Scheme(Enum):
    """Of torchsde, those that suit additive noise."""

    EULER = "euler"
    """Euler-Maruyama: weak order 1, one evaluation a step."""
    SRK = "srk"
    """Roessler's stochastic Runge-Kutta for additive noise: weak order 2, two evaluations."""

    @property
    def evaluations(self) -> int:
        """Network evaluations a step."""
        return 2 if self is Scheme.SRK else 1


class Reverse(nn.Module):
    """Drift and noise of the reverse equation, in torchsde's terms: Ito, additive noise.

    Parameters
    ----------
    denoiser : a prior or a guided denoiser, on a process with one clock. context : what is given.
    shape : (C, *grid), the shape of one field; a state is (B, D) with D its size.
    log_kappa : (first, last), the noise levels at times 0 and ``steps``.
    steps : the duration. eta : 0 for the probability flow, 1 for the reverse diffusion.
    """

    sde_type: ClassVar[str] = "ito"
    noise_type: ClassVar[str] = "additive"

    def __init__(
        self,
        denoiser: Denoiser,
        context: Context,
        shape: Sequence[int],
        log_kappa: tuple[float, float],
        steps: int,
        eta: float = 1.0,
    ) -> None:
        if not (eta >= 0 and math.isfinite(eta)):
            raise InputError(f"Got eta = {eta}; expected 0 (no noise) or more, finite.")
        if steps < 1 or not log_kappa[1] < log_kappa[0]:
            raise InputError(
                f"Got {steps} steps from log kappa {log_kappa[0]:g} to {log_kappa[1]:g}; expected "
                "at least 1, downwards."
            )
        super().__init__()
        self.denoiser, self.process, self.context = denoiser, denoiser.process, context
        self.shape, self.log_kappa = tuple(shape), log_kappa
        self.steps, self.eta = steps, eta
        self._last: tuple[float, Tensor, Tensor] | None = None
        self._known: dict[float, tuple[Tensor, ...]] = {}
        if self.process.kappa(torch.tensor(0.5, dtype=torch.float64)).numel() != 1:
            raise InputError(
                "Got a process with a clock per frame or cell; expected one with a single clock. "
                "solve.Multistep serves it."
            )

    def rates(self, r: Tensor | float) -> tuple[Tensor, ...]:
        """(t, drift, pull, diffusion, sigma) after ``r`` steps, rates a step, float64 scalars."""
        key = float(r)
        if key not in self._known:
            first, last = self.log_kappa
            speed = (last - first) / self.steps
            log_kappa = torch.as_tensor(first + speed * key, dtype=torch.float64)
            clock = self.process.clock
            both = torch.func.jvp(
                lambda v: clock.time(v.exp()), (log_kappa,), (torch.ones_like(log_kappa),)
            )
            t, pace = both[0].clamp(0, 1), -speed * both[1]
            drift, pull, diffusion = self.process.rates(t)
            sigma = self.process.coefficients(t)[2]
            self._known[key] = (t, drift * pace, pull * pace, diffusion * pace.sqrt(), sigma)
        return self._known[key]

    def f(self, r: Tensor, y: Tensor) -> Tensor:
        """Drift (B, D) of ``y`` (B, D) after ``r`` steps."""
        if self._last is not None and self._last[0] == float(r) and self._last[1] is y:
            return self._last[2]  # torchsde asks twice
        x, m = y.view(-1, *self.shape), self.context.anchor
        t, drift, pull, diffusion, sigma = self.rates(r)
        z_hat = self.process.residual(x, self.denoiser(x, t, self.context), t, m)
        weight = 0.5 * (1 + self.eta**2) * diffusion**2 / sigma
        rate = -drift.to(x) * x - weight.to(x) * z_hat
        if m is not None:
            rate = rate - pull.to(x) * m
        self._last = float(r), y, rate.flatten(1)
        return self._last[2]

    def g_prod(self, r: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """The noise (B, D) that white increments ``v`` (B, D) make."""
        w = self.process.noise.sqrt(v.view(-1, *self.shape))
        return ((self.eta * self.rates(r)[3]).to(w) * w).flatten(1)


class Path(torchsde.BaseBrownian):
    """White increments over whole steps [k, k + 1], drawn from the address of every row.

    Parameters
    ----------
    like : (B, C, *grid). rng : addressed noise, or None for torch's own.
    """

    def __init__(self, like: Tensor, rng: Streams | None) -> None:
        self._like, self._rng = like, rng

    def __call__(
        self,
        ta: Tensor | float,
        tb: Tensor | float | None = None,
        return_U: bool = False,  # noqa: N803
        return_A: bool = False,  # noqa: N803
    ) -> Tensor | tuple[Tensor, Tensor]:
        """W(tb) - W(ta), with ``return_U`` also the integral of W - W(ta); (B, D) each."""
        if tb is None or return_A or float(ta) % 1 or float(tb) != float(ta) + 1:
            raise InputError(
                f"Got an increment from {ta} to {tb}; expected one whole step. A scheme that "
                "chooses its own steps needs torchsde.BrownianInterval (or use solve.Adaptive)."
            )
        w = self._normal("brownian", int(ta))
        if not return_U:
            return w
        return w, 0.5 * w + self._normal("brownian area", int(ta)) / math.sqrt(12)

    def _normal(self, purpose: str, step: int) -> Tensor:
        rng = None if self._rng is None else self._rng.at(purpose, step)
        return normal(self._like, rng).flatten(1)

    def __repr__(self) -> str:
        return f"Path{tuple(self.shape)}"

    @property
    def dtype(self) -> torch.dtype:
        return self._like.dtype

    @property
    def device(self) -> torch.device:
        return self._like.device

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self._like), self._like[0].numel()))

    @property
    def levy_area_approximation(self) -> str:
        return "space-time"


@dataclass(frozen=True)
class Integrated:
    """A `Sampler`: the reverse equation integrated by torchsde, then the clean estimate.

    The multistep solvers of `sciddm.solve` do the same with fewer evaluations; this is their
    independent check, and the way to schemes and adjoints of torchsde.

    Parameters
    ----------
    denoiser : a prior or a guided denoiser, on a process with one clock.
    steps : even in log kappa; explicit schemes want log kappa to move by less than 1 a step.
    scheme : `Scheme.EULER` or `Scheme.SRK`. eta : 0 for the probability flow, 1 for the reverse
        diffusion. kappa_max, kappa_min : ends, or None for those of the process' clock.
    """

    denoiser: Denoiser
    steps: int = 64
    scheme: Scheme = Scheme.SRK
    eta: float = 1.0
    kappa_max: float | None = None
    kappa_min: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"Got {self.steps} steps; expected at least 1.")
        if not (self.eta >= 0 and math.isfinite(self.eta)):
            raise InputError(f"Got eta = {self.eta}; expected 0 (no noise) or more, finite.")

    @property
    def evaluations(self) -> int:
        """Network evaluations a draw."""
        return self.scheme.evaluations * self.steps + 1

    @torch.no_grad()
    def __call__(self, shape: Sequence[int], context: Context, rng: Streams) -> Tensor:
        process = self.denoiser.process
        first = process.times(2, self.kappa_max, self.kappa_min)[0]
        x = process.start(torch.zeros(tuple(shape)), first, context.anchor, rng.at("start"))
        return self.draw(x, context, rng)

    def draw(self, x: Tensor, context: Context, rng: Streams | None) -> Tensor:
        """The clean estimate from a field ``x`` (B, C, *grid) at the first noise level."""
        last = self.denoiser.process.times(2, self.kappa_max, self.kappa_min)[1]
        return self.denoiser(self.descend(x, context, rng), last, context)

    def descend(self, x: Tensor, context: Context, rng: Streams | None) -> Tensor:
        """The field (B, C, *grid) at the last noise level from ``x`` at the first."""
        process = self.denoiser.process
        times = process.times(2, self.kappa_max, self.kappa_min)
        high, low = process.kappa(times).log().tolist()
        reverse = Reverse(self.denoiser, context, x.shape[1:], (high, low), self.steps, self.eta)
        span = torch.tensor([0.0, float(self.steps)], dtype=torch.float64, device=x.device)
        path = Path(torch.zeros_like(x), rng)
        found = torchsde.sdeint(
            reverse, x.flatten(1), span, bm=path, dt=1.0, method=self.scheme.value
        )
        return found[-1].view_as(x)
