"""Two-phase Darcy: the coefficient and the pressure from points of the other, clean variant.

Forward (points of the coefficient, without error) has an exact limit: the latent field given its
signs by Gibbs sweeps, then the solver. Inverse (points of the solution) has none that is cheap; the
classical rows are the linear-Gaussian posterior of the same training pairs and Gauss-Newton on the
level set, whose covariance is fitted to the same pairs by the arcsine law.

Fields are of another seed than the training set's, every field has its own random points. Errors
of the solution are |mean - truth| / |truth|; an ensemble of M exact draws has sqrt(1 + 1/M) times
the error of the posterior mean. One draw of the coefficient is wrong in more cells than the
majority of many.
"""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from _report import Report
from darcy import LinearGaussian, gaussian_row
from scipy.interpolate import NearestNDInterpolator
from torch import Tensor
from torch.nn.functional import interpolate

import sciddm as sd
from sciddm import recipe
from sciddm.basis import Cosine
from sciddm.covariance import PowerLaw, Spectral, ZeroMean
from sciddm.data import store
from sciddm.data.codec import TwoValued
from sciddm.denoise import LinearMap, Moments
from sciddm.model import Model
from sciddm.pde import Darcy, Interface, LevelSet, Seen
from sciddm.pde.level_set import arcsine_law
from sciddm.random import Streams

ROOT = Path(__file__).resolve().parents[2]
LOW, HIGH, MIDDLE = 3.0, 12.0, 7.5
SHARE = 0.03
TOLD = 1e-3
"""The error, over the s.d. of the field seen, that methods are told where values have none."""
STEPS = 20
EXACT = LevelSet(Spectral(ZeroMean(PowerLaw(2.0, 3.0, 3.0)), (1.0, 1.0), Cosine()), LOW, HIGH)
"""The law of the data set."""
LEVELS = sd.load(ROOT / "models" / "darcy_level_set")
"""The shipped level set: a law fitted to 10,000 pairs of the training set."""
Rows = dict[str, list[dict[str, float]]]


@dataclass(frozen=True, eq=False)
class Case:
    """A field, and points of one of its variables: flat grid indices, values, their error."""

    truth: xr.Dataset
    variable: str
    index: np.ndarray
    values: np.ndarray
    std: float

    @property
    def size(self) -> int:
        return self.truth.sizes["y"]

    @property
    def observed(self) -> sd.Observed:
        row, column = np.divmod(self.index, self.size)
        at = {"y": xr.DataArray(row, dims="station"), "x": xr.DataArray(column, dims="station")}
        points = self.truth[self.variable].isel(at)
        return sd.Observed(points.copy(data=self.values), std=self.std)

    @property
    def seen(self) -> Seen:
        at = np.stack(np.divmod(self.index, self.size), 1) / (self.size - 1)
        std = torch.full((len(self.index),), self.std, dtype=torch.float64)
        return Seen(torch.from_numpy(at), torch.from_numpy(self.values), std)

    def misfit(self, solutions: np.ndarray) -> float:
        """Root mean square of the gaps between members (M, y, x) and the values, in s.d."""
        gap = solutions.reshape(len(solutions), -1)[:, self.index] - self.values
        return float(np.sqrt(np.mean((gap / self.std) ** 2)))


def cases(count: int, size: int, variable: str, noise: float) -> list[Case]:
    """Fields of seed 999, 3 % of the points (500 at 128) with errors of ``noise`` s.d."""
    data = recipe.load(ROOT / "datasets" / "darcy.py", "datasets")
    truths = data.fields(count, size, 999)
    points = 500 if size == 128 else round(SHARE * size**2)
    unit, found = float(truths[variable].std()), []
    for i in range(count):
        truth = truths.isel(sample=i, drop=True)
        rng = np.random.default_rng([9, i])
        index = rng.choice(size**2, points, replace=False)
        values = truth[variable].values.reshape(-1)[index].astype(np.float64)
        values = values + noise * unit * rng.standard_normal(points)
        found.append(Case(truth, variable, index, values, (noise or TOLD) * unit))
    return found


def solved(a: np.ndarray) -> np.ndarray:
    """Solutions (M, y, x) of coefficients (M, y, x)."""
    return Darcy()(torch.from_numpy(a).double()[:, None])[:, 0].numpy()


