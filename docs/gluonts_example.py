"""Forecasts through gluonts: DeepAR and a diffusion on the same data, two lines apart.

    python docs/gluonts_example.py               # eight hourly series, made here: two minutes
    python docs/gluonts_example.py ETTh1.csv     # or the columns of a table with a column `date`

Everything between the two estimators and the table is gluonts: its dataset, split, evaluation.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
import warnings
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")  # gluonts counts series on the screen

import numpy as np
import pandas as pd
from gluonts.dataset.pandas import PandasDataset
from gluonts.dataset.split import split
from gluonts.ev.metrics import MAE, Coverage, MeanWeightedSumQuantileLoss
from gluonts.model import evaluate_model
from gluonts.model.seasonal_naive import SeasonalNaivePredictor
from gluonts.torch import DeepAREstimator

import sciddm as sd
from sciddm.gluonts import DiffusionEstimator

HORIZON, CONTEXT, WINDOWS = 24, 72, 2
METRICS = [MeanWeightedSumQuantileLoss([k / 10 for k in range(1, 10)]), MAE()]
METRICS += [Coverage(0.05), Coverage(0.95)]


def made(items: int = 8, days: int = 60, seed: int = 0) -> pd.DataFrame:
    """A long frame: daily cycles of different size and phase, red noise, bursts that are skewed."""
    rng = np.random.default_rng(seed)
    hours = np.arange(24 * days)
    parts = []
    for k in range(items):
        phase, size = rng.uniform(0, 24), rng.uniform(5, 40)
        angle = 2 * np.pi * (hours - phase) / 24
        red, shock = np.zeros(len(hours)), rng.normal(size=len(hours))
        for n in hours[1:]:
            red[n] = 0.9 * red[n - 1] + 0.4 * shock[n]
        wave = 2 + np.sin(angle) + 0.4 * np.sin(2 * angle) + 0.3 * red
        burst = rng.gamma(0.5, 1.0, len(hours)) * np.clip(np.sin(angle), 0.1, 1)
        dates = pd.date_range("2024-01-01", periods=len(hours), freq="h")
        values = {"item_id": f"series {k}", "timestamp": dates, "target": size * (wave + burst)}
        parts.append(pd.DataFrame(values))
    return pd.concat(parts, ignore_index=True)


def read(path: str) -> pd.DataFrame:
    """A long frame of the columns of a table, an item each; the last 150 days."""
    wide = pd.read_csv(path, parse_dates=["date"]).rename(columns={"date": "timestamp"})
    return wide.tail(24 * 150).melt("timestamp", var_name="item_id", value_name="target")


def estimators(folder: str, steps: int, epochs: int, seed: int = 0) -> dict[str, Any]:
    """The two lines."""
    trainer = {
        "max_epochs": epochs, "default_root_dir": folder, "logger": False, "accelerator": "cpu",
        "enable_progress_bar": False, "enable_model_summary": False,
    }  # fmt: skip
    about: dict[str, Any] = {"freq": "h", "prediction_length": HORIZON, "context_length": CONTEXT}
    return {
        "DeepAR": DeepAREstimator(**about, trainer_kwargs=trainer),
        "diffusion": DiffusionEstimator(**about, steps=steps, seed=seed),
    }


def compared(
    table: pd.DataFrame, steps: int = 600, epochs: int = 8, seed: int = 0
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Scores of the last days, a row a forecaster, and the predictors."""
    dataset = PandasDataset.from_long_dataframe(
        table, item_id="item_id", timestamp="timestamp", freq="h", target="target"
    )
    training, template = split(dataset, offset=-HORIZON * WINDOWS)
    test = template.generate_instances(HORIZON, windows=WINDOWS)
    found: dict[str, Any] = {
        "seasonal naive": SeasonalNaivePredictor(prediction_length=HORIZON, season_length=24)
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:  # where DeepAR leaves its checkpoints
        for name, estimator in estimators(folder, steps, epochs, seed).items():
            start = time.monotonic()
            found[name] = estimator.train(training)
            rows.append({"forecast": name, "train s": round(time.monotonic() - start)})
    rows.insert(0, {"forecast": "seasonal naive", "train s": 0})
    for row in rows:
        start = time.monotonic()
        scores = evaluate_model(found[row["forecast"]], test_data=test, metrics=METRICS).iloc[0]
        row |= {
            "wql_9": scores["mean_weighted_sum_quantile_loss"],
            "mae_median": scores["MAE[0.5]"],
            "inside 90 %": scores["coverage[0.95]"] - scores["coverage[0.05]"],
            "predict s": round(time.monotonic() - start),
        }
    return pd.DataFrame(rows), found


def apart(predictor: Any, table: pd.DataFrame, members: int = 20) -> float:
    """Largest difference between the draws that come through gluonts and those of sd.forecast on
    the frame and on a Dataset, in s.d. of the series."""
    dataset = PandasDataset.from_long_dataframe(
        table, item_id="item_id", timestamp="timestamp", freq="h", target="target", dtype=np.float64
    )
    how = {"steps": HORIZON, "members": members, "seed": predictor.seed}
    frame = sd.forecast(predictor.model, table, **how)
    grid = table.set_index(["item_id", "timestamp"])["target"].to_xarray().to_dataset()
    labelled = sd.forecast(predictor.model, grid, **how)["target"]
    most = 0.0
    for forecast in predictor.predict(dataset, num_samples=members):
        mine = frame[frame["item_id"] == forecast.item_id]
        long = mine.pivot(index="member", columns="timestamp", values="target").values
        dense = labelled.sel(item_id=forecast.item_id).transpose("member", ...).values
        size = table.loc[table["item_id"] == forecast.item_id, "target"].std()
        for other in (long, dense):
            most = max(most, float(np.abs(other - forecast.samples).max() / size))
    return most


def main() -> None:
    """Print the table."""
    warnings.filterwarnings("ignore", "Using a non-tuple sequence")  # of gluonts, by the thousand
    warnings.filterwarnings("ignore", ".*LeafSpec.*|You defined a `validation_step`")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    table = read(sys.argv[1]) if len(sys.argv) > 1 else made()
    scores, found = compared(table)
    print(scores.to_string(index=False, float_format=lambda v: f"{v:.4f}"))
    print(f"gluonts, frame and Dataset differ by {apart(found['diffusion'], table):.1e} s.d.")


if __name__ == "__main__":
    main()
