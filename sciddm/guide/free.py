r"""Classifier-free guidance: a conditional estimate pushed away from the unconditional one.

    x_hat = x_hat_0 + w (x_hat_1 - x_hat_0)

w = 1 is the conditional law. Another w follows the score of p_1^w p_0^{1-w} at each noise level,
which is not the score of the noised p_1^w p_0^{1-w}: for two Gaussians of variance v_1 and v_0 that
tilted law has variance 1 / (w / v_1 + (1 - w) / v_0), while the probability flow draws

    v_1^w v_0^{1-w},

narrower than p_1 for w > 1 and v_1 < v_0, but not the tilted law: of the wrong width, and with
another mean too. A weight is a choice of taste, not of calibration.

References
----------
Ho, Salimans. Classifier-free diffusion guidance. 2022, eq. 6 (their w is ours less 1).
https://arxiv.org/abs/2207.12598
Bradley, Nakkiran. Classifier-free guidance is a predictor-corrector. 2024, section 3 (the Gaussian
case). https://arxiv.org/abs/2408.09000
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser
from sciddm.errors import InputError


class ClassifierFree(Denoiser):
    """x_hat_0 + weight (x_hat_1 - x_hat_0).

    Parameters
    ----------
    conditional, unconditional : denoisers of the same process; two evaluations a call.
    weight : 0 or more; 1 is the conditional one, 0 the other.
    """

    def __init__(self, conditional: Denoiser, unconditional: Denoiser, weight: float) -> None:
        if not 0 <= weight < math.inf:
            raise InputError(f"Got a weight of {weight}; expected a finite number of at least 0.")
        first, second = conditional.process, unconditional.process
        if first is not second and first != second:
            raise InputError(
                f"Got denoisers of {first} and {second}; expected one process for both."
            )
        torch.nn.Module.__init__(self)
        self.conditional, self.unconditional = conditional, unconditional
        self.weight, self.process = weight, first

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return torch.lerp(
            self.unconditional(x_t, t, context), self.conditional(x_t, t, context), self.weight
        )


class Blind(Denoiser):
    """A denoiser that is shown no fields and no scalars: the unconditional half of a network that
    was trained with and without them. The anchor is kept, for the process needs it."""

    def __init__(self, prior: Denoiser) -> None:
        torch.nn.Module.__init__(self)
        self.prior, self.process = prior, prior.process

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        blind: Tensor = self.prior(x_t, t, Context(anchor=context.anchor))
        return blind
