"""gluonts in and out: the numbers of every other route, exact laws, a saved folder."""

from __future__ import annotations

import ast
import importlib.util
import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from gluonts.dataset.common import ListDataset
from gluonts.dataset.pandas import PandasDataset
from gluonts.dataset.split import split
from gluonts.ev.metrics import MeanWeightedSumQuantileLoss
from gluonts.evaluation import Evaluator, make_evaluation_predictions
from gluonts.model import evaluate_model
from gluonts.model.predictor import Predictor
from gluonts.torch import DeepAREstimator

import sciddm as sd
from sciddm.data.items import Items
from sciddm.data.masks import Ahead
from sciddm.data.measure import Centred
from sciddm.data.series import SeriesCodec
from sciddm.errors import InputError
from sciddm.gluonts import DiffusionEstimator, DiffusionPredictor
from sciddm.model import Model
from sciddm.nn.sets import SetTransformer
from sciddm.series.conditional import Conditional
from sciddm.series.gp import GaussianSeries
from sciddm.series.kernel import Mixed, OrnsteinUhlenbeck, Term
from sciddm.series_ahead import Setting, named, usual
from sciddm.task import Task, View

HORIZON, CONTEXT, RATE = 4, 12, 0.8
LAW = Mixed(
    (Term(OrnsteinUhlenbeck(-1 / math.log(RATE)), torch.zeros(1, 0), torch.ones(1).double()),),
    torch.zeros(1).double(),
)
LEVELS = MeanWeightedSumQuantileLoss([k / 10 for k in range(1, 10)])


def exact(items: Items, setting: Setting) -> Model:
    """Red noise of unit variance in steps of the data, as it is: nothing is fitted."""
    clock = setting.clock(items)
    one = np.ones(len(items.variables))
    codec = SeriesCodec(
        items.variables, {}, 0 * one, one, clock, setting.context + setting.horizon,
        masks=Ahead(setting.horizon),
    )  # fmt: skip
    assert clock.step is not None
    rate = OrnsteinUhlenbeck(-clock.step / math.log(RATE))
    c = len(items.variables)
    law = Mixed((Term(rate, torch.zeros(c, 0), torch.ones(c).double()),), torch.zeros(c).double())
    return Model(Task(View(items.variables)), codec, GaussianSeries(law))


