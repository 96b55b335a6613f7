r"""The ancestral kernel with the right spread: exact for a Gaussian in any number of steps.

The ancestral step draws x_s from q(x_s | x_t, X) with X at its mean x_hat, and so loses what x_t
does not say of X. Here X itself is drawn with its first two moments, then x_s:

    X ~ N(x_hat, V),  V = Cov[X | x_t],     x_s ~ q(x_s | x_t, X).

V is a closed form of the denoiser (the exact `Gaussian`; a guided one, V - K A V) or is given.
Where X given x_t is Gaussian the law of x_s is exact however long the step is; elsewhere the step
has the moments that Analytic-DPM gives it, with the full covariance.

References
----------
Bao, Li, Zhu, Zhang. Analytic-DPM: an analytic estimate of the optimal reverse variance in diffusion
probabilistic models. ICLR 2022, theorem 1. https://arxiv.org/abs/2201.06503
Bao, Li, Sun, Zhu, Zhang. Estimating the optimal covariance with imperfect mean in diffusion
probabilistic models. ICML 2022. https://arxiv.org/abs/2206.07309
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from sciddm.denoise import Context, Denoiser, Moments
from sciddm.errors import InputError
from sciddm.process import Process
from sciddm.random import Streams
from sciddm.solve.address import below
from sciddm.solve.kernel import transition
from sciddm.solve.restart import one_clock
from sciddm.solve.solvers import History, Solver


@runtime_checkable
class Fluctuating(Protocol):
    """A denoiser that can draw X - x_hat given x_t."""

    def fluctuation(self, t: Tensor, like: Tensor, rng: Streams | None = None) -> Tensor:
        """(B, C, *grid), the shape of ``like``, at the one time ``t``."""
        ...


@dataclass(frozen=True, eq=False)
class Matched(Solver):
    """Moment-matched ancestral steps, one evaluation each.

    The law of the field at the last time is the exact one; the clean estimate there has lost what
    is still unknown, so end at a low noise level.

    Parameters
    ----------
    moments : Cov[X | x_t] for denoisers that do not know theirs (networks); one that does
        (`Gaussian`, `guide.Conditioned`) uses its own.
    """

    moments: Moments | None = None

    def check(self, process: Process, times: Tensor) -> None:
        one_clock(process, times, type(self).__name__)

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
        law = denoiser if isinstance(denoiser, Fluctuating) else self.moments
        if law is None:
            raise InputError(
                f"Got {type(denoiser).__name__}, which does not know Cov[X | x_t]; expected "
                "Gaussian, Conditioned, or Matched(moments) with those of a calibrated network."
            )
        x_hat = denoiser(x_t, t, context)
        x = x_hat + law.fluctuation(t, x_t, below(rng, "clean"))
        return transition(
            denoiser.process, x_t, x, t, s, anchor=context.anchor, eta=1.0, rng=rng
        ), state

    def evaluations(self, steps: int) -> int:
        return steps
