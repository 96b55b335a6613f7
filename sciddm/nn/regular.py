r"""A transformer over the steps of a regular series: a token is a step or a few of them.

A token holds what is known of each channel at its steps, and what the law says of the rest; values
are counted from the mean of the channel's known values, so a series at another level is read alike.
The steps of the context are read once; of the wanted cells only the tokens that hold one are passed
through the network for each member and noise level, and attend to all steps. The cost is that of
the steps, not of the cells: a week of hours of seven channels is 168 tokens, not 1176.

References
----------
Vaswani et al. Attention is all you need. NeurIPS 2017, section 3.2.
Nie et al. A time series is worth 64 words. ICLR 2023, section 3.1 (normalisation of each window).
https://arxiv.org/abs/2211.14730
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.nn.sets import Memory, Reader, Turn, Writer, mask
from sciddm.nn.spectral import NoiseLevel
from sciddm.series.conditional import Backbone, Given
from sciddm.series.panel import Panel


class Stepped(NamedTuple):
    """What is kept of a panel: attention of the blocks, and where the wanted cells are.

    tokens : (T,) those with a wanted cell in any series. place : (B, h) of the wanted cells.
    middle : (B, h) mean of the known values of their channels.
    """

    attention: Memory
    tokens: Tensor
    place: Tensor
    wanted: Tensor
    middle: Tensor
    length: int


class StepTransformer(Backbone):
    """Reads the steps of a regular series, writes those that are wanted.

    Parameters
    ----------
    channels : C. shortest, longest : lengths of time that it tells apart, in the unit of the panel;
        a step, and a window.
    width, heads : of the tokens; ``width`` a multiple of twice ``heads``.
    readers, writers : blocks on all steps, and on those with wanted cells.
    apart : channels are read and written one by one, with the same weights and a number of their
        own for each; what they say of each other is left to the law. For records too short to
        learn it.
    patch : steps of one token; it divides the steps of a panel.
    periods : known periods in absolute time, such as 24 and 168 for hours.
    covariates, static : numbers of each that a panel has.

    The last layer starts at zero, so an untrained model is its law.
    """

    def __init__(
        self,
        channels: int,
        shortest: float,
        longest: float,
        width: int = 64,
        heads: int = 4,
        readers: int = 2,
        writers: int = 2,
        apart: bool = False,
        patch: int = 1,
        periods: tuple[float, ...] = (),
        covariates: int = 0,
        static: int = 0,
    ) -> None:
        nn.Module.__init__(self)
        if width % (2 * heads) or not 0 < shortest < longest:
            raise InputError(
                f"Got width {width} for {heads} heads and lengths {shortest:g} to {longest:g}; "
                "expected a multiple of twice the heads, and an increasing pair of lengths."
            )
        self.channels, self.shortest, self.longest = channels, shortest, longest
        self.width, self.heads, self.readers, self.writers = width, heads, readers, writers
        self.apart, self.patch, self.periods = apart, patch, tuple(periods)
        self.covariates, self.static = covariates, static
        together = patch if apart else patch * channels
        inputs = 5 * together + 2 * len(self.periods) + covariates + static
        self.lift = nn.Linear(inputs, width)
        self.own = nn.Parameter(torch.zeros(channels, width)) if apart else None
        self.reader = nn.ModuleList(Reader(width, heads) for _ in range(readers))
        self.read = nn.LayerNorm(width)
        self.noise = NoiseLevel(width)
        self.enter = nn.Sequential(
            nn.Linear(2 * together, width), nn.GELU(), nn.Linear(width, width)
        )
        self.writer = nn.ModuleList(Writer(width, heads) for _ in range(writers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, together)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def encode(self, given: Given) -> Stepped:
        panel = given.panel
        if panel.dense is None or panel.dense[0] != self.channels:
            raise InputError(
                f"Got a panel with dense = {panel.dense}; this backbone expects {self.channels} "
                "channels on one regular grid. Use SetTransformer for irregular cells."
            )
        n = panel.dense[1]
        if n % self.patch:
            raise InputError(
                f"Got windows of {n} steps for tokens of {self.patch}; expected a multiple of it."
            )
        tokens, middle = self._tokens(given)
        live = self._any(panel.real, n)
        live = live | ~live.any(1, keepdim=True)
        time = panel.time[:, : n : self.patch] - panel.time[:, :1]
        if self.apart:
            time = time.repeat_interleave(self.channels, dim=0)
        turn, seen = self._turn(time), mask(live)
        x = tokens
        for block in self.reader:
            x = block(x, Turn(*(v[:, None] for v in turn)), seen)
        x = self.read(x)
        looks = [block.look for block in self.writer if isinstance(block, Writer)]
        pairs = [look.keys(x, Turn(*(v[:, None] for v in turn))) for look in looks]
        wanted = self._any(panel.wanted, n)
        some = wanted.any(0).nonzero()[:, 0]
        own = wanted | ~wanted.any(1, keepdim=True)  # another series' tokens are not seen
        at = Turn(*(v[:, some] for v in turn))
        keys, values = tuple(k for k, _ in pairs), tuple(v for _, v in pairs)
        attention = Memory(keys, values, seen, x[:, None, some], at, mask(own[:, some]))
        middle = middle[:, :, None].expand(-1, -1, n).flatten(1)
        return Stepped(attention, some, given.index, given.wanted, given.at(middle), n)

    def forward(self, x: Tensor, log_kappa: Tensor, memory: Stepped) -> Tensor:
        rows, members, h = x.shape[:3]
        level = self.noise(log_kappa.reshape(-1), Context(), x.new_zeros(log_kappa.numel(), 1))
        level = level.view(*log_kappa.shape, 1, -1)
        if self.apart and len(level) > 1:
            level = level.repeat_interleave(self.channels, dim=0)
        wanted = memory.wanted[:, None]
        seen = torch.stack([x[..., 0], x[..., 1] - memory.middle[:, None]], dim=2)
        at = memory.place[:, None].expand(rows, members, h)
        grid = x.new_zeros(rows, members, 2, self.channels * memory.length)
        grid = grid.scatter(3, at[:, :, None].expand_as(seen), seen * wanted[:, :, None])
        split = (self.channels, -1, self.patch)
        grid = grid.unflatten(3, split)[..., memory.tokens, :]  # (B, M, 2, C, T, patch)
        rest = grid.movedim(3, 1).flatten(0, 1).unsqueeze(3) if self.apart else grid
        grid = rest.movedim(4, 2)
        hidden = memory.attention.tokens + self.enter(grid.flatten(3))
        for k, block in enumerate(self.writer):
            hidden = block(hidden, level, memory.attention, k)
        answer = self.head(nn.functional.gelu(self.norm(hidden)))
        if self.apart:
            answer = answer.unflatten(0, (rows, -1)).transpose(1, 2)
        else:
            answer = answer.unflatten(3, (self.channels, -1)).transpose(2, 3)
        full = answer.new_zeros(
            rows, members, self.channels, memory.length // self.patch, self.patch
        )
        full = full.index_copy(3, memory.tokens, answer)
        out: Tensor = full.flatten(2).gather(2, at)
        return out

    def _tokens(self, given: Given) -> tuple[Tensor, Tensor]:
        """(B or B C, T, width) of all steps, without the noise; means of the known (B, C)."""
        panel = given.panel
        assert panel.dense is not None
        n = panel.dense[1]

        def grid(x: Tensor) -> Tensor:
            return (
                torch.where(panel.real, x, torch.zeros_like(x)).float().view(-1, self.channels, n)
            )

        known = grid(panel.known.float())
        middle = (known * grid(panel.value)).sum(2) / known.sum(2).clamp_min(1)
        about = middle[:, :, None] * grid(panel.real.float())
        mean = grid(given.mean) - about
        std = grid(given.std)
        parts = [known, known * mean, mean, std, std.clamp_min(1e-2).log()]
        cells = torch.stack(parts, dim=2)  # (B, C, 5, n)
        cells = cells.flatten(0, 1) if self.apart else cells.flatten(1, 2)
        shared = [cells.unflatten(2, (-1, self.patch)).transpose(1, 2).flatten(2)]
        for more in self._told(panel, n):
            steps = more[:, :, :: self.patch].transpose(1, 2)
            shared.append(steps.repeat_interleave(self.channels, dim=0) if self.apart else steps)
        tokens: Tensor = self.lift(torch.cat(shared, dim=2))
        if self.own is not None:
            tokens = tokens + self.own.repeat(len(panel), 1)[:, None]
        return tokens, middle

    def _told(self, panel: Panel, n: int) -> list[Tensor]:
        """What all channels are told of each step: parts (B, k, n)."""
        parts = []
        if self.periods:
            periods = torch.tensor(self.periods, dtype=torch.float64, device=panel.time.device)
            phase = (panel.time[:, None, :n] / periods[:, None]).frac()
            angle = (2 * math.pi * phase).float()
            parts += [angle.sin(), angle.cos()]
        if self.covariates:
            if panel.covariates is None or panel.covariates.shape[1] != self.covariates:
                raise InputError(f"This backbone expects {self.covariates} covariates of a panel.")
            parts.append(panel.covariates[:, :, :n].float())
        if self.static:
            if panel.static is None or panel.static.shape[1] != self.static:
                raise InputError(f"This backbone expects {self.static} static numbers of a panel.")
            parts.append(panel.static.float()[:, :, None].expand(-1, -1, n))
        return parts

    def _any(self, cells: Tensor, n: int) -> Tensor:
        """(B, T) whether a token has one of the cells (B, m); (B C, T) where channels are apart."""
        grid = cells.view(-1, self.channels, n // self.patch, self.patch).any(3)
        return grid.flatten(0, 1) if self.apart else grid.any(1)

    def _turn(self, time: Tensor) -> Turn:
        """Rotations (B, n, d / 2) of steps at ``time`` (B, n)."""
        count = self.width // self.heads // 2
        ends = math.log(self.shortest), math.log(4 * self.longest)
        lengths = torch.linspace(*ends, count, dtype=torch.float64, device=time.device).exp()
        angle = time[..., None] / lengths
        return Turn(angle.cos().float(), angle.sin().float())
