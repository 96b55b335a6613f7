"""Neural operators of the neuraloperator library as backbones.

What the library lacks or breaks is met here: conditioning on the noise level (its adaptive norm
cannot be constructed, so every block's norm is replaced by a FiLM), a state dict with functions in
it (removed), soft gating that fails in U-NO where widths change (linear skips). Positions are
appended by us, so both run on any grid.

References
----------
Li et al. Fourier neural operator for parametric partial differential equations. ICLR 2021.
https://arxiv.org/abs/2010.08895
Rahman, Ross, Azizzadenesheli. U-NO: U-shaped neural operators. TMLR 2023.
https://arxiv.org/abs/2204.11127
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import torch
from torch import Tensor, nn

from sciddm.denoise import Context
from sciddm.nn.spectral import Film, NoiseLevel, coordinates


class Level:
    """The embedding of the present call, read by every `FilmNorm` of one backbone."""

    def __init__(self) -> None:
        self.value: Tensor | None = None


class FilmNorm(nn.Module):
    """Stands where the library has a norm: FiLM of the present noise level, no norm."""

    def __init__(self, width: int, embedding: int, level: Level) -> None:
        nn.Module.__init__(self)
        self.film = Film(embedding, width)
        self._level = level

    def forward(self, x: Tensor) -> Tensor:
        if self._level.value is None:
            raise RuntimeError("FilmNorm was called outside its backbone.")
        return self.film(x, self._level.value)


class FNO(nn.Module):
    """The library's Fourier neural operator, conditioned on log kappa in every block.

    Parameters
    ----------
    inputs, outputs : channels. modes : kept along each axis. width : hidden channels.
    blocks : layers. scalars : parameters in the context.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        modes: tuple[int, ...],
        width: int = 32,
        blocks: int = 4,
        scalars: int = 0,
    ) -> None:
        from neuralop.models import FNO as LibraryFNO  # seconds to import, wanted by few

        nn.Module.__init__(self)
        self.inputs, self.outputs, self.modes = inputs, outputs, tuple(modes)
        self.width, self.blocks, self.scalars = width, blocks, scalars
        self._now = Level()
        self.level = NoiseLevel(2 * width, scalars)
        self.net = LibraryFNO(
            n_modes=self.modes,
            in_channels=inputs + len(self.modes),
            out_channels=outputs,
            hidden_channels=width,
            n_layers=blocks,
            positional_embedding=None,
            norm="group_norm",
        )
        _film(self.net.fno_blocks, 2 * width, self._now)

    def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
        return _run(self, x, log_kappa, context)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # noqa: ANN401 (torch's own)
        return _plain(nn.Module.state_dict(self, *args, **kwargs))


class UNO(nn.Module):
    """The library's U-shaped neural operator: five blocks, half the resolution in the middle."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        modes: tuple[int, ...],
        width: int = 32,
        scalars: int = 0,
    ) -> None:
        from neuralop.models import UNO as LibraryUNO

        nn.Module.__init__(self)
        self.inputs, self.outputs, self.modes = inputs, outputs, tuple(modes)
        self.width, self.scalars = width, scalars
        self._now = Level()
        self.level = NoiseLevel(2 * width, scalars)
        dim = len(self.modes)
        half = [max(m // 2, 1) for m in self.modes]
        scaling = [[f] * dim for f in (1.0, 0.5, 1.0, 2.0, 1.0)]
        with contextlib.redirect_stdout(io.StringIO()):  # the library prints on construction
            self.net = LibraryUNO(
                in_channels=inputs + dim,
                out_channels=outputs,
                hidden_channels=width,
                uno_out_channels=[width, 2 * width, 2 * width, width, width],
                uno_n_modes=[list(self.modes), half, half, half, list(self.modes)],
                uno_scalings=scaling,
                n_layers=5,
                positional_embedding=None,
                norm="group_norm",
                channel_mlp_skip="linear",
            )
        for block in self.net.fno_blocks:
            _film(block, 2 * width, self._now)

    def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
        return _run(self, x, log_kappa, context)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # noqa: ANN401 (torch's own)
        return _plain(nn.Module.state_dict(self, *args, **kwargs))


def _film(blocks: Any, embedding: int, level: Level) -> None:  # noqa: ANN401 (the library's own)
    blocks.norm = nn.ModuleList(
        FilmNorm(norm.num_channels, embedding, level) for norm in blocks.norm
    )


def _run(backbone: FNO | UNO, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
    backbone._now.value = backbone.level(log_kappa, context, x)
    try:
        if context.fields is not None:
            fields = context.fields.to(x).expand(x.shape[0], *context.fields.shape[1:])
            x = torch.cat([x, fields], dim=1)
        out: Tensor = backbone.net(torch.cat([x, coordinates(x)], dim=1))
        return out
    finally:
        backbone._now.value = None  # keeps copies for averaging free of graphs


def _plain(state: Any) -> dict[str, Any]:  # noqa: ANN401
    """The state without what is not a tensor, removed in place: a parent may own the dict."""
    for key in [k for k, v in state.items() if not isinstance(v, Tensor)]:
        del state[key]
    result: dict[str, Any] = state
    return result
