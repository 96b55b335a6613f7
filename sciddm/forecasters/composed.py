r"""Long films from a denoiser of short ones: each frame is denoised in a window round it.

What noised frames far away say of frame i is small where the process is nearly Markov, so that

    E[X_i | x_t] ~ E[X_i | x_t in a window of W frames with i in its middle],

frames at the ends in the first and the last window. At low noise it is exact for a process that is
Markov of order up to W / 2; at high noise distant frames do tell something, and the error falls
with W. Where the law of all frames of a Gaussian is known, windows only add what they know beyond
their own Gaussian,

    x_hat = whole(x_t) + [window(x_t) - base(x_t)] in a window round i,

which is exact for that Gaussian at every W, and local only in what the network has learned.

References
----------
Rozet, Louppe. Score-based data assimilation. NeurIPS 2023, section 3.1 and algorithm 2.
https://arxiv.org/abs/2306.10574
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sciddm.denoise import Context, Denoiser, Gaussian
from sciddm.errors import InputError


class Composed(Denoiser):
    """A denoiser of films (B, C, T, *grid) of any T from one of ``frames`` frames.

    Parameters
    ----------
    window : denoiser of films of ``frames`` frames, under a process of one clock and white noise.
    frames : W. A film that is no longer is denoised whole, if it has W frames.
    stride : frames from one window to the next, up to W; 1 is the published rule, more costs less.
    base, whole : a `Gaussian` of W frames and one of the films that are denoised, or None for both.

    Raises `InputError` for one of ``base`` and ``whole`` alone, or a stride that leaves frames out.
    """

    def __init__(
        self,
        window: Denoiser,
        frames: int,
        stride: int = 1,
        base: Gaussian | None = None,
        whole: Gaussian | None = None,
    ) -> None:
        if not 1 <= stride <= frames:
            raise InputError(f"Got windows of {frames} frames every {stride}; expected an overlap.")
        if (base is None) != (whole is None):
            raise InputError("Got one Gaussian law; expected that of a window and that of a film.")
        nn.Module.__init__(self)
        self.window, self.frames, self.stride = window, frames, stride
        self.base, self.whole, self.process = base, whole, window.process

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        starts, chosen, inside = places(x_t.shape[2], self.frames, self.stride)
        cut = starts[:, None] + torch.arange(self.frames)

        def parts(x: Tensor) -> Tensor:
            """(B, C, T, *grid) -> (B K, C, W, *grid)."""
            return x[:, :, cut].transpose(1, 2).flatten(0, 1)

        u = parts(x_t)
        level = t
        if t.numel() > 1:
            level = t.repeat_interleave(len(starts), 0)
        fields, forcings = context.fields, context.forcings
        if fields is not None and len(fields) > 1:
            fields = fields.repeat_interleave(len(starts), 0)
        if forcings is not None:
            forcings = parts(forcings.expand(len(x_t), *forcings.shape[1:]))
        seen = Context(fields=fields, forcings=forcings)
        local = self.window(u, level, seen)
        if self.base is not None:
            local = local - self.base(u, level, seen)
        # (B, K, C, W, *grid) -> frame i of window chosen[i]
        split = local.unflatten(0, (len(x_t), len(starts)))
        x_hat = split[:, chosen, :, inside].movedim(0, 2)
        return x_hat if self.whole is None else self.whole(x_t, t, Context()) + x_hat


def places(frames: int, window: int, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """First frames of the windows (K,), and for each of ``frames`` frames the window in whose
    middle it is nearest to lie, and its place there, both (frames,)."""
    if frames < window:
        raise InputError(f"Got a film of {frames} frames; expected at least one window, {window}.")
    starts = torch.arange(0, frames - window + 1, stride)
    if int(starts[-1]) != frames - window:
        starts = torch.cat([starts, torch.tensor([frames - window])])
    off = (torch.arange(frames)[:, None] - starts - 0.5 * (window - 1)).abs()
    chosen = off.argmin(1)
    return starts, chosen, torch.arange(frames) - starts[chosen]
