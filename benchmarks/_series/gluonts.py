"""The same numbers through gluonts, a long frame and a Dataset; a diffusion beside DeepAR.

What `docs/gluonts_example.py` does, for several seeds: eight hourly series made from each, the last
two days forecast a day at a time by 100 members of each forecaster. DeepAR and the diffusion are
trained on the same windows of the same dataset. Scores are gluonts' own and sciddm's of the same
forecasts. A point forecast has one member: its CRPS is its absolute error.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")  # gluonts counts series on the screen

import numpy as np
import xarray as xr
from _report import Report
from gluonts.dataset.pandas import PandasDataset
from gluonts.dataset.split import TestData, split
from gluonts.model import evaluate_forecasts
from gluonts.model.forecast import SampleForecast
from gluonts.model.seasonal_naive import SeasonalNaivePredictor

from sciddm import score
from sciddm.gluonts import DiffusionPredictor
from sciddm.series import GaussianSeries

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "gluonts_example.py"
MEMBERS = 100


def example() -> ModuleType:
    """The script of the docs, as a module."""
    spec = importlib.util.spec_from_file_location("gluonts_example", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def law_of(predictor: DiffusionPredictor) -> DiffusionPredictor:
    """The Gaussian law that the network was trained about: the diffusion without its network."""
    sampler = predictor.model.series
    law = GaussianSeries(sampler.law)  # type: ignore[arg-type]
    model = replace(predictor.model, sampler=law)
    return DiffusionPredictor(model, predictor.freq, predictor.prediction_length)


def labelled(forecasts: Sequence[SampleForecast], test: TestData) -> tuple[xr.DataArray, ...]:
    """Members (member, item, time) and truths (item, time)."""
    ens = np.stack([f.samples for f in forecasts], 1)
    truth = np.stack([entry["target"] for entry in test.label])
    dims = ("item", "time")
    return xr.DataArray(ens, dims=("member", *dims)), xr.DataArray(truth, dims=dims)


def row(predictor: Any, test: TestData, metrics: Sequence[Any]) -> dict[str, float]:
    """Scores of one forecaster by gluonts and by sciddm, on the same draws."""
    start = time.monotonic()
    forecasts = list(predictor.predict(test.input, num_samples=MEMBERS))
    seconds = time.monotonic() - start
    theirs = evaluate_forecasts(forecasts, test_data=test, metrics=metrics).iloc[0]
    ens, truth = labelled(forecasts, test)
    several = ens.sizes["member"] > 1
    wql = float(score.weighted_quantile_loss(ens, truth, levels=9))
    return {
        "members": ens.sizes["member"],
        "CRPS": float(score.crps(ens, truth, fair=several)),
        "wql_9": wql,
        "wql_19": float(score.weighted_quantile_loss(ens, truth, levels=19)),
        "inside 90 %": float(score.coverage(ens, truth)) if several else float("nan"),
        "predict s": seconds,
        "apart": abs(wql / float(theirs["mean_weighted_sum_quantile_loss"]) - 1),
    }


def seed_rows(
    script: ModuleType, seed: int, size: Mapping[str, int]
) -> tuple[dict[str, dict[str, float]], float]:
    """A row a forecaster on the series of one seed, and how far apart the routes are."""
    table = script.made(size["items"], size["days"], seed)
    dataset = PandasDataset.from_long_dataframe(
        table, item_id="item_id", timestamp="timestamp", freq="h", target="target"
    )
    training, template = split(dataset, offset=-script.HORIZON * script.WINDOWS)
    test = template.generate_instances(script.HORIZON, windows=script.WINDOWS)
    naive = SeasonalNaivePredictor(prediction_length=script.HORIZON, season_length=24)
    found: dict[str, Any] = {"seasonal naive": (naive, 0.0)}
    with tempfile.TemporaryDirectory() as folder:
        each = script.estimators(folder, size["steps"], size["epochs"], seed)
        for name, estimator in each.items():
            start = time.monotonic()
            predictor = estimator.train(training)
            found[name] = predictor, time.monotonic() - start
    found["its Gaussian law"] = law_of(found["diffusion"][0]), 0.0
    rows = {
        name: row(predictor, test, script.METRICS) | {"train s": seconds}
        for name, (predictor, seconds) in found.items()
    }
    return rows, script.apart(found["diffusion"][0], table)


def run(report: Report, quick: bool) -> None:
    """Both claims of equality, and the table."""
    warnings.filterwarnings("ignore", "Using a non-tuple sequence")
    warnings.filterwarnings("ignore", ".*LeafSpec.*|You defined a `validation_step`")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    script = example()
    size = {"items": 8, "days": 60, "steps": 600, "epochs": 8}
    if quick:
        size = {"items": 4, "days": 20, "steps": 40, "epochs": 1}
    found = [seed_rows(script, seed, size) for seed in range(1 if quick else 3)]
    lines = []
    for name in found[0][0]:
        per_seed = [rows[name] for rows, _ in found]
        line: dict[str, Any] = {"forecaster": name}
        for key in ("members", "CRPS", "wql_9", "wql_19", "inside 90 %", "train s", "predict s"):
            values = np.array([r[key] for r in per_seed])
            line[key] = float(values.mean())
            if key in ("CRPS", "wql_9") and len(values) > 1:
                line[f"{key} s.e."] = float(values.std(ddof=1) / np.sqrt(len(values)))
        lines.append(line)
    report.table("gluonts: a day ahead of hourly series, fair CRPS of the members", lines)
    report.claim(
        "gluonts: draws through gluonts, a long frame and a Dataset differ at most by (s.d.)",
        max(apart for _, apart in found), 0, 1e-6,
    )  # fmt: skip
    report.claim(
        "gluonts: its weighted quantile loss and sciddm's wql_9 differ at most by (relative)",
        max(r["apart"] for rows, _ in found for r in rows.values()), 0, 1e-6,
    )  # fmt: skip
