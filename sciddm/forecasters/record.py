"""Fitting a mean to one short record, and what it leaves of hours that the fit did not see.

What a regression leaves of the record that it was fitted to is too small, and so is any spread made
of it. The record is cut into blocks of days; each is forecast by the fit to all the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sciddm import fit
from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters.mean import Mean
from sciddm.forecasters.regression import Blended, Cyclic, Stencils, cycle, cycle_at, patterns

Stretch = tuple[Tensor, Tensor]
"""Consecutive frames (T, C, *grid), and the forcings (K, T) of their times."""


def regression(
    stretches: Sequence[Stretch],
    *,
    harmonics: int = 2,
    history: int = 3,
    ridge: float = 0.01,
    eofs: int = 20,
    order: int = 3,
    eof_ridge: float = 0.3,
    share: float = 0.4,
    swing: float = 0.0,
    turn: int = 24,
    periodic: bool = False,
) -> Cyclic:
    """The cyclic mean, local stencils and patterns of ``stretches``, fitted one after the other.

    harmonics : of the cycle. history, ridge : of the stencils, whose weight is how much a point
    follows the cycle: land more than sea. eofs, order, eof_ridge, share : of the patterns.
    swing, turn : see `Cyclic`; the rest is fitted without it.
    """
    frames = torch.cat([x for x, _ in stretches])
    waves = cycle(frames, torch.cat([f for _, f in stretches], dim=1), harmonics)
    films = [x.double().movedim(1, 0) - cycle_at(waves, f[None])[0] for x, f in stretches]
    amplitude = waves[1:].square().sum(0).sqrt()
    weight = amplitude / amplitude.mean().clamp_min(1e-12) - 1
    local = Stencils.fit(films, weight, history=history, ridge=ridge, periodic=periodic)
    modes = fit.eof(torch.cat(films, dim=1).movedim(1, 0), eofs).modes
    mean = Blended(local, patterns(films, modes, order, eof_ridge), share)
    return Cyclic(mean, waves, swing=swing, turn=turn)


def unseen(
    record: Tensor,
    forcings: Tensor,
    fitted: Callable[[Sequence[Stretch]], Mean],
    block: int,
    *,
    folds: int = 6,
    gap: int = 6,
) -> list[Tensor]:
    """What ``fitted`` leaves of the next ``block`` frames everywhere in ``record`` (T, C, *grid),
    with ``forcings`` (K, T): (n, C, block, *grid) for each fold, of the n consecutive frames that
    a forecast begins at; each by the fit without its own block of the record and ``gap`` frames on
    either side of it.

    Raises `InputError` for folds shorter than a block.
    """
    count = len(record)
    edges = [count * k // folds for k in range(folds + 1)]
    left = []
    for a, b in zip(edges, edges[1:], strict=False):
        ends = ((0, a - gap), (b + gap, count))
        mean = fitted([(record[i:j], forcings[:, i:j]) for i, j in ends if j - i > block])
        first = max(a, mean.history) + torch.arange(max(0, b - max(a, mean.history) - block + 1))
        if not len(first):
            raise InputError(
                f"Got {folds} folds of {b - a} frames for blocks of {block}; expected fewer folds."
            )
        left.append(left_of(mean, record, forcings, first, block))
    return left


def left_of(mean: Mean, record: Tensor, forcings: Tensor, first: Tensor, block: int) -> Tensor:
    """What ``mean`` leaves of the ``block`` frames of ``record`` that begin at each of ``first``
    (n,): (n, C, block, *grid)."""
    out = []
    for at in first.split(64):
        span = at[:, None] - mean.history + torch.arange(mean.history + block)
        film = record[span].movedim(2, 1)
        past, future = film[:, :, : mean.history], film[:, :, mean.history :]
        context = Context(past=past, forcings=forcings[:, span].movedim(1, 0))
        out.append(future - mean.ahead(past, context, 1, block))
    return torch.cat(out)
