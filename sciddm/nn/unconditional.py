"""A backbone of conditional models that is told nothing: cells at any times, for a prior of series.

With a `SetTransformer` the prior is a diffusion of functions given as sets: no order of cells
matters, none is on a grid, and the same weights answer for more cells than they were trained on.

Zhang, Wonka. Functional diffusion. CVPR 2024, section 3 (a set of coordinates and
values in, answers at coordinates out). https://arxiv.org/abs/2311.15435
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from sciddm.series.conditional import Backbone, Given
from sciddm.series.panel import Panel


class Unconditional(nn.Module):
    """``(x (B, K, m), log_kappa, panel) -> (B, 1, m)`` by a ``backbone`` that sees no known cell.

    K is 1, or 2 with the law's own estimate beside.
    """

    def __init__(self, backbone: Backbone) -> None:
        nn.Module.__init__(self)
        self.backbone = backbone

    def forward(self, x: Tensor, log_kappa: Tensor, panel: Panel) -> Tensor:
        rows, m = len(x), x.shape[2]
        zero = x.new_zeros(rows, m)
        none = torch.zeros_like(panel.known)
        blind = replace(panel, known=none, value=zero, error=None)
        index = torch.arange(m, device=x.device).expand(rows, m)
        given = Given(blind, zero, torch.ones_like(zero), index, panel.real)
        pair = torch.stack([x[:, 0], x[:, -1]], dim=-1)[:, None]
        level = log_kappa.reshape(-1, 1).to(x)
        out: Tensor = self.backbone(pair, level, self.backbone.encode(given))
        return torch.where(panel.real[:, None], out, 0.0)
