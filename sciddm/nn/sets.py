r"""A transformer over sets of cells: each value at a time and channel of its own.

Time enters in physical units, never as a position in a list: as sines and cosines of lengths from
``shortest`` to ``longest``, counted from the first cell of the series, and as rotations of queries
and keys, so that attention sees the lag between two cells. Periods that are known (a day, a year)
may be added in absolute time. The set of known cells is read once; the wanted cells of every member
attend to it, and to one another. No order of cells matters, and filled cells have no effect.

References
----------
Vaswani et al. Attention is all you need. NeurIPS 2017, section 3.2.
Su et al. RoFormer: enhanced transformer with rotary position embedding. 2021, eq. 34 (here by
physical time). https://arxiv.org/abs/2104.09864
Peebles, Xie. Scalable diffusion models with transformers. ICCV 2023, section 3.2 (adaptive layer
norm). https://arxiv.org/abs/2212.09748
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.nn.spectral import NoiseLevel
from sciddm.series.conditional import Backbone, Given


class Turn(NamedTuple):
    """Cosines and sines (..., n, d / 2) of the rotation of each cell."""

    cos: Tensor
    sin: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` (..., n, d) turned, pair by pair."""
        a, b = x.unflatten(-1, (2, -1)).unbind(-2)
        return torch.cat([a * self.cos - b * self.sin, a * self.sin + b * self.cos], dim=-1)


class Memory(NamedTuple):
    """What is kept of a panel: keys and values of each decoder block, and the wanted cells."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    seen: Tensor | None
    tokens: Tensor
    turn: Turn
    live: Tensor | None


class Attention(nn.Module):
    """Attention of cells to cells, rotated by their times."""

    def __init__(self, width: int, heads: int) -> None:
        nn.Module.__init__(self)
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.pair = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def keys(self, x: Tensor, turn: Turn) -> tuple[Tensor, Tensor]:
        """Keys and values (..., heads, n, d) of cells (..., n, width)."""
        key, value = self.split(self.pair(x), 2).unbind(-4)
        return turn(key), value

    def forward(
        self, x: Tensor, turn: Turn, key: Tensor, value: Tensor, mask: Tensor | None
    ) -> Tensor:
        """(R, n, width), for ``mask`` (R, 1, 1, k) of the keys that are there."""
        query = turn(self.split(self.query(x), 1).squeeze(-4))
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out: Tensor = self.out(mixed.transpose(-3, -2).flatten(-2))
        return out

    def split(self, x: Tensor, parts: int) -> Tensor:
        """(..., n, parts width) -> (..., parts, heads, n, d)."""
        wide = x.unflatten(-1, (parts, self.heads, -1))
        return wide.movedim(-4, -2)


class Feed(nn.Sequential):
    """Two layers on each cell alone."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class Reader(nn.Module):
    """A block on the known cells."""

    def __init__(self, width: int, heads: int) -> None:
        nn.Module.__init__(self)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.meet, self.feed = Attention(width, heads), Feed(width)

    def forward(self, x: Tensor, turn: Turn, mask: Tensor | None) -> Tensor:
        h = self.first(x)
        x = x + self.meet(h, turn, *self.meet.keys(h, turn), mask)
        out: Tensor = x + self.feed(self.second(x))
        return out


class Writer(nn.Module):
    """A block on the wanted cells: what is known, one another, and the level of the noise."""

    def __init__(self, width: int, heads: int) -> None:
        nn.Module.__init__(self)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.look, self.meet = Attention(width, heads), Attention(width, heads)
        self.feed = Feed(width)
        self.level = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.level.weight)
        nn.init.zeros_(self.level.bias)

    def forward(self, x: Tensor, level: Tensor, memory: Memory, block: int) -> Tensor:
        """(B, M, h, width), ``level`` (B or 1, M or 1, 1, width)."""
        scales = self.level(level).unflatten(-1, (3, 2, -1)).unbind(-3)

        def normed(x: Tensor, which: int) -> Tensor:
            scale, move = scales[which].unbind(-2)
            return self.norm(x) * (1 + scale) + move

        # all members of a series ask the same keys
        h, many = normed(x, 0), Turn(*(v[:, None].repeat(1, x.shape[1], 1, 1) for v in memory.turn))
        asked = self.look(
            h.flatten(1, 2), Turn(*(v.flatten(1, 2)[:, None] for v in many)),
            memory.keys[block], memory.values[block], memory.seen,
        )  # fmt: skip
        x = x + asked.view(x.shape)
        h, rows = normed(x, 1).flatten(0, 1), Turn(*(v.flatten(0, 1)[:, None] for v in many))
        mask = None if memory.live is None else memory.live.repeat_interleave(x.shape[1], dim=0)
        x = x + self.meet(h, rows, *self.meet.keys(h, rows), mask).view(x.shape)
        out: Tensor = x + self.feed(normed(x, 2))
        return out


