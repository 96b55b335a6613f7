"""Navier-Stokes, 64 x 64, 3 % of the points: the trained network, the limits and the classics.

Forward: `initial` seen without noise, `final` wanted. The limit is the mean of exact draws: the
posterior of `initial` under its true law is Gaussian, and its draws go through the solver; what
the mean of a finite number of draws adds to the error is taken off. The network's mean is taken as
it is.

Inverse: `final` seen with errors of 1e-4 of its rms, `initial` wanted. The limit is the Gaussian
posterior of the equation linearised at the truth, under the true law. It has no realisation, so
errors are compared as root mean squares over the same fields: sqrt(sum |mean - truth|^2 / sum of
tr posterior), and the members' s.d. with the same sums.

Classical rows: nearest value, then the solver; kriging, then the solver; the mode by Gauss-Newton;
randomised maximum likelihood; an ensemble smoother of 1,000 prior draws in one update, and of 500
in four (a few fields). `krige`, the mode and the smoothers use the law that the model was fitted
with. The published loop differentiates through network and solver.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from _report import Report
from scipy.spatial import cKDTree
from torch import Tensor

import sciddm as sd
from sciddm import recipe
from sciddm.data.codec import Derived, Normaliser
from sciddm.denoise import Context, Denoiser, Gaussian
from sciddm.guide import FunDPSLoop, Matheron, RandomisedMode, linearised
from sciddm.guide.linear import factor, gram
from sciddm.guide.published import Loop
from sciddm.model import Model
from sciddm.observe import Function, Observation
from sciddm.pde import NavierStokes
from sciddm.process import VE, LogLinear, Process
from sciddm.random import Streams
from sciddm.score import coverage
from sciddm.solve import Diffusion, Heun, Rho, Solver

ROOT = Path(__file__).resolve().parents[2]
POINTS = {64: 125, 128: 500}
NOISE, STEPS, DRAWS = 1e-4, 20, 128
SEED = 999  # of the fields; the training set is seed 0
SOLVE = NavierStokes()


@dataclass(frozen=True)
class Case:
    """One field and its sensors: ``seen`` of one variable, the other wanted."""

    truth: xr.Dataset
    seen: sd.Observed
    variable: str
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    std: float

    @property
    def wanted(self) -> str:
        return "final" if self.variable == "initial" else "initial"

    @property
    def target(self) -> np.ndarray:
        return self.truth[self.wanted].values.astype(np.float64)


def make_cases(variable: str, count: int, size: int) -> list[Case]:
    """Fields of another seed than the training's, each with sensors of its own.

    Values of `initial` are seen as they are; the error that is said of them is as small.
    """
    shelf = recipe.load(ROOT / "datasets" / "navier_stokes.py", "datasets")
    truths = shelf.fields(count, size, SEED)
    cases = []
    for i in range(count):
        truth, rng = truths.isel(sample=i, drop=True), np.random.default_rng([SEED, i])
        row, column = np.divmod(rng.choice(size**2, POINTS[size], replace=False), size)
        at = {"x": xr.DataArray(row, dims="station"), "y": xr.DataArray(column, dims="station")}
        rms = float(np.sqrt((truth[variable] ** 2).mean()))
        noise = NOISE * rms
        values = truth[variable].isel(at)
        if variable == "final":
            values = values + noise * rng.standard_normal(len(row))
        seen = sd.Observed(values, std=noise)
        numbers = values.values.astype(np.float64)
        cases.append(Case(truth, seen, variable, row, column, numbers, noise))
    return cases


def lowered(model: Model, case: Case) -> Observation:
    observation = next(iter(case.seen.cases(model.codec)))[2]
    assert observation is not None
    return observation


def law(model: Model) -> Gaussian:
    assert model.gaussian is not None
    return model.gaussian


def normaliser(model: Model) -> Normaliser:
    codec = model.codec
    assert isinstance(codec, Derived) and isinstance(codec.inner, Normaliser)
    return codec.inner


def deviation(model: Model) -> float:
    """The s.d. of `initial` that the codec divides by."""
    return float(normaliser(model).std[0])


def physical(model: Model, x: Tensor, wanted: str) -> np.ndarray:
    """The wanted variable of normalised fields (B, 1, *grid), float64: (B, *grid)."""
    w = normaliser(model).physical(x.double())
    with torch.no_grad():
        return (SOLVE(w) if wanted == "final" else w)[:, 0].numpy()


def square(error: np.ndarray) -> float:
    return float((error**2).sum())


def relative(case: Case, field: np.ndarray) -> float:
    return math.sqrt(square(field - case.target) / square(case.target))


# the limits


def forward_limit(model: Model, case: Case) -> tuple[float, float, float]:
    """Relative error of the exact posterior mean of `final` and of one exact draw, and the sum of
    the posterior variances."""
    observation, size = lowered(model, case), len(case.target)
    like = torch.zeros(1, 1, size, size, dtype=torch.float64)
    draw = Matheron(law(model), observation, observation.operator.rows(like))
    blank = like.expand(DRAWS, 1, size, size)
    parts = draw(blank, Streams.of(7, DRAWS)).split(16)
    draws = np.concatenate([physical(model, part, "final") for part in parts])
    variance = float(draws.var(0, ddof=1).sum())
    error = square(draws.mean(0) - case.target) - variance / DRAWS
    norm = square(case.target)
    return math.sqrt(max(error, 0.0) / norm), math.sqrt((error + variance) / norm), variance


def inverse_limit(model: Model, case: Case) -> float:
    """tr posterior of `initial`, linearised at the truth, in physical units."""
    observation, prior = lowered(model, case), law(model)
    unit = deviation(model)
    truth = torch.from_numpy(case.target)[None, None] / unit
    rows = observation.operator.rows(truth.float()).double()
    images = prior.prior(rows)
    chol = factor(gram(rows, images) + observation.covariance)
    half = torch.linalg.solve_triangular(chol, images.flatten(1), upper=False)
    total = float(prior.prior.diagonal(truth).sum()) - float(half.square().sum())
    return total * unit**2


# the classics


def nearest_then_solve(case: Case) -> np.ndarray:
    """The value of the nearest sensor on the torus, and the solver."""
    size = len(case.target)
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), -1)
    tree = cKDTree(np.stack([case.rows, case.columns], 1), boxsize=size)
    w = case.values[tree.query(grid.reshape(-1, 2))[1]].reshape(size, size)
    with torch.no_grad():
        return SOLVE(torch.from_numpy(w)[None, None])[0, 0].numpy()


def kriging_then_solve(model: Model, case: Case) -> np.ndarray:
    """Simple kriging with the fitted law, and the solver."""
    observation, size = lowered(model, case), len(case.target)
    like = torch.zeros(1, 1, size, size, dtype=torch.float64)
    mean = linearised(law(model), observation, like).mode
    return physical(model, mean, "final")[0]


class Smoother:
    """The ensemble smoother: prior draws moved by their own covariances with the values.

    Several updates with errors enlarged so that they add up to one (ES-MDA). Van Leeuwen, Evensen,
    Monthly Weather Review 1996; Emerick, Reynolds, Computers and Geosciences 2013, algorithm 1.
    """

    def __init__(self, model: Model, size: int, members: int) -> None:
        blank = torch.zeros(members, 1, size, size)
        self.model, self.members = model, members
        self.x = law(model).sample(blank, Streams.of(31, members))
        self.final = self._final(self.x)

    def _final(self, x: Tensor) -> Tensor:
        fields = [physical(self.model, part, "final") for part in x.split(16)]
        return torch.from_numpy(np.concatenate(fields)).flatten(1)

    def mean(self, case: Case, updates: int) -> tuple[np.ndarray, float]:
        """Mean of `initial`, and the root mean variance over the grid, in physical units."""
        unit, flat = deviation(self.model), self.x.flatten(1).double()
        at = torch.from_numpy(case.rows * len(case.target) + case.columns)
        std = case.std
        y = torch.from_numpy(case.values) / std
        final = self.final
        for k in range(updates):
            if k:
                final = self._final(flat.view_as(self.x).float())
            seen = final[:, at] / std
            dx, dy = flat - flat.mean(0), seen - seen.mean(0)
            noise = math.sqrt(updates) * Streams.of(32, self.members).at("e", k).normal(seen)
            unity = torch.eye(len(at), dtype=torch.float64)
            total = dy.T @ dy / (self.members - 1) + updates * unity
            weight = torch.linalg.solve(total, (y + noise - seen).T).T
            flat = flat + weight @ (dy.T @ dx) / (self.members - 1)
        size = len(case.target)
        variance = float(flat.var(0).sum()) * unit**2
        return flat.mean(0).view(size, size).numpy() * unit, variance


# the published loop


@dataclass(frozen=True)
class RootLoop(Loop):
    """FunDPS as published for this problem inverted: the push is of the root of the mean square."""

    observation: Observation
    weight: float
    solver: Solver = field(default_factory=Heun)

    def objective(self, x_hat: Tensor, t: Tensor, process: Process) -> Tensor:
        share = min(1.0, float(process.kappa(t)))
        return self.weight * share * self.observation.residual(x_hat).square().mean(1).sqrt()


class Halved(Denoiser):
    """A denoiser of fields of s.d. 1 as one of fields of s.d. 0.5, the loop's unit."""

    def __init__(self, inner: Denoiser) -> None:
        torch.nn.Module.__init__(self)
        self.inner, self.process = inner, VE(clock=LogLinear(0.005, 500.0))

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return 2.0**-1 * self.inner(2 * x_t, t, context)