def scores(case: Case, a: np.ndarray, u: np.ndarray | None = None) -> dict[str, float]:
    """Of members a (M, y, x) of two phases, and of solutions u; fair in M."""
    m, real = len(a), case.truth["coefficient"].values > MIDDLE
    share = (a > MIDDLE).mean(0)
    spread = share * (1 - share) / max(m - 1, 1)
    found = {
        "wrong_majority": 100 * float(((share > 0.5) != real).mean()),
        "wrong_one": 100 * float(((a > MIDDLE) != real).mean()),
        # of two values: |x - y| is 9 times the indicator, and the fair Brier score of shares
        "crps": (HIGH - LOW) * float((np.where(real, 1 - share, share) - m * spread).mean()),
        "brier": float(((share - real) ** 2 - spread).mean()),
    }
    if u is not None:
        truth = case.truth["solution"].values.astype(np.float64)
        norm = np.linalg.norm(truth)
        found["error"] = 100 * float(np.linalg.norm(u.mean(0) - truth) / norm)
        one = [float(np.linalg.norm(v - truth) / norm) for v in u]
        found["error_one"] = 100 * float(np.mean(one))
    return found


def table(report: Report, title: str, rows: Rows, **facts: dict[str, Any]) -> dict[str, Any]:
    """Means over the fields; ``facts`` are columns by method. Returns the means."""
    means = {
        name: {k: float(np.mean([r[k] for r in found if k in r])) for k in found[0]}
        for name, found in rows.items()
    }
    columns = list(dict.fromkeys(k for line in means.values() for k in line))
    shown = [
        {"method": name}
        | {k: line.get(k) for k in columns}
        | {k: by.get(name) for k, by in facts.items()}
        | {"fields": len(rows[name])}
        for name, line in means.items()
    ]
    report.table(title, shown)
    return means


@functools.cache
def training(count: int) -> xr.Dataset:
    """The first pairs of the training set, from its store where there is one."""
    path = ROOT / "stores" / "darcy64.zarr"
    if path.exists():
        return store.open(path).isel(sample=slice(count)).load()
    data = recipe.load(ROOT / "datasets" / "darcy.py", "datasets")
    made: xr.Dataset = data.fields(count, 64, 0)
    return made


@functools.cache
def fitted(pairs: int) -> LevelSet:
    """A level set with a latent covariance fitted to the phases of up to 10,000 training pairs."""
    part = training(pairs)["coefficient"].isel(sample=slice(10_000))
    phases = torch.from_numpy(part.values[:, None] > MIDDLE)
    return LevelSet(arcsine_law(torch.where(phases, 1.0, -1.0)), LOW, HIGH)


def gibbs(law: LevelSet, case: Case, members: int, seed: int) -> np.ndarray:
    """Exact draws of the coefficient given its values, under ``law``."""
    like = torch.zeros(members, 1, case.size, case.size)
    index, values = torch.from_numpy(case.index), torch.from_numpy(case.values)
    return law(law.given(index, values, like, Streams.of(seed, members)))[:, 0].numpy()


def nearest(case: Case) -> np.ndarray:
    """Every point has the value of the nearest one seen."""
    where = np.stack(np.divmod(case.index, case.size), 1)
    mesh = np.stack(np.divmod(np.arange(case.size**2), case.size), 1)
    return NearestNDInterpolator(where, case.values)(mesh).reshape(1, case.size, case.size)


def kriged_signs(law: LevelSet, case: Case) -> np.ndarray:
    """The sign of the labels -1 and 1 interpolated with the latent covariance."""
    n = len(case.index)
    rows = torch.zeros(n, case.size**2, dtype=torch.float64)
    rows[torch.arange(n), torch.from_numpy(case.index)] = 1.0
    images = law.latent(rows.view(n, 1, case.size, case.size)).flatten(1)
    labels = torch.from_numpy(np.sign(case.values - MIDDLE))
    g = torch.linalg.solve(images[:, case.index], labels) @ images
    return law(g).view(1, case.size, case.size).numpy()


def forward(report: Report, model: Model, count: int, members: int, pairs: int) -> None:
    """The solution from points of the coefficient, 64 x 64, beside the exact limit."""
    rows: Rows = defaultdict(list)
    names = ("trained network", "trained network, then solve")
    for case in cases(count, 64, "coefficient", 0.0):
        a = gibbs(EXACT, case, members, 1)
        rows["limit: exact draws"].append(scores(case, a, solved(a)))
        start = time.process_time()
        post = sd.recover(LEVELS, case.observed, members=members, seed=2)
        more = {"misfit_sd": float(post.attrs["misfit_sd"]), "cpu_s": time.process_time() - start}
        a, u = (post[n].values.astype(np.float64) for n in ("coefficient", "solution"))
        rows["level set fitted to the pairs"].append(scores(case, a, u) | more)
        for name, a in (
            ("nearest, then solve", nearest(case)),
            ("sign of kriged labels, then solve", kriged_signs(fitted(pairs), case)),
        ):
            rows[name].append(scores(case, a, solved(a)))
        start = time.process_time()
        post = sd.recover(model, case.observed, members=members, seed=1, steps=STEPS)
        seconds = time.process_time() - start
        a = post["coefficient"].values.astype(np.float64)
        more = {"misfit_sd": float(post.attrs["misfit_sd"]), "cpu_s": seconds}
        rows[names[0]].append(scores(case, a, post["solution"].values.astype(np.float64)) | more)
        rows[names[1]].append(scores(case, a, solved(a)) | more)
    many = dict.fromkeys(list(rows)[:2] + list(names), members)
    title = f"Darcy forward, 64 x 64, {round(SHARE * 64**2)} exact values of the coefficient"
    cost = dict.fromkeys(names, STEPS)
    mean = {name: float(np.mean([r["error"] for r in found])) for name, found in rows.items()}
    limit, fit, *simple = list(rows)[:4]
    over = {name: error / mean[limit] for name, error in mean.items()}
    means = table(report, title, rows, over_limit=over, members=many, evaluations=cost)
    classical = min(mean[name] for name in simple)
    # the network's own figures are the column over_limit; the model for this task is the level set
    report.claim("Darcy forward: error of the mean over the limit", over[fit], 0, 1.1)
    report.claim("Darcy forward: over the better classical row", mean[fit] / classical, 0, 1.03)
    misfit = means[names[0]]["misfit_sd"]
    report.claim("Darcy forward: misfit in s.d., network", misfit, 0.8, 1.5)