class SetTransformer(Backbone):
    """Reads known cells, writes wanted ones; any times, any number of cells of each channel.

    Parameters
    ----------
    channels : C. shortest, longest : lengths of time that it tells apart, in the unit of the panel;
        a lag between two neighbours, and the length of a series.
    width, heads : of the tokens; ``width`` a multiple of twice ``heads``.
    readers, writers : blocks on known and on wanted cells.
    periods : known periods in absolute time, such as 24 for hours. covariates, static : numbers of
        each that a panel has.

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
        self.periods, self.covariates, self.static = tuple(periods), covariates, static
        self.channel = nn.Embedding(channels, width)
        self.lift = nn.Linear(5 + 2 * 16 + 2 * len(self.periods) + covariates, width)
        self.nothing = nn.Parameter(torch.zeros(width))  # there is always a cell to look at
        self.series = nn.Linear(static, width) if static else None
        self.reader = nn.ModuleList(Reader(width, heads) for _ in range(readers))
        self.read = nn.LayerNorm(width)
        self.noise = NoiseLevel(width)
        self.enter = nn.Sequential(nn.Linear(2, width), nn.GELU(), nn.Linear(width, width))
        self.writer = nn.ModuleList(Writer(width, heads) for _ in range(writers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def encode(self, given: Given) -> Memory:
        panel = given.panel
        tokens = self._tokens(given)
        order = torch.argsort(panel.known.byte(), dim=1, descending=True, stable=True)
        order = order[:, : int(panel.known.sum(1).max())]
        known = panel.known.gather(1, order)
        start = self.nothing.expand(len(panel), 1, -1)
        x = torch.cat([start, pick(tokens, order)], dim=1)
        live = torch.cat([known.new_ones(len(panel), 1), known], dim=1)
        seen = mask(live)
        time = self._clock(panel.time, panel.real)
        at = torch.cat([torch.zeros_like(time[:, :1]), time.gather(1, order)], dim=1)
        turn = Turn(*(v[:, None] for v in self._turn(at)))
        for block in self.reader:
            x = block(x, turn, seen)
        x = self.read(x)
        looks = [block.look for block in self.writer if isinstance(block, Writer)]
        pairs = [look.keys(x, turn) for look in looks]
        turned = self._turn(given.at(time))
        wanted = pick(tokens, given.index)[:, None]
        keys, values = tuple(k for k, _ in pairs), tuple(v for _, v in pairs)
        return Memory(keys, values, seen, wanted, turned, mask(given.wanted))

    def forward(self, x: Tensor, log_kappa: Tensor, memory: Memory) -> Tensor:
        level = self.noise(log_kappa.reshape(-1), Context(), x.new_zeros(log_kappa.numel(), 1))
        level = level.view(*log_kappa.shape, 1, -1)
        h = memory.tokens + self.enter(x)
        for k, block in enumerate(self.writer):
            h = block(h, level, memory, k)
        out: Tensor = self.head(nn.functional.gelu(self.norm(h))).squeeze(-1)
        return out

    def _tokens(self, given: Given) -> Tensor:
        """(B, m, width) of all cells, without the noise."""
        panel = given.panel
        time = self._clock(panel.time, panel.real)
        angle = (2 * math.pi * time[..., None] / self._lengths(16).to(time)).float()
        waves = [angle]
        if self.periods:
            periods = torch.tensor(self.periods, dtype=torch.float64, device=time.device)
            waves.append((2 * math.pi * (panel.time[..., None] / periods).frac()).float())
        turns = torch.cat(waves, dim=-1)
        error = torch.zeros_like(given.mean) if panel.error is None else panel.error.float()
        numbers = [
            given.mean, given.std, given.std.clamp_min(1e-3).log(), panel.known.float(), error,
        ]  # fmt: skip
        parts = [torch.stack(numbers, dim=-1), turns.sin(), turns.cos()]
        if self.covariates:
            if panel.covariates is None or panel.covariates.shape[1] != self.covariates:
                raise InputError(f"This backbone expects {self.covariates} covariates of a panel.")
            parts.append(panel.covariates.transpose(1, 2).float())
        tokens: Tensor = self.lift(torch.cat(parts, dim=-1)) + self.channel(panel.channel)
        if self.series is not None:
            if panel.static is None or panel.static.shape[1] != self.static:
                raise InputError(f"This backbone expects {self.static} static numbers of a panel.")
            tokens = tokens + self.series(panel.static.float())[:, None]
        return tokens

    def _clock(self, time: Tensor, real: Tensor) -> Tensor:
        """Times (B, m) from the first cell of each series."""
        first = torch.where(real, time, torch.inf).amin(1, keepdim=True)
        return torch.where(real, time - first, 0.0)

    def _turn(self, time: Tensor) -> Turn:
        """Rotations (B, n, d / 2) of cells at ``time`` (B, n)."""
        angle = time[..., None] / self._lengths(self.width // self.heads // 2).to(time)
        return Turn(angle.cos().float(), angle.sin().float())

    def _lengths(self, count: int) -> Tensor:
        """(count,) lengths, even in their logarithm."""
        ends = math.log(self.shortest), math.log(4 * self.longest)
        return torch.linspace(*ends, count, dtype=torch.float64).exp()


def pick(tokens: Tensor, index: Tensor) -> Tensor:
    """(B, h, width) of (B, m, width) at ``index`` (B, h)."""
    return tokens.gather(1, index[:, :, None].expand(-1, -1, tokens.shape[2]))


def mask(live: Tensor) -> Tensor | None:
    """(B, 1, 1, n) of keys (B, n) that are there, or None where all are."""
    return None if bool(live.all()) else live[:, None, None]