def published(model: Model, case: Case, members: int, steps: int) -> np.ndarray:
    """FunDPS with its published weight, divided by 4 for a quarter of the points."""
    own, size = lowered(model, case), len(case.target)
    unit = 0.5 * case.std / float(case.truth[case.variable].std())
    seen = Observation(unit * own.y, Function(lambda x: unit * own.operator(2 * x)), own.variance)
    share = (size / 128) ** 2
    loop: Loop = FunDPSLoop(seen, 5000 * share)
    if case.variable == "final":
        loop = RootLoop(seen, 7500 * share)
    sampler = Diffusion(Halved(model.sampler.denoiser), loop, steps, 80.0, None, Rho())
    try:
        x = 2 * sampler((members, 1, size, size), Context(), Streams.of(3, members))
        return physical(model, x, case.wanted)
    except sd.InputError:  # the solver refuses a field that grew without bound
        return np.zeros((0,))


# the tables


def ours(model: Model, case: Case, members: int) -> tuple[dict[str, float], np.ndarray]:
    """Scores of the default on one case, and the mean of its members."""
    start = time.monotonic()
    post = sd.recover(model, case.seen, members=members, seed=5, steps=STEPS)
    draws = post[case.wanted].astype(np.float64)
    mean = draws.mean("member").values
    return {
        "square": square(mean - case.target),
        "variance": float(draws.var("member", ddof=1).sum()),
        "coverage_90": float(coverage(draws, case.truth[case.wanted], level=0.9)),
        "misfit_sd": float(post.attrs["misfit_sd"]),
        "seconds": time.monotonic() - start,
    }, mean