def level_set(case: Case, members: int, size: int, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """The posterior mode (1, y, x) and members (M, y, x) by Gauss-Newton, under the fitted law."""
    problem = Interface(fitted(pairs), size)
    mode = problem.mode(case.seen)
    if not members:
        return problem.coefficient(mode)[None].numpy(), np.zeros((0, size, size))
    draws = problem.draw(case.seen, mode, Streams.of(3, members))
    return problem.coefficient(mode)[None].numpy(), problem.coefficient(draws).numpy()


def inverse(
    report: Report, model: Model, count: int, members: int, pairs: int, few: int, some: int
) -> None:
    """The coefficient from points of the solution with 1 % noise, 64 x 64.

    ``some`` members of the level set on the first ``few`` fields.
    """
    baseline = LinearGaussian(model, pairs, training(pairs))
    rows: Rows = defaultdict(list)
    names = {"classic": "linear-Gaussian posterior", "net": "trained network"}
    for i, case in enumerate(cases(count, 64, "solution", 0.01)):
        found = gaussian_row(*baseline.posterior(case.observed), case.truth)
        line = {k: found[k] for k in ("crps", "brier", "coverage_90")}
        rows[names["classic"]].append({"wrong_majority": 100 * found["wrong_cells"]} | line)
        start = time.process_time()
        post = sd.recover(model, case.observed, members=members, seed=1, steps=STEPS)
        seconds = time.process_time() - start
        a = post["coefficient"].values.astype(np.float64)
        coverage = sd.score.coverage(post["coefficient"], case.truth["coefficient"], level=0.9)
        line = scores(case, a) | {"coverage_90": float(coverage)}
        more = {"misfit_sd": float(post.attrs["misfit_sd"]), "cpu_s": seconds}
        rows[names["net"]].append(line | more)
        start = time.process_time()
        mode, draws = level_set(case, some if i < few else 0, 64, pairs)
        seconds = time.process_time() - start
        line = scores(case, mode)
        keep = {"wrong_majority": line["wrong_majority"], "misfit_sd": case.misfit(solved(mode))}
        if i >= few:
            keep["cpu_s"] = seconds
        rows["level set, Gauss-Newton, mode"].append(keep)
        if i < few:
            more = {"misfit_sd": case.misfit(solved(draws)), "cpu_s": seconds}
            rows["level set, Gauss-Newton, members"].append(scores(case, draws) | more)
    many = {names["net"]: members, "level set, Gauss-Newton, members": some}
    title = f"Darcy inverse, 64 x 64, {round(SHARE * 64**2)} values of the solution, 1 % noise"
    means = table(report, title, rows, members=many, evaluations={names["net"]: STEPS})
    net, classic = means[names["net"]], means[names["classic"]]
    ratio = {k: net[k] / classic[k] for k in ("crps", "brier", "wrong_majority")}
    report.claim("Darcy inverse: CRPS over linear-Gaussian", ratio["crps"], 0, 0.6)
    report.claim("Darcy inverse: Brier over linear-Gaussian", ratio["brier"], 0, 0.97)
    report.claim("Darcy inverse: wrong cells over linear-Gaussian", ratio["wrong_majority"], 0, 1)
    report.claim("Darcy inverse: misfit in s.d.", net["misfit_sd"], 0.8, 1.5)
    if few:
        base = {
            k: float(np.mean([r[k] for r in rows[names["classic"]][:few]]))
            for k in ("crps", "brier")
        }
        own = means["level set, Gauss-Newton, members"]
        for k in ("crps", "brier"):
            name = f"Darcy inverse: {k} of the level set over linear-Gaussian, same fields"
            report.claim(name, own[k] / base[k], 0, 0.6)
        report.claim("Darcy inverse: misfit of level-set members", own["misfit_sd"], 0.8, 1.5)


def finer(report: Report, model: Model, count: int, nets: int, pairs: int) -> None:
    """128 x 128 with 500 exact values of the solution: the published inverse task, clean variant.

    The network was trained at 64 x 64: its members are drawn there from points between its nodes,
    interpolated to 128 x 128 and cut at the middle. The level set is solved at 128 x 128.
    """
    assert isinstance(model.codec, TwoValued)
    plain = replace(model, codec=model.codec.inner)  # the values before they are cut
    rows: Rows = defaultdict(list)
    for i, case in enumerate(cases(count, 128, "solution", 0.0)):
        start = time.process_time()
        mode, _ = level_set(case, 0, 128, pairs)
        seconds = time.process_time() - start
        wrong = scores(case, mode)["wrong_majority"]
        rows["level set, Gauss-Newton, mode"].append({"wrong_majority": wrong, "cpu_s": seconds})
        if i < nets:
            start = time.process_time()
            post = sd.recover(plain, case.observed, members=16, seed=1, steps=STEPS)
            a = torch.from_numpy(post["coefficient"].values)[:, None]
            a = interpolate(a, size=(128, 128), mode="bicubic", align_corners=True)[:, 0].numpy()
            seconds = time.process_time() - start
            wrong = scores(case, a)["wrong_majority"]
            name = "trained network at 64, interpolated"
            more = {"misfit_sd": float(post.attrs["misfit_sd"]), "cpu_s": seconds}
            rows[name].append({"wrong_majority": wrong} | more)
    means = table(report, "Darcy inverse, 128 x 128, 500 exact values of the solution", rows)
    best = means["level set, Gauss-Newton, mode"]["wrong_majority"]
    report.claim("Darcy inverse at 128: wrong cells in %, level set", best, 0, 4.5)


@dataclass(frozen=True, eq=False)
class Trusted(Moments):
    """A measured covariance taken for exact: guidance then inflates nothing."""

    exact = True

    inner: Moments

    def covariance(self, t: Tensor) -> LinearMap:
        return self.inner.covariance(t)

    def fluctuation(self, t: Tensor, like: Tensor, rng: Streams | None = None) -> Tensor:
        return self.inner.fluctuation(t, like, rng)

    def respond(self, x_hat: Tensor, gap: Tensor, rows: Tensor, update: LinearMap) -> Tensor:
        return self.inner.respond(x_hat, gap, rows, update)


def without(report: Report, model: Model, count: int) -> None:
    """What inflation and the weight by phase are worth: each left out, 16 members."""
    measured = model.moments
    inner = getattr(measured, "inner", measured)
    assert isinstance(measured, Moments) and isinstance(inner, Moments)
    kinds: dict[str, Moments] = {
        "as shipped": measured,
        "without inflation": Trusted(measured),
        "without the weight by phase": inner,
        "without either": Trusted(inner),
    }
    rows: Rows = defaultdict(list)
    for case in cases(count, 64, "solution", 0.01):
        for name, moments in kinds.items():
            asked = replace(model, moments=moments)
            post = sd.recover(asked, case.observed, members=16, seed=1, steps=STEPS)
            line = scores(case, post["coefficient"].values.astype(np.float64))
            rows[name].append(line | {"misfit_sd": float(post.attrs["misfit_sd"])})
    means = table(report, "Darcy inverse: guidance with and without its parts, 16 members", rows)
    base = means["as shipped"]
    for name in ("without inflation", "without the weight by phase"):
        ratio = base["crps"] / means[name]["crps"]
        report.claim(f"Darcy inverse: CRPS as shipped over {name}", ratio, 0, 1.02)


def limit(report: Report, count: int) -> None:
    """The exact limit of the forward task at 128 x 128, 500 points, beside its reference."""
    rows: Rows = {"limit: exact draws": []}
    for case in cases(count, 128, "coefficient", 0.0):
        a = gibbs(EXACT, case, 32, 1)
        rows["limit: exact draws"].append(scores(case, a, solved(a)))
    table(report, "Darcy forward, 128 x 128, 500 exact values of the coefficient: the limit", rows)


def run(report: Report, quick: bool) -> None:
    """Both directions at 64 x 64, and the inverse at 128 x 128."""
    model = sd.load(ROOT / "models" / "darcy")
    if quick:
        forward(report, model, 4, 16, 4000)
        inverse(report, model, 4, 16, 4000, 1, 8)
        finer(report, model, 3, 1, 4000)
        return
    pairs = 27_000
    forward(report, model, 20, 32, pairs)
    inverse(report, model, 20, 32, pairs, 4, 8)
    finer(report, model, 20, 4, pairs)
    without(report, model, 6)
    limit(report, 8)
