"""sciddm: diffusion ensembles for scientific fields, from zarr to zarr.

    import sciddm as sd
    model = sd.load("models/poisson")
    post = sd.recover(model, sd.Observed(stations, std=0.1), members=64, seed=0)

Names are loaded when they are first used, so the command line answers at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sciddm import ensemble, footprint, plot, rollout, score
    from sciddm.anomalies import anomaly
    from sciddm.ensemble import Job
    from sciddm.equation import Residual, residual
    from sciddm.errors import InputError, RunError
    from sciddm.facade import forecast, generate, impute, krige, recover, refined
    from sciddm.model import Model, load
    from sciddm.outlook import Outlook
    from sciddm.probability import exceedance, log_prob
    from sciddm.task import Observed, Task, View

__version__ = "0.1.0"

# Two processes of two threads that spin while they wait lose most of their throughput.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Large blocks are kept instead of mapped and zeroed at every use: up to 4x at 128 x 128 (glibc).
with contextlib.suppress(OSError, AttributeError):
    _libc = ctypes.CDLL("libc.so.6")
    _libc.mallopt(-3, 1 << 30)
    _libc.mallopt(-1, 2**31 - 1)

_HOME = {
    "InputError": "errors",
    "Job": "ensemble",
    "Model": "model",
    "Observed": "task",
    "Outlook": "outlook",
    "Residual": "equation",
    "RunError": "errors",
    "Task": "task",
    "View": "task",
    "anomaly": "anomalies",
    "exceedance": "probability",
    "forecast": "facade",
    "generate": "facade",
    "impute": "facade",
    "krige": "facade",
    "load": "model",
    "log_prob": "probability",
    "recover": "facade",
    "refined": "facade",
    "residual": "equation",
}
_MODULES = ("ensemble", "footprint", "plot", "rollout", "score")

__all__ = [
    "InputError",
    "Job",
    "Model",
    "Observed",
    "Outlook",
    "Residual",
    "RunError",
    "Task",
    "View",
    "anomaly",
    "ensemble",
    "exceedance",
    "footprint",
    "forecast",
    "generate",
    "impute",
    "krige",
    "load",
    "log_prob",
    "plot",
    "recover",
    "refined",
    "residual",
    "rollout",
    "score",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 (any public name)
    if name in _MODULES:
        return importlib.import_module(f"sciddm.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"sciddm.{_HOME[name]}"), name)
    raise AttributeError(f"module 'sciddm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
