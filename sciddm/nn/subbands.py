"""A backbone that works on wavelet coefficients: fields, or films with time as an axis.

References
----------
Hu et al. Wavelet diffusion neural operator. ICLR 2025, section 3 (a whole space-time trajectory in
sub-bands as channels). https://arxiv.org/abs/2412.04833
"""

from __future__ import annotations

from torch import Tensor, nn

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.wavelet import DWT


class Subbands(nn.Module):
    """``inner`` between a wavelet transform of its input and the inverse of its output.

    Under an orthonormal transform white noise stays white and a squared error what it is: the
    diffusion is that of the coefficients, and Gaussian laws, known frames and observations are told
    in the field as before.

    Parameters
    ----------
    inner : backbone of ``inputs * fold`` to ``outputs * fold`` channels on the coarse grid, see
        `DWT.channels`. transform : over all grid axes, the time of a film among them.

    Raises `InputError` for a transform that is not orthonormal, and conditions in the context,
    which live on the grid of the field.
    """

    def __init__(self, inner: nn.Module, transform: DWT) -> None:
        if not transform.orthonormal:
            raise InputError(
                f"Got the wavelet {transform.name!r}, which is not orthonormal; expected one such "
                "as 'db2' or 'sym4'."
            )
        nn.Module.__init__(self)
        self.inner, self.transform = inner, transform

    def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
        if context.fields is not None or context.forcings is not None:
            raise InputError("Got static fields or forcings beside sub-bands; expected none.")
        c = self.transform.channels(self.transform.forward(x))
        out = self.inner(c, log_kappa, context)
        return self.transform.inverse(self.transform.unchannels(out, tuple(x.shape[2:])))
