"""Laws of series by the score of what is hidden, for records that no Gaussian law is true of.

The likelihood of a dense record is ruled by its finest steps: where the law is wrong there, by
fronts and other jumps, it buys them with a spread that is too wide across a gap. `fitted` with
`Hidden` as its loss chooses the same numbers by the task itself: the score of each hidden cell
given the known ones, whose optimum is a spread as wide as the misses.

Gneiting, Raftery. Strictly proper scoring rules, prediction, and estimation. 2007, eq. 21.
Varin, Reid, Firth. An overview of composite likelihood methods. 2011 (pseudo-likelihoods).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.series.law import Law, posterior
from sciddm.series.panel import Panel


@dataclass(frozen=True, eq=False)
class Hidden:
    """CRPS of the posterior at each wanted cell, the mean over cells and then over series.

    unit : a law whose posterior spread, averaged over the wanted cells of a series, is the unit in
        which that series is scored, so that long gaps do not rule short ones; fixed.
    """

    unit: Law

    def __call__(self, law: Law, panel: Panel) -> Tensor:
        """A scalar; the wanted cells of ``panel`` hold the truth."""
        wanted = panel.wanted
        count = wanted.sum(1).clamp_min(1)
        with torch.no_grad():
            unit = torch.where(wanted, posterior(self.unit, panel).std, 0.0).sum(1) / count
        found = posterior(law, panel)
        # where nothing is wanted the factor is 0, and its root has no slope
        variance = torch.where(wanted, found.factor.square().sum(-1), 1.0)
        score = gaussian_crps(found.mean, variance.sqrt(), panel.value.double())
        one = torch.where(wanted, score, 0.0).sum(1) / count / unit.clamp_min(1e-12)
        return one.sum() / (wanted.any(1).sum().clamp_min(1))


def widening(law: Law, panels: Iterable[Panel], level: float = 0.9) -> float:
    """The factor on the posterior's s.d. with which its central interval of ``level`` holds that
    share of the wanted cells, which hold the truth; every series counts the same."""
    size, weight = [], []
    with torch.no_grad():
        for panel in panels:
            found, wanted = posterior(law, panel), panel.wanted
            size.append(((panel.value.double() - found.mean).abs() / found.std)[wanted])
            weight.append((1 / wanted.sum(1, keepdim=True)).expand_as(wanted)[wanted])
    ordered, order = torch.cat(size).sort()
    share = torch.cat(weight)[order].cumsum(0)
    at = torch.searchsorted(share, level * share[-1]).clamp_max(len(ordered) - 1)
    usual = torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64))
    return float(ordered[at] / usual)


def gaussian_crps(mean: Tensor, std: Tensor, truth: Tensor) -> Tensor:
    """CRPS of N(mean, std^2), cell by cell."""
    z = (truth - mean) / std
    density = math.sqrt(2 / math.pi) * torch.exp(-0.5 * z.square())
    return std * (z * torch.erf(z / math.sqrt(2)) + density - 1 / math.sqrt(math.pi))
