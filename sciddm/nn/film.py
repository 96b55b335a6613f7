r"""A backbone for films in which every frame has a noise level of its own.

Frames are folded into the batch for all maps in space, each conditioned on the level of its frame.
Frames meet at each point of the grid by attention over time with a learned preference for each lag,
which starts at zero: an untrained network treats frames one by one. With ``causal`` attention a
frame sees only itself and earlier ones, so what follows cannot change what was.

References
----------
Ho et al. Video diffusion models. NeurIPS 2022, section 3 (space, then time at each point).
https://arxiv.org/abs/2204.03458
Ruhe, Heek, Salimans, Hoogeboom. Rolling diffusion models. ICML 2024 (a level a frame).
https://arxiv.org/abs/2402.09470
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.nn.spectral import NoiseLevel, SpectralBlock, conv, coordinates, zero
from sciddm.nn.unet import ResBlock

LAGS = 16
"""Lags beyond this one share their preference."""


class TimeAttention(nn.Module):
    """x + W attention(x) along the frames, at each point: (B T, C, *grid), ``frames`` = T."""

    def __init__(self, dim: int, width: int, heads: int, causal: bool) -> None:
        nn.Module.__init__(self)
        self.heads, self.causal = heads, causal
        self.query = conv(dim, width, 3 * width, 1, False)
        self.lag = nn.Parameter(torch.zeros(heads, 2 * LAGS + 1))
        self.out = conv(dim, width, width, 1, False)
        zero(self.out)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        width, grid = x.shape[1], x.shape[2:]
        # (B, points, 3, heads, T, C / heads)
        parts = self.query(x).reshape(-1, frames, 3, self.heads, width // self.heads, grid.numel())
        query, key, value = parts.permute(2, 0, 5, 3, 1, 4).flatten(1, 2).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=self._preference(frames).to(x)
        )
        mixed = mixed.unflatten(0, (-1, grid.numel())).permute(0, 3, 2, 4, 1)
        return x + self.out(mixed.reshape(x.shape))

    def _preference(self, frames: int) -> Tensor:
        """(heads, T, T) added to the scores: by lag, and none of what comes later if causal."""
        at = torch.arange(frames)
        lag = at[:, None] - at[None]
        table = self.lag[:, lag.clamp(-LAGS, LAGS) + LAGS]
        return table.masked_fill((lag < 0).to(table.device), -torch.inf) if self.causal else table


class FilmNet(nn.Module):
    """``(x (B, I, T, *grid), log_kappa, context) -> (B, O, T, *grid)``, any number of frames.

    ``log_kappa`` has one number for each row and frame, (B or 1, 1, T or 1, 1, ...), or a single
    one. ``context.fields`` (B, K, *grid) are seen by every frame, ``context.forcings``
    (B, K, T, *grid or ones) each by its own. Scalars condition every block beside the level.

    Parameters
    ----------
    inputs, outputs : channels; ``inputs`` counts fields and forcings.
    modes : coefficients kept by the spectral blocks at the coarsest level, one number an axis.
    widths : channels at each level, finest first; one width keeps the grid.
    blocks : spectral blocks at the coarsest level, each followed by attention over time.
    heads : of the attention. causal : whether a frame sees no later one.
    periodic : Fourier basis and circular padding, else cosine basis and replicated edges.

    The last layer starts at zero, so an untrained model is its base.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        modes: tuple[int, ...],
        widths: tuple[int, ...] = (32,),
        blocks: int = 3,
        heads: int = 2,
        periodic: bool = False,
        scalars: int = 0,
        causal: bool = True,
    ) -> None:
        nn.Module.__init__(self)
        if any(width % heads for width in widths):
            raise InputError(f"Got widths {widths} for {heads} heads; expected whole multiples.")
        self.inputs, self.outputs, self.modes = inputs, outputs, tuple(modes)
        self.widths, self.blocks, self.heads = tuple(widths), blocks, heads
        self.periodic, self.scalars, self.causal = periodic, scalars, causal
        dim, size, pairs = (
            len(self.modes),
            2 * widths[0],
            list(zip(widths, widths[1:], strict=False)),
        )
        self.level = NoiseLevel(size, scalars)
        self.lift = conv(dim, inputs + (0 if periodic else dim), widths[0], 3, periodic)
        self.down = nn.ModuleList(ResBlock(dim, w, size, periodic) for w in widths[:-1])
        self.wider = nn.ModuleList(conv(dim, a, b, 1, periodic) for a, b in pairs)
        self.middle = nn.ModuleList(
            SpectralBlock(widths[-1], self.modes, size, 3, periodic) for _ in range(blocks)
        )
        self.meeting = nn.ModuleList(
            TimeAttention(dim, widths[-1], heads, causal) for _ in range(blocks)
        )
        self.narrower = nn.ModuleList(conv(dim, b, a, 1, periodic) for a, b in pairs)
        self.join = nn.ModuleList(conv(dim, 2 * a, a, 1, periodic) for a, _ in pairs)
        self.up = nn.ModuleList(ResBlock(dim, w, size, periodic) for w in widths[:-1])
        self.head = conv(dim, widths[0], outputs, 3, periodic)
        zero(self.head)

    def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
        rows, frames, grid = x.shape[0], x.shape[2], x.shape[3:]
        x = folded(beside(x, context))
        if not self.periodic:
            x = torch.cat([x, coordinates(x)], dim=1)
        level = self.level(_levels(log_kappa, rows, frames), _repeated(context, frames), x)
        pool = (nn.functional.avg_pool1d, nn.functional.avg_pool2d, nn.functional.avg_pool3d)
        h, skips = self.lift(x), []
        for block, wider in zip(self.down, self.wider, strict=True):
            h = block(h, level)
            skips.append(h)
            h = wider(pool[len(grid) - 1](h, 2, ceil_mode=True))
        for block, meet in zip(self.middle, self.meeting, strict=True):
            h = meet(block(h, level), frames)
        levels = list(zip(self.narrower, self.join, self.up, skips, strict=True))
        for narrower, join, block, skip in reversed(levels):
            h = nn.functional.interpolate(narrower(h), size=skip.shape[2:], mode="nearest")
            h = block(join(torch.cat([h, skip], dim=1)), level)
        out: Tensor = self.head(nn.functional.silu(h) if skips else h)
        return out.unflatten(0, (rows, frames)).transpose(1, 2)


