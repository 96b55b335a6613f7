r"""Replacement: known grid values take their observed value in every clean estimate.

Exact for the observed points alone; the rest of the field hears of them only through x_t, so the
posterior is too wide between observations. The baseline of inpainting.

`Resampling` goes back and forth: after a step from t to s the field is noised again to t,

    x_t = (alpha_t / alpha_s) x_s + alpha_t sqrt(kappa_t^2 - kappa_s^2) z,   z ~ N(0, C),

and stepped again, so that known and unknown values come to agree. With ``Euler(eta=1.0)`` and
`Replace` it is RePaint: the known values of x_s then are alpha_s y and noise of variance sigma_s^2.

References
----------
Lugmayr et al. RePaint: inpainting using denoising diffusion probabilistic models. CVPR 2022, eq. 8
and algorithm 1. https://arxiv.org/abs/2201.09865
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser
from sciddm.errors import InputError
from sciddm.process import Process, shift
from sciddm.random import Streams
from sciddm.solve import Euler, History, Solver
from sciddm.solve.address import below


class Replace(Denoiser):
    """x_hat with the values ``known`` (C, *grid) or (B, C, *grid) put where ``keep`` (C, *grid) is
    true. Raises `InputError` for other shapes and for known values that are not finite."""

    def __init__(self, prior: Denoiser, known: Tensor, keep: Tensor) -> None:
        if keep.dtype != torch.bool or known.shape[known.ndim - keep.ndim :] != keep.shape:
            raise InputError(
                f"Got known values of shape {tuple(known.shape)} and a mask of "
                f"{tuple(keep.shape)}, {keep.dtype}; expected (C, *grid) for both, the mask bool."
            )
        if not bool(torch.isfinite(known[..., keep]).all()):
            raise InputError("A known value is not finite; leave it out of the mask.")
        torch.nn.Module.__init__(self)
        self.prior, self.process = prior, prior.process
        self.known, self.keep = known, keep

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return torch.where(self.keep, self.known.to(x_t), self.prior(x_t, t, context))


@dataclass(frozen=True)
class Resampling(Solver):
    """Each step of ``solver`` taken ``repeats`` times, with fresh noise back to t in between.

    Parameters
    ----------
    repeats : at least 1, which is the solver alone. The authors take 10.
    solver : theirs is ancestral.
    """

    repeats: int = 10
    solver: Solver = field(default_factory=lambda: Euler(eta=1.0))

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise InputError(f"Got {self.repeats} repeats of a step; expected at least 1.")

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
        alpha_t, beta_t, _ = (c.to(x_t) for c in process.coefficients(t))
        alpha_s, beta_s, _ = (c.to(x_t) for c in process.coefficients(s))
        width = (process.kappa(t) ** 2 - process.kappa(s) ** 2).sqrt().to(x_t)
        x_s, after = self.solver.step(denoiser, x_t, t, s, context, state, rng)
        for k in range(1, self.repeats):
            noise, back = below(rng, "again", k), below(rng, "back", k)
            u = shift(x_s, -beta_s, context.anchor) / alpha_s
            u = u + width * process.noise.sample(x_s, back)
            again = shift(alpha_t * u, beta_t, context.anchor)
            x_s, after = self.solver.step(denoiser, again, t, s, context, state, noise)
        return x_s, after

    def check(self, process: Process, times: Tensor) -> None:
        self.solver.check(process, times)

    def evaluations(self, steps: int) -> int:
        return self.repeats * (self.solver.evaluations(steps) - 1) + 1
