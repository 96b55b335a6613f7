r"""The autoregressive engine: each next frame, or block of frames, is one draw of a diffusion.

What is drawn is the residual ``x = (next - mean(recent)) / scale``, given the recent frames: the
mean is linear or simpler and needs no network, a Gaussian base knows the covariance of what it
leaves, and the network learns what is not linear and not Gaussian. An untrained one is therefore
the linear Gaussian forecast, and that of a linear Gaussian truth is exact.

Errors of earlier frames are fed back, and a network that only saw true frames has never seen them:
noise on the frames that it is shown, in training and in use, keeps a long rollout on its feet. The
mean sees the frames as they are.

References
----------
Price et al. GenCast: diffusion-based ensemble forecasting. 2023, section 3 (residual targets, two
past frames). https://arxiv.org/abs/2312.15796
Kohl, Chen, Thuerey. Benchmarking autoregressive conditional diffusion models for turbulent flow
simulation. 2023, section 3 (noised conditions). https://arxiv.org/abs/2309.01745
Mardani et al. Residual corrective diffusion modeling for km-scale atmospheric downscaling. 2023,
eq. 3 (a mean, and a diffusion of what it leaves). https://arxiv.org/abs/2309.15214
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sciddm.denoise import Context, Denoiser, Preconditioned, denoising_loss
from sciddm.errors import InputError
from sciddm.forecasters.base import Known, Learner, conditions
from sciddm.forecasters.mean import Mean
from sciddm.forecasters.pace import Pace
from sciddm.random import Streams
from sciddm.solve import Diffusion, Multistep, Solver


class Autoregressive(Learner):
    """p(next ``block`` frames | recent frames), drawn by a conditional diffusion.

    Parameters
    ----------
    denoiser : of the residual (B, C block, *grid), the frames of a channel beside each other. Its
        backbone sees `conditions` as fields of the context.
    mean : expected of the next frames. scale : (C, block), s.d. of what it leaves.
    seen : recent frames that the network sees; the mean may need more.
    block : frames drawn together. boundary : see `Boundary`; masked values are not trained on.
    noised : s.d. of the noise on the recent frames that the network sees, in their normalised
        units. told : whether it is told the noise, as one scalar of the context; training then has
        every s.d. up to ``noised``, and a forecast uses ``used``.
    used : s.d. in a forecast, or None for ``noised``.
    solver, steps, kappa_max, kappa_min : of each draw, see `Diffusion`.
    level_mean, level_std : law of log kappa in training.
    pace : how much wider than ``scale`` the errors now are, or None for as wide as ever.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        mean: Mean,
        scale: Tensor,
        seen: int = 1,
        block: int = 1,
        boundary: Known | None = None,
        noised: float = 0.0,
        told: bool = False,
        used: float | None = None,
        solver: Solver | None = None,
        steps: int = 16,
        kappa_max: float | None = None,
        kappa_min: float | None = None,
        level_mean: float = 0.0,
        level_std: float = 1.6,
        pace: Pace | None = None,
    ) -> None:
        nn.Module.__init__(self)
        if scale.ndim != 2 or scale.shape[1] != block or not bool((scale > 0).all()):
            raise InputError(
                f"Got a scale of shape {tuple(scale.shape)} for blocks of {block} frames; expected "
                f"(C, {block}) of positive numbers."
            )
        if seen < 1 or not 0 <= (used or 0.0) <= noised:
            raise InputError(
                f"Got {seen} frames seen under noise of {noised}, {used} in a forecast; expected "
                "at least 1 frame, nothing negative, and in a forecast no more than in training."
            )
        self.denoiser, self.mean, self.scale = denoiser, mean, scale
        self.seen, self.block, self.boundary = seen, block, boundary
        self.noised, self.told, self.used = noised, told, used
        self.solver = Multistep() if solver is None else solver
        self.steps, self.kappa_max, self.kappa_min = steps, kappa_max, kappa_min
        self.level_mean, self.level_std = level_mean, level_std
        self.pace = pace
        self.history = max(seen, mean.history + (0 if pace is None else pace.turn))
        self.window = self.history + block

    @property
    def evaluations(self) -> float:
        return self._diffusion.evaluations / self.block

    @property
    def _diffusion(self) -> Diffusion:
        return Diffusion(self.denoiser, self.solver, self.steps, self.kappa_max, self.kappa_min)

    def walk(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        assert context.past is not None
        past, diffusion, first = context.past, self._diffusion, 1
        recent = past[:, :, -self.history :]
        while True:
            noise = rng.inside("frame", first)
            std = self.noised if self.used is None else self.used
            level = torch.full((len(past), 1), std, dtype=past.dtype, device=past.device)
            beside = self._beside(recent, level, context, first, past.shape[2], noise)
            shape = (len(past), past.shape[1] * self.block, *past.shape[3:])
            x = diffusion(shape, beside, noise).unflatten(1, (-1, self.block))
            frames = self.mean.ahead(recent, context, first, self.block)
            frames = frames + self._scale(x, recent, context, first) * x
            for k in range(self.block):
                frame = self.imposed(frames[:, :, k], context)
                recent = torch.cat([recent[:, :, 1:], frame[:, :, None]], dim=2)
                yield frame
            first += self.block

    def residual(self, film: Tensor, context: Context) -> Tensor:
        """What the mean leaves of the last ``block`` frames of ``film`` (B, C, window, *grid), in
        units of `scale`: (B, C block, *grid), of which the denoiser is the law."""
        past, target = film[:, :, : self.history], film[:, :, self.history :]
        gap = target - self.mean.ahead(past, context, 1, self.block)
        return (gap / self._scale(gap, past, context, 1)).flatten(1, 2)

    def loss(self, film: Tensor, context: Context, rng: Streams, share: float) -> Tensor:
        if not isinstance(self.denoiser, Preconditioned):
            raise InputError(
                f"Got a denoiser that is {type(self.denoiser).__name__}; expected Preconditioned, "
                "which has weights to train."
            )
        with torch.no_grad():
            x = self.residual(film, context)
        blank = film.new_zeros(len(film), 1)
        level = blank + self.noised
        if self.told:  # as many of one level as of another
            share_of = torch.special.ndtr(rng.at("condition level").normal(blank))
            level = self.noised * share_of
        beside = self._beside(film[:, :, : self.history], level, context, 1, self.history, rng)
        z = rng.at("level").normal(blank).double()
        kappa = (self.level_mean + self.level_std * z).exp()
        clock = self.denoiser.process.clock
        t = clock.time(kappa.clamp(*clock.ends())).clamp(0, 1)
        return denoising_loss(
            self.denoiser,
            x,
            t.view(-1, *[1] * (x.ndim - 1)),
            beside,
            measure=self._measure(x),
            rng=rng.at("noise"),
        )

    def _beside(
        self,
        recent: Tensor,
        level: Tensor,
        context: Context,
        frame: int,
        before: int,
        rng: Streams,
    ) -> Context:
        """What the network sees: recent frames under noise of s.d. ``level`` (B, 1), the rest."""
        seen = recent[:, :, -self.seen :]
        if self.noised:
            view = level.view(-1, *[1] * (seen.ndim - 1))
            seen = seen + view * rng.at("condition").normal(seen)
        fields = conditions(seen, context, frame, self.block, before)
        return Context(fields=fields, scalars=level if self.told else None, index=context.index)

    def _scale(self, x: Tensor, recent: Tensor, context: Context, first: int) -> Tensor:
        """Beside (B, C, block, *grid) of frames ``first`` on, which follow ``recent``."""
        scale = self.scale.to(x).view(*self.scale.shape, *[1] * (x.ndim - 3))
        if self.pace is None:
            return scale
        return scale * self.pace(self.mean, recent, context, first).to(x)

    def _measure(self, x: Tensor) -> Tensor | None:
        if self.boundary is None or self.boundary.mask is None:
            return None
        free = (~self.boundary.mask).to(x)
        return free.repeat_interleave(self.block, dim=0)[None]