def beside(x: Tensor, context: Context) -> Tensor:
    """A film (B, I, T, *grid) with the conditions of the context behind its channels."""
    shape = (x.shape[0], -1, x.shape[2], *x.shape[3:])
    parts = [x]
    if context.fields is not None:
        parts.append(context.fields.to(x).unsqueeze(2).expand(shape))
    if context.forcings is not None:
        if context.forcings.shape[2] != x.shape[2]:
            raise InputError(
                f"Got forcings of {context.forcings.shape[2]} frames for a film of {x.shape[2]}; "
                "expected those of its own frames."
            )
        parts.append(context.forcings.to(x).expand(shape))
    return torch.cat(parts, dim=1)


def folded(x: Tensor) -> Tensor:
    """(B, C, T, *grid) -> (B T, C, *grid)."""
    return x.transpose(1, 2).flatten(0, 1)


def _levels(log_kappa: Tensor, rows: int, frames: int) -> Tensor:
    """One level for each of the (B T) frames, or the one of all."""
    if log_kappa.numel() == 1:
        return log_kappa
    shape = (log_kappa.shape[0], log_kappa[0].numel())
    if shape[0] not in (1, rows) or shape[1] not in (1, frames):
        raise InputError(
            f"Got noise levels of shape {tuple(log_kappa.shape)} for {rows} films of {frames} "
            "frames; this backbone takes one level a frame."
        )
    return log_kappa.reshape(shape).expand(rows, frames).reshape(-1)


def _repeated(context: Context, frames: int) -> Context:
    scalars = context.scalars
    if scalars is None:
        return Context()
    return Context(scalars=scalars.repeat_interleave(frames, dim=0))
