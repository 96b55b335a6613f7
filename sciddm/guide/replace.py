"""Replacement: known grid values take their observed value in every clean estimate.

Exact for the observed points alone; the rest of the field hears of them only through x_t, so the
posterior is too wide between observations. The baseline of inpainting.

References
----------
Lugmayr et al. RePaint: inpainting using denoising diffusion probabilistic models. CVPR 2022, eq. 8.
https://arxiv.org/abs/2201.09865
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser


class Replace(Denoiser):
    """x_hat with the values ``known`` (C, *grid) put where ``keep`` (C, *grid) is true."""

    def __init__(self, prior: Denoiser, known: Tensor, keep: Tensor) -> None:
        torch.nn.Module.__init__(self)
        self.prior, self.process = prior, prior.process
        self.known, self.keep = known, keep

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return torch.where(self.keep, self.known.to(x_t), self.prior(x_t, t, context))