def averaged(found: list[dict[str, float]]) -> dict[str, float]:
    """Sums of what adds up, root mean squares of misfits, means of the rest."""
    rows = {k: np.array([f[k] for f in found]) for k in found[0]}
    means = {k: float(v.mean()) for k, v in rows.items()}
    return means | {"misfit_sd": float(np.sqrt((rows["misfit_sd"] ** 2).mean()))}


def forward(report: Report, trained: Model, exact: Model, count: int, size: int) -> None:
    cases, members = make_cases("initial", count, size), 48
    found = [ours(trained, case, members) for case in cases]
    whole = averaged([f for f, _ in found])
    net = [relative(case, mean) for case, (_, mean) in zip(cases, found, strict=True)]
    limits = [forward_limit(exact, case) for case in cases]
    limit, one, variance = (float(np.mean([v[i] for v in limits])) for i in range(3))
    kriged = float(np.mean([relative(c, kriging_then_solve(trained, c)) for c in cases]))
    near = float(np.mean([relative(c, nearest_then_solve(c)) for c in cases]))
    error = float(np.mean(net))
    spread = math.sqrt(whole["variance"] / variance)
    rows = [
        {"method": f"exact posterior mean ({DRAWS} draws, corrected)", "error": limit},
        {"method": "one exact draw", "error": one},
        {
            "method": f"trained network, {STEPS} evaluations, mean of {members}",
            "error": error,
            "sd_ratio": spread,
            "coverage_90": whole["coverage_90"],
            "misfit_sd": whole["misfit_sd"],
            "seconds_a_case": whole["seconds"],
        },
        {"method": "kriging, then the solver", "error": kriged},
        {"method": "nearest value, then the solver", "error": near},
    ]
    table(
        report,
        f"Navier-Stokes forward, {size} x {size}, {POINTS[size]} points, {count} fields",
        rows,
        limit,
    )
    name = f"NS forward {size}"
    report.claim(f"{name}: error of the mean over the limit", error / limit, 0, 1.08)
    report.claim(f"{name}: over the better classical row", error / min(kriged, near), 0, 1.03)
    report.claim(f"{name}: sd ratio", spread, 0.9, 1.15)
    report.claim(f"{name}: 90 % coverage", whole["coverage_90"], 0.86, 0.94)
    report.claim(f"{name}: misfit in s.d.", whole["misfit_sd"], 0.8, 1.5)


