"""A codec of wavelet coefficients: the diffusion runs on sub-bands in the place of the field.

Fronts are few large coefficients, and every sub-band has a scale of its own, so that the noise of
the process hides fine structure no sooner than coarse. The sub-bands are the channels of one
coarser grid: after one level in two dimensions (B, 4 C, H / 2, W / 2), as many numbers as the
field. Sensors see the field: `Wavelet.physical` is the inverse transform, linear and
differentiable.

References
----------
Hu et al. Wavelet diffusion neural operator. ICLR 2025, section 3 (sub-bands as channels, one scale
each). https://arxiv.org/abs/2412.04833
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciddm.data.codec import Codec, Grid, encoded
from sciddm.errors import InputError
from sciddm.wavelet import DWT


@dataclass(frozen=True, eq=False)
class Wavelet(Codec):
    """Another codec, and its channels in wavelet sub-bands, each divided by its own scale.

    Parameters
    ----------
    inner : the codec of the field, with a value at every point.
    transform : wrapped along the periodic dims of the grid, mirrored along the others.
    scale : (channels,), positive, float64: the rms of each channel of the training data.

    Raises `InputError` for a masked field, a grid that the transform cannot halve so often, and
    scales that do not fit.
    """

    inner: Codec
    transform: DWT
    scale: np.ndarray

    def __post_init__(self) -> None:
        if self.inner.mask is not None:
            raise InputError(
                "Got a field with missing points, whose wavelet coefficients are not known; "
                "expected whole fields, leave the wavelets out."
            )
        self.transform.coarse(self.inner.shape[1:])
        if self.scale.shape != (self.channels,) or not (
            np.isfinite(self.scale).all() and (self.scale > 0).all()
        ):
            raise InputError(
                f"The scales of the sub-bands have shape {self.scale.shape}; expected "
                f"{(self.channels,)}, finite and positive."
            )

    @staticmethod
    def fit(
        ds: xr.Dataset, inner: Codec, sample_dim: str, name: str = "bior2.4", levels: int = 1
    ) -> Wavelet:
        """The scales of the training part ``ds``, with the filter ``name`` along all grid dims."""
        grid = inner.grid
        turns = tuple(grid.period(d) is not None for d in grid.dims)
        transform = DWT(name, turns, levels)
        fields = encoded(ds, inner, sample_dim).double()
        bands = transform.channels(transform.forward(fields))
        rms = bands.square().mean([0, *range(2, bands.ndim)]).sqrt().numpy()
        return Wavelet(inner, transform, rms)

    @property
    def grid(self) -> Grid:  # type: ignore[override]
        return self.inner.grid

    @property
    def variables(self) -> Mapping[str, Mapping[str, Any]]:
        return self.inner.variables

    @property
    def channels(self) -> int:
        return self.inner.channels * self.transform.fold

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, *self.transform.coarse(self.inner.shape[1:]))

    @property
    def mask(self) -> Tensor | None:
        return None

    def encode(self, arrays: Mapping[str, np.ndarray]) -> Tensor:
        x = self.inner.encode(arrays)
        return self.transform.channels(self.transform.forward(x)) / self._scale(x)

    def physical(self, x: Tensor) -> Tensor:
        nested = self.transform.unchannels(x * self._scale(x), self.inner.shape[1:])
        return self.inner.physical(self.transform.inverse(nested))

    def finish(self, values: Tensor) -> Tensor:
        return self.inner.finish(values)

    def at(self, grid: Grid) -> Wavelet:
        """The same codec where only coordinates change. Raises `InputError` for other sizes: a
        sub-band of a finer grid is another one."""
        if grid.shape != self.grid.shape:
            raise InputError(
                f"This model draws wavelet coefficients on its grid {self.grid.shape}; got "
                f"{grid.shape}. Use the training grid."
            )
        return replace(self, inner=self.inner.at(grid))

    def _scale(self, like: Tensor) -> Tensor:
        return torch.from_numpy(self.scale).to(like).view(-1, *[1] * len(self.grid.dims))