def tiny(items: Items, setting: Setting) -> Model:
    """A small network about red noise."""
    clock = setting.clock(items)
    codec = SeriesCodec.fit(
        items, clock, window=setting.context + setting.horizon, item=Centred(),
        masks=Ahead(setting.horizon),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = SetTransformer(
            1, 1.0, 16.0, width=8, heads=2, readers=1, writers=1, covariates=codec.told,
            static=len(codec.static),
        )  # fmt: skip
    return Model(Task(View(items.variables)), codec, Conditional(net, LAW, 1, steps=3))


def frame(items: int = 3, rows: int = 60, freq: str = "h", seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    parts = []
    for k in range(items):
        x = np.zeros(rows)
        for n in range(1, rows):
            x[n] = RATE * x[n - 1] + math.sqrt(1 - RATE**2) * rng.normal()
        dates = pd.date_range("2021-03-01", periods=rows, freq=freq)
        parts.append(pd.DataFrame({"item_id": f"s{k}", "timestamp": dates, "target": x}))
    return pd.concat(parts, ignore_index=True)


def pandas_dataset(table: pd.DataFrame, freq: str = "h", **others: Any) -> PandasDataset:
    return PandasDataset.from_long_dataframe(
        table, item_id="item_id", timestamp="timestamp", freq=freq, target="target",
        dtype=np.float64, **others,
    )  # fmt: skip


def estimator(**others: Any) -> DiffusionEstimator:
    numbers: dict[str, Any] = {"freq": "h", "prediction_length": HORIZON, "build": exact}
    return DiffusionEstimator(**(numbers | {"context_length": CONTEXT} | others))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPredictor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator(build=tiny, steps=6, batch_size=4).train(pandas_dataset(frame()))


def test_the_same_numbers_by_every_route(trained: DiffusionPredictor) -> None:
    table = frame(seed=1)
    forecasts = list(trained.predict(pandas_dataset(table), num_samples=40))
    rows = [
        {"start": "2021-03-01", "target": t["target"].values, "item_id": n}
        for n, t in table.groupby("item_id")
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the old name
        listed = list(trained.predict(ListDataset(rows[::-1], freq="H"), num_samples=40))
    long = sd.forecast(trained.model, table, steps=HORIZON, members=40, seed=0)
    dense = table.pivot(index="timestamp", columns="item_id", values="target").stack().to_xarray()
    labelled = sd.forecast(
        trained.model, dense.rename("target").to_dataset(), steps=HORIZON, members=40, seed=0
    )
    other = {f.item_id: f for f in listed}
    for forecast in forecasts:
        name, scale = forecast.item_id, np.abs(forecast.samples).max()
        mine = long[long["item_id"] == name].pivot(
            index="member", columns="timestamp", values="target"
        )
        assert list(mine.columns) == list(forecast.index.to_timestamp())
        np.testing.assert_allclose(mine.values, forecast.samples, atol=1e-6 * scale)
        found = labelled["target"].sel(item_id=name).transpose("member", "lead_time")
        np.testing.assert_allclose(found.values, forecast.samples, atol=1e-6 * scale)
        # a ListDataset holds single precision
        np.testing.assert_allclose(other[name].samples, forecast.samples, atol=1e-5 * scale)


def test_draws_have_the_exact_law_of_the_values_that_are_there() -> None:
    """Red noise: rate^k of the last known value, variance 1 - rate^2k, whatever is missing."""
    target = frame(items=1)["target"].values.copy()
    target[[-1, -2, -7]] = np.nan
    start = pd.Period("2021-03-01", "h")
    predictor = estimator().train([{"start": start, "target": frame()["target"].values}])
    (forecast,) = predictor.predict([{"start": start, "target": target}], num_samples=4000)
    lag = 2 + np.arange(1, HORIZON + 1)
    assert forecast.start_date == start + 60 and forecast.samples.shape == (4000, HORIZON)
    np.testing.assert_allclose(forecast.mean, RATE**lag * target[-3], atol=0.06)
    np.testing.assert_allclose(forecast.samples.var(0), 1 - RATE ** (2 * lag), rtol=0.09)


def test_forecasts_come_in_order_and_only_when_asked_for() -> None:
    predictor = estimator().train(pandas_dataset(frame()))
    asked = []

    def entries() -> Iterator[dict[str, Any]]:
        for k, entry in enumerate(pandas_dataset(frame(items=9))):
            asked.append(k)
            yield entry

    first = list(islice(predictor.predict(entries(), num_samples=3), 2))
    assert [f.item_id for f in first] == ["s0", "s1"] and asked == [0, 1]


def test_gluonts_own_tools_score_it() -> None:
    table = frame()
    dataset = pandas_dataset(table)
    predictor = estimator().train(dataset)
    forecasts, truths = make_evaluation_predictions(dataset, predictor, num_samples=50)
    pooled, single = Evaluator(num_workers=None)(truths, forecasts)
    _, template = split(dataset, offset=-HORIZON)
    test_data = template.generate_instances(HORIZON)
    metrics = evaluate_model(predictor, test_data=test_data, metrics=[LEVELS])
    # 100 members there, 50 here: the first 50 are the same
    assert metrics.iloc[0, 0] == pytest.approx(pooled["mean_wQuantileLoss"], rel=0.15)
    assert list(single["item_id"]) == ["s0", "s1", "s2"]
    later = template.generate_instances(HORIZON, windows=1)
    again = evaluate_model(predictor, test_data=later, metrics=[LEVELS])
    assert again.iloc[0, 0] == metrics.iloc[0, 0]


def test_a_saved_predictor_forecasts_the_same_numbers(
    trained: DiffusionPredictor, tmp_path: Path
) -> None:
    trained.serialize(tmp_path)
    again = Predictor.deserialize(tmp_path)  # by gluonts, which reads the class from its note
    assert isinstance(again, DiffusionPredictor)
    data = pandas_dataset(frame(seed=2))
    pairs = zip(trained.predict(data, num_samples=5), again.predict(data, 5), strict=True)
    for one, two in pairs:
        np.testing.assert_array_equal(one.samples, two.samples)
    kinds = {p.suffix for p in tmp_path.rglob("*") if p.is_file()}
    assert kinds == {".json", ".safetensors", ".md"}
    trained.serialize(tmp_path)  # over the old one, as gluonts does
    (tmp_path / "predictor.json").write_text("{}")
    with pytest.raises(InputError, match="holds no saved predictor"):
        DiffusionPredictor.deserialize(tmp_path)


def test_training_moves_the_weights_and_keeps_the_numbers_of_its_seed(
    trained: DiffusionPredictor,
) -> None:
    sampler = trained.model.sampler
    assert isinstance(sampler, Conditional)
    assert float(sampler.backbone.head.weight.abs().max()) > 0  # untrained: 0
    again = estimator(build=tiny, steps=6, batch_size=4).train(pandas_dataset(frame()))
    for mine, other in zip(sampler.parameters(), again.model.sampler.parameters(), strict=True):
        assert torch.equal(mine, other)
    # what chooses the weights: the last forecasts, or series that are given
    data = pandas_dataset(frame())
    other = estimator(build=tiny, steps=2, batch_size=4).train(data, pandas_dataset(frame(seed=5)))
    same = estimator(build=tiny, steps=2, batch_size=4).train(data, pandas_dataset(frame(seed=6)))
    losses = [p.model.notes["training"]["validation_loss"] for p in (other, same)]
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("freq", "dates"),
    [("h", "h"), ("H", "h"), ("D", "D"), ("15min", "15min"), ("M", "MS"), ("ME", "ME")],
)
def test_old_and_new_names_of_frequencies(freq: str, dates: str) -> None:
    table = frame(items=1, rows=40, freq=dates)
    period = "M" if freq == "ME" else dates.replace("MS", "M").replace("ME", "M")
    data = pandas_dataset(table, period)
    predictor = estimator(freq=freq).train(data)
    (forecast,) = predictor.predict(data, num_samples=2000)
    assert forecast.start_date == pd.Period(table["timestamp"].iloc[-1], period) + 1
    # a step is a step of the clock: months are equal ones
    last = float(table["target"].iloc[-1])
    np.testing.assert_allclose(forecast.mean, last * RATE ** np.arange(1, 5), atol=0.08)


def test_business_days_have_no_weekends() -> None:
    table = frame(items=2, rows=60, freq="B")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pandas_dataset(table, "B")
        build = partial(usual, law_steps=2)
        predictor = DiffusionEstimator("B", 6, 15, steps=2, batch_size=2, build=build).train(data)
        forecast = next(iter(predictor.predict(data, num_samples=4)))
        assert (forecast.index.to_timestamp().dayofweek < 5).all()
    assert predictor.model.cells.clock.step is None


def test_several_channels_covariates_static_features_and_a_lead_time() -> None:
    rng = np.random.default_rng(0)
    start = pd.Period("2021-03-01", "h")
    known, ahead = rng.normal(size=(1, 60 + HORIZON)), rng.normal(size=(2, 60))
    entry = {"start": start, "target": ahead[0], "feat_dynamic_real": known}
    entry |= {"feat_static_real": np.array([2.0]), "item_id": "a"}
    counts = {"num_feat_dynamic_real": 1, "num_feat_static_real": 1}
    predictor = estimator(build=tiny, steps=3, batch_size=2, **counts).train([entry])
    (one,) = predictor.predict([entry], num_samples=3)
    other = known.copy()
    other[0, -1] += 3
    (two,) = predictor.predict([entry | {"feat_dynamic_real": other}], num_samples=3)
    assert np.abs(one.samples - two.samples).max() > 1e-7
    # two channels: (samples, rows, channels)
    wide = estimator(variables=("u", "v")).train([{"start": start, "target": ahead}])
    (both,) = wide.predict([{"start": start, "target": ahead}], num_samples=3)
    assert both.samples.shape == (3, HORIZON, 2)
    # with a lead time the rows after it, of the same draws
    late = estimator(prediction_length=2, lead_time=2)
    full = estimator().train([{"start": start, "target": ahead[0]}])
    tail = late.train([{"start": start, "target": ahead[0]}])
    (whole,) = full.predict([{"start": start, "target": ahead[0]}], num_samples=3)
    (end,) = tail.predict([{"start": start, "target": ahead[0]}], num_samples=3)
    np.testing.assert_allclose(end.samples, whole.samples[:, 2:], atol=1e-12)
    assert end.start_date == whole.start_date + 2


def test_one_line_for_what_cannot_be_read() -> None:
    start, x = pd.Period("2021-03-01", "h"), np.sin(np.arange(40.0))
    good = {"start": start, "target": x, "item_id": "a"}
    predictor = estimator().train([good])

    def one(entry: dict[str, Any]) -> None:
        list(predictor.predict([entry], num_samples=2))

    for entry, said in (
        (good | {"start": pd.Period("2021-03-01", "D")}, "'a' starts at a period of 'D'.*'h'"),
        (good | {"target": np.full(40, np.nan)}, "'a' has 40 rows and no value"),
        (good | {"target": np.empty(0)}, "'a' has 0 rows and no value"),
        (good | {"target": np.ones((2, 40))}, "'a' has 2 channels; expected 1: target"),
        (good | {"target": np.append(x, np.inf)}, "'a': row 40 is infinite"),
    ):
        with pytest.raises(InputError, match=said) as fault:
            one(entry)
        assert "\n" not in str(fault.value)
    with pytest.raises(InputError, match="1 of 1 items are shorter .* = 12 \\+ 4 rows, .*'a'"):
        estimator().train([good | {"target": x[:15]}])
    with pytest.warns(UserWarning, match="1 of 2 items .*'b' \\(15 rows\\).*skipped"):
        estimator().train([good, good | {"target": x[:15], "item_id": "b"}])
    with pytest.warns(UserWarning, match="1 of 2 items are constant: 'c'"):
        estimator().train([good, good | {"target": 0 * x, "item_id": "c"}])
    with pytest.raises(InputError, match="1 of 1 items are constant: 'a'; expected some"):
        estimator().train([good | {"target": 0 * x}])
    with pytest.warns(UserWarning, match="holds feat_static_cat, which are not read"):
        estimator().train([good | {"feat_static_cat": np.array([1])}])
    with pytest.raises(InputError, match="The training data holds no series"):
        estimator().train([])
    with pytest.raises(InputError, match="Got the frequency 'fortnight'"):
        named("fortnight")
    told = estimator(build=tiny, steps=2, batch_size=2, num_feat_dynamic_real=1)
    dynamic = good | {"feat_dynamic_real": np.ones((1, 40))}
    with pytest.raises(InputError, match=r"'a' has feat_dynamic_real of shape \(1, 40\); .*44"):
        list(told.train([dynamic]).predict([dynamic]))
    codec = replace(predictor.model.cells, names=("v",))
    other = DiffusionPredictor(replace(predictor.model, codec=codec), "h", HORIZON)
    assert next(other.predict([good], 2)).samples.shape == (2, HORIZON)


def test_nothing_else_of_the_library_imports_gluonts() -> None:
    package = Path(sd.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "gluonts" in text else ():
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(n.split(".")[0] == "gluonts" or n == "sciddm.gluonts" for n in names):
                found.add(path.relative_to(package).as_posix())
    assert found == {"gluonts.py"}


def test_the_script_of_the_docs_runs_beside_deepar(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "docs" / "gluonts_example.py"
    spec = importlib.util.spec_from_file_location("gluonts_example", path)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    table = script.made(items=2, days=8)
    wide = table.pivot(index="timestamp", columns="item_id", values="target").rename_axis("date")
    wide.to_csv(tmp_path / "wide.csv")
    pd.testing.assert_series_equal(
        script.read(tmp_path / "wide.csv")["target"], table["target"], check_index=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pair = script.estimators(str(tmp_path), steps=1, epochs=1)
        small = {"DeepAR": DeepAREstimator("h", 24, trainer_kwargs=pair["DeepAR"].trainer_kwargs,
                                           num_batches_per_epoch=1, batch_size=2)}  # fmt: skip
        small["diffusion"] = DiffusionEstimator("h", 24, 72, build=exact)
        script.estimators = lambda *_: small
        scores, found = script.compared(table)
    assert list(scores["forecast"]) == ["seasonal naive", "DeepAR", "diffusion"]
    assert np.isfinite(scores["wql_9"]).all()
    assert script.apart(found["diffusion"], table, members=3) < 1e-6