def inverse(report: Report, trained: Model, exact: Model, count: int, size: int, few: int) -> None:
    cases, members = make_cases("final", count, size), 16
    found = [ours(trained, case, members) for case in cases]
    whole = averaged([f for f, _ in found])
    traces = [inverse_limit(exact, case) for case in cases]
    norms = [square(case.target) for case in cases]

    def line(method: str, squares: list[float], **more: float | None) -> dict[str, object]:
        n = len(squares)
        error = float(np.mean([math.sqrt(s / m) for s, m in zip(squares, norms, strict=False)]))
        ratio = math.sqrt(sum(squares) / sum(traces[:n]))
        return {"method": method, "error": error, "over_limit": ratio, "fields": n, **more}

    spread = math.sqrt(whole["variance"] / float(np.mean(traces)))
    rows = [
        line("limit, linearised at the truth", traces, sd_ratio=1.0),
        line(
            f"trained network, {STEPS} evaluations, mean of {members}",
            [f["square"] for f, _ in found],
            sd_ratio=spread,
            coverage_90=whole["coverage_90"],
            misfit_sd=whole["misfit_sd"],
            seconds_a_case=whole["seconds"],
        ),
        *classics(trained, cases, traces, line, members, few),
    ]
    table(
        report, f"Navier-Stokes inverse, {size} x {size}, {POINTS[size]} points, noise 1e-4", rows
    )
    name, ratio = f"NS inverse {size}", float(str(rows[1]["over_limit"]))
    report.claim(f"{name}: error of the mean over the limit at the truth", ratio, 0, 1.3)
    report.claim(f"{name}: sd ratio", spread, 0.9, 1.15)
    report.claim(f"{name}: 90 % coverage", whole["coverage_90"], 0.86, 0.94)
    report.claim(f"{name}: misfit in s.d.", whole["misfit_sd"], 0.8, 1.5)


