"""Backbones behind ``forward(x, log_kappa, context)``."""

from sciddm.nn.film import FilmNet
from sciddm.nn.operator import FNO, UNO
from sciddm.nn.spectral import SpectralOperator
from sciddm.nn.unet import UNet

__all__ = ["FNO", "UNO", "FilmNet", "SpectralOperator", "UNet"]
