"""The words a user types: what they take, hand on, and promise of one another."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

import sciddm as sd
from sciddm import ensemble
from sciddm.basis import Cosine
from sciddm.covariance import PowerLaw, Spectral, ZeroMean
from sciddm.data import stations, store
from sciddm.data.codec import Grid, Normaliser
from sciddm.denoise import Gaussian, Preconditioned
from sciddm.ensemble import Job
from sciddm.guide import DPS
from sciddm.nn import SpectralOperator
from sciddm.process import VE, LogLinear
from sciddm.solve import Diffusion

SIDE = 10
AXIS = np.linspace(0, 1, SIDE)
GRID = Grid(("y", "x"), {"y": AXIS, "x": AXIS}, {"y": {"units": "1"}, "x": {"units": "1"}})


@pytest.fixture(scope="module")
def model() -> sd.Model:
    """A Gaussian model, exact: smooth fields of mean 5 and s.d. about 2."""
    codec = Normaliser(
        GRID, ("h",), {"h": {"units": "m"}}, np.full((1, 1, 1), 5.0), np.array([2.0])
    )
    law = Spectral(ZeroMean(PowerLaw(2.0, 3.0, 3.0)), (1.0, 1.0), Cosine())
    prior = Gaussian(torch.zeros(()), law, VE(clock=LogLinear(0.005, 300.0)))
    return sd.Model(sd.Task(sd.View(("h",))), codec, Diffusion(prior, steps=30), moments=prior)


@pytest.fixture(scope="module")
def seen() -> sd.Observed:
    rng = np.random.default_rng(0)
    at = {d: ("station", rng.uniform(0, 1, 6)) for d in ("y", "x")}
    values = xr.DataArray(5 + rng.standard_normal(6), dims="station", coords=at, name="h")
    return sd.Observed(values, std=0.1)


def test_the_public_names() -> None:
    """Those of the design, each where it says it is; scripts elsewhere use them."""
    assert dir(sd) == sorted(sd.__all__)
    words = "load recover generate krige exceedance log_prob refined residual Residual"
    words += " Observed Model Job Task View InputError RunError forecast Outlook impute anomaly"
    modules = ("score", "ensemble", "rollout", "footprint", "plot")
    assert set(sd.__all__) == {*words.split(), *modules}
    for name in sd.__all__:
        assert getattr(sd, name) is not None
    assert sd.ensemble.run is ensemble.run and sd.score.crps is not None
    with pytest.raises(AttributeError, match="no attribute 'recovr'"):
        _ = sd.recovr
    assert issubclass(sd.InputError, ValueError) and issubclass(sd.RunError, RuntimeError)


def test_the_name_alone_imports_no_torch_and_sets_the_threads_wait() -> None:
    """Threads that spin must be told before torch is loaded."""
    code = "import sciddm, sys, os; print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])"
    env = {"PATH": "/usr/bin"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert out.stdout.split() == ["False", "PASSIVE"], out.stderr


def test_everything_after_the_subject_is_said_by_name() -> None:
    words = {"recover": ["model", "seen"], "krige": ["model", "seen"], "generate": ["model"]}
    for verb, subjects in words.items():
        parameters = inspect.signature(getattr(sd, verb)).parameters.values()
        assert [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY] == subjects
        named = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        assert (named["members"], named["seed"], named["sizes"]) == (64, 0, None)


def test_a_verb_is_a_job(model: sd.Model, seen: sd.Observed) -> None:
    sizes = {"y": 13, "x": 7}
    pairs = {
        "recover": (
            sd.recover(model, seen, members=3, seed=5, sizes=sizes, steps=6, rule=DPS),
            ensemble.draw(Job(model, seen, 3, 5, DPS, sizes, 6)),
        ),
        "krige": (
            sd.krige(model, seen, members=3, seed=5, sizes=sizes),
            ensemble.krige(Job(model, seen, 3, 5, None, sizes)),
        ),
        "generate": (
            sd.generate(model, members=3, seed=5, sizes=sizes, steps=6),
            ensemble.draw(Job(model, None, 3, 5, None, sizes, 6)),
        ),
    }
    for verb, (said, meant) in pairs.items():
        xr.testing.assert_identical(said, meant)
        assert dict(said.sizes) == {"member": 3, **sizes}, verb
        assert said.attrs["seed"] == 5 and said["h"].attrs["units"] == "m"


VERBS: dict[str, Callable[..., xr.Dataset]] = {
    "recover": lambda m, s, **k: sd.recover(m, s, **k),
    "krige": lambda m, s, **k: sd.krige(m, s, **k),
    "generate": lambda m, s, **k: sd.generate(m, **k),
}
verbs = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())


@verbs
def test_the_same_seed_is_the_same_ensemble_and_another_is_another(
    verb: Callable[..., xr.Dataset], model: sd.Model, seen: sd.Observed
) -> None:
    one = verb(model, seen, members=4, seed=1)
    torch.manual_seed(99)
    np.random.seed(99)
    xr.testing.assert_identical(verb(model, seen, members=4, seed=1), one)
    other = verb(model, seen, members=4, seed=2)
    assert float(np.abs(other["h"] - one["h"]).min()) > 0


@verbs
def test_progress_is_told(
    verb: Callable[..., xr.Dataset], model: sd.Model, seen: sd.Observed
) -> None:
    told: list[tuple[int, int]] = []
    verb(model, seen, members=40, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_new_fields_have_the_law_of_the_prior(model: sd.Model) -> None:
    """Along every direction of the covariance, mean and variance of two hundred fields."""
    fields = sd.generate(model, members=200, steps=60)["h"].values.reshape(200, -1)
    assert model.gaussian is not None
    unit = torch.eye(SIDE**2, dtype=torch.float64).view(-1, 1, SIDE, SIDE)
    values, vectors = np.linalg.eigh(model.gaussian.prior(unit).flatten(1).numpy())
    kept = values > 1e-3 * values[-1]
    z = ((fields - 5.0) / 2.0) @ vectors[:, kept] / np.sqrt(values[kept])
    m, d = z.shape
    assert d > 40
    assert 1e-4 < stats.chi2.cdf((m * z.mean(0) ** 2).sum(), d) < 1 - 1e-4
    assert abs(z.var(0, ddof=1).mean() - 1) < 0.02 + 5 * np.sqrt(2 / (m * d))


def test_kriging_knows_the_gaussian_alone(model: sd.Model, seen: sd.Observed) -> None:
    """Another network on the same base changes the recovery, not its baseline."""
    prior = model.gaussian
    assert prior is not None
    kriged, recovered = [], []
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = SpectralOperator(2, 1, (3, 3), 4, 1)
        torch.nn.init.normal_(network.head.weight, std=0.3)
        denoiser = Preconditioned(network, prior.process, prior)
        ours = replace(model, sampler=Diffusion(denoiser, steps=6))
        kriged.append(sd.krige(ours, seen, members=3))
        recovered.append(sd.recover(ours, seen, members=3))
    assert kriged[0].equals(kriged[1]) and not recovered[0].equals(recovered[1])
    assert kriged[0].equals(sd.krige(model, seen, members=3))


def test_more_steps_bring_recovery_nearer_to_kriging(model: sd.Model, seen: sd.Observed) -> None:
    """Both draw from one posterior: their spreads agree in the limit of small steps."""
    exact = sd.krige(model, seen, members=400)["h"].std("member")
    gaps = []
    for steps in (6, 60):
        spread = sd.recover(model, seen, members=400, steps=steps)["h"].std("member")
        gaps.append(abs(float((spread / exact).mean()) - 1))
    assert gaps[1] < 0.02 < gaps[0]


def test_a_table_of_stations_from_a_file_to_a_store(model: sd.Model, tmp_path: Path) -> None:
    """CSV in, with an error for each value; zarr out, whole, and the same as from memory."""
    rng = np.random.default_rng(3)
    y, x, h = rng.uniform(0, 1, 5), rng.uniform(0, 1, 5), 5 + rng.standard_normal(5)
    rows = [f"st{i},{y[i]!r},{x[i]!r},{h[i]!r},{0.1 + 0.1 * i!r}" for i in range(5)]
    rows[2] = f"st2,{y[2]!r},{x[2]!r},NaN,"
    text = "station,y,x,h,h_std\n" + "\n".join(rows).replace("np.float64(", "").replace(")", "")
    (tmp_path / "seen.csv").write_text(text + "\n")
    table = stations.read(tmp_path / "seen.csv", ["h"])
    seen = sd.Observed(table[["h"]], std=table[["h_std"]].rename(h_std="h"))
    post = sd.recover(model, seen, members=64)
    kept = [0, 1, 3, 4]
    direct = sd.Observed(
        xr.DataArray(
            h[kept],
            dims="station",
            coords={"y": ("station", y[kept]), "x": ("station", x[kept])},
            name="h",
        ),
        std=xr.DataArray(0.1 + 0.1 * np.array(kept), dims="station"),
    )
    assert post["h"].equals(sd.recover(model, direct, members=64)["h"])
    gap = (
        post["h"].interp(y=direct.values["y"], x=direct.values["x"]) - direct.values
    ) / direct.std
    misfit = float(np.sqrt((gap**2).mean()))  # type: ignore[call-overload]
    assert post.attrs["misfit_sd"] == pytest.approx(misfit, rel=1e-3)
    assert 0.8 < misfit < 1.5
    again = store.open(store.write(post, tmp_path / "post.zarr"))
    xr.testing.assert_identical(again.load(), post)
    assert store.verify(tmp_path / "post.zarr") == []