def classics(
    model: Model,
    cases: list[Case],
    traces: list[float],
    line: Callable[..., dict[str, object]],
    members: int,
    few: int,
) -> list[dict[str, object]]:
    """The mode, randomised maximum likelihood and, with ``few``, the ensemble smoothers."""
    size = len(cases[0].target)
    modes, means, spreads, misfits, seconds = [], [], [], [], []
    for case in cases:
        start = time.monotonic()
        observation, like = lowered(model, case), torch.zeros(1, 1, size, size)
        anchor = linearised(law(model), observation, like)
        modes.append(square(physical(model, anchor.mode, "initial")[0] - case.target))
        seconds.append(time.monotonic() - start)
        draw = RandomisedMode(law(model), observation, anchor)
        x = draw(like.expand(members, 1, size, size), Streams.of(5, members))
        draws = physical(model, x, "initial")
        means.append(square(draws.mean(0) - case.target))
        spreads.append(float(draws.var(0, ddof=1).sum()))
        misfits.append(float(observation.misfit(x).square().mean()))
    rows = [
        line("mode by Gauss-Newton", modes, seconds_a_case=float(np.mean(seconds))),
        line(
            f"randomised maximum likelihood, mean of {members}",
            means,
            sd_ratio=math.sqrt(sum(spreads) / sum(traces)),
            misfit_sd=math.sqrt(float(np.mean(misfits))),
        ),
    ]
    plans = ((1000, 1, len(cases)), (500, 4, few)) if few else ()
    for count, updates, fields in plans:
        smoother = Smoother(model, size, count)
        found = [smoother.mean(case, updates) for case in cases[:fields]]
        squares = [square(m - c.target) for (m, _), c in zip(found, cases, strict=False)]
        ratio = math.sqrt(sum(v for _, v in found) / sum(traces[:fields]))
        label = f"ensemble smoother, {count} draws, {updates} update{'s' * (updates > 1)}"
        rows.append(line(label, squares, sd_ratio=ratio))
    return rows


def loops(report: Report, trained: Model) -> None:
    """FunDPS with the same network on two fields, beside the default's mean of as many members."""
    rows, members = [], 2
    for variable in ("final", "initial"):
        for case in make_cases(variable, 2, 64):
            start = time.monotonic()
            draws = published(trained, case, members, 200)
            loop = relative(case, draws.mean(0)) if len(draws) else None
            seconds = time.monotonic() - start
            post = sd.recover(trained, case.seen, members=members, seed=5, steps=STEPS)
            few = post[case.wanted].astype(np.float64).mean("member").values
            rows.append(
                {
                    "wanted": case.wanted,
                    "FunDPS, 200 steps, mean of 2": loop,
                    "default, mean of 2": relative(case, few),
                    "seconds of the loop": seconds,
                }
            )
    report.table("Navier-Stokes, the published loop through network and solver", rows)


def table(
    report: Report, title: str, rows: list[dict[str, Any]], limit: float | None = None
) -> None:
    """Print rows of unequal columns; the relative error is in per cent."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    shown = []
    for row in rows:
        line = {name: row.get(name) for name in columns}
        line["error"] = 100 * row["error"]
        if limit is not None:
            line["over_limit"] = row["error"] / limit
        shown.append(line)
    report.table(f"{title}, relative error in %", shown)


def models(size: int) -> tuple[Model, Model]:
    """The trained model and the one with the exact law, on the grid asked for."""
    trained = sd.load(ROOT / "models" / "navier_stokes")
    exact = recipe.load(ROOT / "models" / "navier_stokes.py", "models").exact(trained)
    at = {"x": size, "y": size}
    return trained.at(at), exact.at(at)


def run(report: Report, quick: bool) -> None:
    """Both directions at 64 x 64."""
    trained, exact = models(64)
    count = 4 if quick else 20
    forward(report, trained, exact, count, 64)
    inverse(report, trained, exact, count, 64, 0 if quick else 4)
    if not quick:
        loops(report, trained)


def large(report: Report, quick: bool) -> None:
    """The weights trained at 64 x 64 used at 128 x 128."""
    trained, exact = models(128)
    forward(report, trained, exact, 1 if quick else 4, 128)
    inverse(report, trained, exact, 1 if quick else 2, 128, 0)
