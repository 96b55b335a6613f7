"""What losses over several draws share: the fair CRPS, addressed uniform numbers, a time's code."""

from __future__ import annotations

import torch
from torch import Tensor

from sciddm.forecasters.scored import almost_fair
from sciddm.random import Streams


def fair_crps(draws: Tensor, target: Tensor) -> Tensor:
    """(B,): the fair CRPS of ``draws`` (M, B, ...) at ``target`` (B, ...), averaged over a row.

    Of one draw it is the absolute error, whose best forecast is the median.
    """
    errors = draws - target
    score = almost_fair(errors) if len(draws) > 1 else errors.abs()[0]
    return score.flatten(1).mean(1)


def uniform(rng: Streams, rows: int) -> Tensor:
    """(rows,) numbers, uniform in [0, 1), float64, addressed by ``rng``."""
    value = torch.special.ndtr(rng.normal(torch.empty(rows, 1, dtype=torch.float64))[:, 0])
    return value.clamp(max=1 - 1e-12)


def share_of(share: Tensor) -> Tensor:
    """A share of a block in [0, 1] as the level of a backbone, which resolves -5 .. 5 well."""
    return 10 * share - 5
