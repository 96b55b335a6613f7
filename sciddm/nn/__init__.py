"""Backbones behind ``forward(x, log_kappa, context)``."""

from sciddm.nn.cellwise import Cellwise
from sciddm.nn.dropout import Dropped
from sciddm.nn.film import FilmNet
from sciddm.nn.operator import FNO, UNO
from sciddm.nn.regular import StepTransformer
from sciddm.nn.series import LongConv
from sciddm.nn.sets import SetTransformer
from sciddm.nn.spectral import SpectralOperator
from sciddm.nn.subbands import Subbands
from sciddm.nn.trend import TrendSeason
from sciddm.nn.unconditional import Unconditional
from sciddm.nn.unet import UNet

__all__ = [
    "FNO",
    "UNO",
    "Cellwise",
    "Dropped",
    "FilmNet",
    "LongConv",
    "SetTransformer",
    "SpectralOperator",
    "StepTransformer",
    "Subbands",
    "TrendSeason",
    "UNet",
    "Unconditional",
]
