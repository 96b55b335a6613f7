r"""How wide the errors of a mean are now, from how far it missed of late.

A day of fronts is followed by another. With r the root mean square of what a mean missed one frame
ahead over the last turn, over what it usually misses, the s.d. of the errors n frames ahead is
taken to be

    usual * exp(level_n + power_n log r),

where power falls with n: what comes late hardly knows of the last turn.

References
----------
Engle. Autoregressive conditional heteroscedasticity with estimates of the variance of United
Kingdom inflation. Econometrica 50, 1982. Bollerslev. Generalized autoregressive conditional
heteroskedasticity. Journal of Econometrics 31, 1986 (a variance that follows past errors).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters.mean import Mean


@dataclass(frozen=True, eq=False)
class Pace:
    """A factor on the s.d. of the errors of a mean.

    usual : (C,), root mean square of the errors one frame ahead. level, power : (block,), of the
    frames ahead. turn : frames over which the last errors are taken.
    """

    usual: Tensor
    level: Tensor
    power: Tensor
    turn: int = 24

    @staticmethod
    def fit(left: Sequence[Tensor], turn: int = 24) -> Pace:
        """Least squares in logarithms over what a mean left of films that its fit did not see.

        left : (n, C, block, *grid) each, of n consecutive frames that a forecast begins at.
        Raises `InputError` where none has more than ``turn``.
        """
        sizes = [_size(x) for x in left]  # (n, C, block)
        usual = torch.cat(sizes).square().mean(0).sqrt()
        now, then = [], []
        for size in sizes:
            for n in range(turn, len(size)):
                missed = size[n - turn : n, :, 0].square().mean(0).sqrt()
                now.append((missed / usual[:, 0]).log())
                then.append((size[n] / usual).log())
        if not now:
            raise InputError(
                f"Got blocks of at most {max(map(len, sizes))} starts; expected more than the "
                f"{turn} frames of a turn."
            )
        x, y = torch.stack(now), torch.stack(then)  # (N, C), (N, C, block)
        centred = (x - x.mean(0))[..., None]
        slope = (centred * (y - y.mean(0))).sum((0, 1)) / centred.square().sum((0, 1))
        power = slope.clamp(0, 1)
        rest = (y - power * x[..., None]).exp().square().mean((0, 1))
        return Pace(usual[:, 0], 0.5 * rest.log(), power, turn)

    def __call__(self, mean: Mean, recent: Tensor, context: Context, first: int) -> Tensor:
        """(B, C, block, 1, ...) for the frames from number ``first`` on, which follow ``recent``
        (B, C, at least turn + mean.history, *grid)."""
        depth, frames, missed = mean.history, recent.shape[2], []
        for k in range(frames - self.turn, frames):
            window = recent[:, :, k - depth : k]
            gap = recent[:, :, k] - mean(window, context, first - frames + k)
            missed.append(gap.double().square().flatten(2).mean(2))
        size = torch.stack(missed).mean(0).sqrt() / self.usual.to(recent.device)
        log = size.clamp_min(1e-6).log()[..., None]
        factor = torch.exp(self.level.to(log) + self.power.to(log) * log)
        return factor.view(*factor.shape, *[1] * (recent.ndim - 3))


def _size(left: Tensor) -> Tensor:
    """Root mean square over the grid of (n, C, block, *grid), float64."""
    return left.double().square().flatten(3).mean(3).sqrt()
