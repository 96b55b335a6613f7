"""A backbone of conditional models as the one of an unconditional prior: nothing is known.

So a prior of irregular series (`sciddm.series.prior.FunctionPrior`) has the transformer over sets
of cells (`sciddm.nn.SetTransformer`): all cells are written, and attend to one another.

Bilos et al. Modeling temporal data as continuous functions with stochastic process diffusion. ICML
2023, section 3.2 (a transformer over the times of a series). https://arxiv.org/abs/2211.02590
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sciddm.errors import InputError
from sciddm.series.conditional import Backbone, Given
from sciddm.series.panel import Panel


class Cellwise(nn.Module):
    """``(x (B, K, m), log_kappa, panel) -> (B, 1, m)`` by a ``backbone`` of conditional models.

    K is 1 or 2. No value of the panel is looked at: only times, channels, covariates and static
    numbers, and which cells are real.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor, log_kappa: Tensor, panel: Panel) -> Tensor:
        rows, inputs, m = x.shape
        if inputs > 2 or len(panel) != rows:
            raise InputError(
                f"Got {inputs} inputs for {rows} rows and a panel of {len(panel)}; expected 1 or 2 "
                "inputs and a panel with as many rows."
            )
        if _alike(panel):  # many draws of one series: its cells are read once
            panel, seen = panel.rows(slice(0, 1)), x.movedim(1, 2)[None]
        else:
            seen = x.movedim(1, 2)[:, None]
        level = log_kappa.float().reshape((1, -1) if log_kappa.numel() == 1 else (len(panel), -1))
        nothing = panel.given(torch.zeros_like(panel.real))
        blank = torch.zeros_like(panel.time, dtype=torch.float32)
        every = torch.arange(m, device=x.device).expand(len(panel), -1)
        given = Given(nothing, blank, blank + 1, every, panel.real)
        seen = seen.expand(*seen.shape[:3], 2).float()
        answer: Tensor = self.backbone(seen, level, self.backbone.encode(given))
        return torch.where(panel.real[:, None], answer, 0.0).reshape(rows, 1, m)


def _alike(panel: Panel) -> bool:
    """Whether all rows have the same cells."""
    parts = (panel.time, panel.channel, panel.real, panel.covariates, panel.static)
    return all(x is None or bool((x == x[:1]).all()) for x in parts)
