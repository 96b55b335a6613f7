r"""PDE-Refiner: predict the next frame, then find what the prediction neglected, scale by scale.

With y = (x_next - mean) / scale, a denoiser D of y given the recent frames, and noise of s.d.
kappa_k = least^(k/K), k = 1 .. K,

    y_0 = D(nothing),   y_k = D(y_{k-1} + kappa_k eps_k, kappa_k).

The first evaluation is the one-step mean. Each of the others adds noise of an ever smaller
amplitude and removes it again: what is above the noise is kept, what is below is drawn anew from
what was learned, so that the small scales, of which a squared error knows nothing, stay right for
long. Where y given the past is N(m, s^2), y_K has the mean m and the variance v_K of

    v_0 = 0,   v_k = g_k^2 (v_{k-1} + kappa_k^2),   g_k = s^2 / (s^2 + kappa_k^2),

which is below s^2: spread comes from the added noise alone, and an ensemble is under-dispersed.

A network that only saw true frames has never seen the errors of its own. With ``noised`` it is
trained to lead from frames with white noise to the true next frame, and so to take errors away.

References
----------
Lippe et al. PDE-Refiner: achieving accurate long rollouts with neural PDE solvers. NeurIPS 2023,
section 3.1 (levels, objective). https://arxiv.org/abs/2308.05732
Sanchez-Gonzalez et al. Learning to simulate complex physics with graph networks. ICML 2020,
section 4.3 (noise on the frames of the training). https://arxiv.org/abs/2002.09405
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import torch
from torch import Tensor, nn

from sciddm.denoise import Context, Denoiser, Preconditioned
from sciddm.errors import InputError
from sciddm.forecasters.base import Known, Learner, conditions
from sciddm.forecasters.mean import Mean
from sciddm.process import VE
from sciddm.random import Streams


class Refine(Learner):
    """Next frame = mean + scale * y, y predicted and refined ``steps`` times.

    Parameters
    ----------
    denoiser : of y (B, C, *grid) under a `VE` process whose levels hold ``least`` and reach 100 or
        more; the recent frames, static fields and forcings come as ``context.fields``. To be
        trained it is a `Preconditioned` without a base: its backbone then predicts y where the
        noise is large, and the noise where it is small.
    mean : what is expected of the next frame. scale : (C, 1, ...), the s.d. about it.
    history : frames of the past that the network sees.
    steps : K, refinements of each frame; 0 is the one-step mean.
    least : kappa_K, the last and smallest noise, in units of the scale.
    noised : s.d. of noise on the recent frames in training, in their normalised units.
    boundary : what is known in every frame, or None.

    Raises `InputError` for numbers out of their range, or of the process.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        mean: Mean,
        scale: Tensor,
        history: int = 1,
        steps: int = 3,
        least: float = 1e-3,
        noised: float = 0.0,
        boundary: Known | None = None,
    ) -> None:
        nn.Module.__init__(self)
        if history < 1 or steps < 0 or noised < 0 or not 0 < least < 1:
            raise InputError(
                f"Got history={history}, steps={steps}, noised={noised}, least={least}; expected 1 "
                "or more, 0 or more twice, and a number between 0 and 1."
            )
        process = denoiser.process
        low, high = process.kappa(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        if not isinstance(process, VE) or low > least or high < 100:
            raise InputError(
                f"Got {type(process).__name__} with noise from {low:g} to {high:g}; expected VE "
                f"that holds {least:g} and reaches 100."
            )
        self.denoiser, self.mean, self.scale = denoiser, mean, scale
        self.history = max(history, mean.history)
        self.steps, self.least, self.noised, self.boundary = steps, least, noised, boundary
        self.window = self.history + 1

    @property
    def evaluations(self) -> float:
        return 1.0 + self.steps

    @property
    def times(self) -> Tensor:
        """Times of the process (K + 1,), float64: of the prediction, then of each refinement."""
        kappa = self.least ** (torch.arange(1, self.steps + 1, dtype=torch.float64) / self.steps)
        one = torch.ones(1, dtype=torch.float64)
        return torch.cat([one, self.denoiser.process.clock.time(kappa).clamp(0, 1)])

    def walk(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        assert context.past is not None
        recent = context.past[:, :, -self.history :]
        depth = context.past.shape[2]
        for n in count(1):
            known = Context(
                fields=conditions(recent, context, n, history=depth), scalars=context.scalars
            )
            here, y = rng.inside("frame", n), torch.zeros_like(recent[:, :, -1])
            for k, t in enumerate(self.times):
                if k:
                    y = y + self.denoiser.process.kappa(t).to(y) * here.at("refine", k).normal(y)
                y = self.denoiser(y, t, known)
            mean = self.mean(recent, context, n)
            frame = self.imposed(mean + self.scale.to(y) * y, context)
            yield frame
            recent = torch.cat([recent[:, :, 1:], frame.unsqueeze(2)], dim=2)

    def loss(self, film: Tensor, context: Context, rng: Streams, share: float) -> Tensor:
        if not isinstance(self.denoiser, Preconditioned):
            raise InputError(
                f"Got a denoiser {type(self.denoiser).__name__}, which has no weights to train; "
                "expected Preconditioned."
            )
        past = film[:, :, : self.history]
        if self.noised:
            past = past + self.noised * rng.at("past").normal(past)
        y = (film[:, :, self.history] - self.mean(past, context, 1)) / self.scale.to(film)
        place = torch.special.ndtr(rng.at("level").normal(film.new_zeros(len(film), 1)).double())
        k = (place[:, 0] * (self.steps + 1)).long().clamp_max(self.steps)
        view = (-1, *[1] * (y.ndim - 1))
        t, first = self.times[k.cpu()].to(y.device).view(view), (k == 0).view(view)
        noised = y + self.denoiser.process.kappa(t).to(y) * rng.at("noise").normal(y)
        noised = torch.where(first, torch.zeros_like(y), noised)
        known = Context(fields=conditions(past, context, 1), scalars=context.scalars)
        gap = (self.denoiser(noised, t, known) - y) / self.denoiser.scale(t, y).to(y)
        if self.boundary is not None and self.boundary.mask is not None:
            gap = torch.where(self.boundary.mask.to(gap.device), torch.zeros_like(gap), gap)
        return gap.square().flatten(1).mean(1)
