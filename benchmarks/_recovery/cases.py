"""Poisson and Helmholtz as exact problems: fields never trained on, sensors, exact posteriors.

The prior on the coefficient is Gaussian and both equations are linear, so the posterior of either
field given values of the other is a closed form: its mean is the floor of every error, its variance
the right spread. Fields are of the data set's generator with a seed that no model was trained on.

The error of a mean of M exact draws is sqrt(1 + 1/M) times that of the posterior mean; every
figure of an ensemble here is of the plain mean of its members, so it holds that factor.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from _limits.poisson import exact_crps
from _report import Report
from scipy.interpolate import NearestNDInterpolator
from torch import Tensor

import sciddm as sd
from sciddm import recipe
from sciddm.baseline import thin_plate
from sciddm.denoise import Gaussian
from sciddm.guide.linear import factor, gram
from sciddm.model import Model
from sciddm.pde.grid import laplacian
from sciddm.score import coverage, crps

ROOT = Path(__file__).resolve().parents[2]
SEEN = {"inverse": "solution", "forward": "coefficient"}
WANTED = {"inverse": "coefficient", "forward": "solution"}
HELD_OUT = 999
"""The seed of the fields here; training sets are of seed 0."""
TOLD = 1e-4
"""The error, over the rms of the field seen, that guidance is told where values have none."""
WAVENUMBER = {"poisson": 0.0, "helmholtz": 1.0}
COLUMNS = (
    "method",
    "error_of_mean",
    "over_exact",
    "expected",
    "sd_ratio",
    "coverage_90",
    "crps_over_exact",
    "misfit_sd",
    "fields",
    "members",
    "evaluations",
    "cpu_s_a_member",
)


@dataclass(frozen=True, eq=False)
class Case:
    """Fields that share their sensors, and the exact posterior of what is wanted.

    truth : dims (sample, y, x). mean : the same shape. std : (y, x). In the units of the data.
    """

    truth: xr.DataArray
    seen: sd.Observed
    mean: np.ndarray
    std: np.ndarray


Draw = Callable[[Case], xr.Dataset]


@dataclass(frozen=True, eq=False)
class Problem:
    """An equation on a grid of ``size`` points a side: the trained model and the exact one."""

    name: str
    size: int
    trained: Model
    exact: Model

    @staticmethod
    @functools.cache
    def of(name: str, size: int = 64) -> Problem:
        """The saved model of the shelf and, from its recipe, the exact prior in its place."""
        trained = sd.load(ROOT / "models" / name)
        exact: Model = recipe.load(ROOT / "models" / f"{name}.py", "models").exact(trained)
        grid = {"y": size, "x": size}
        return Problem(name, size, trained.at(grid), exact.at(grid))

    @functools.cached_property
    def prior_variance(self) -> Tensor:
        """Pointwise variance of the coefficient and of the solution, (2, y, x), physical units.

        The solution's is the sum over cosine modes, below 64 a side: above it they add 1e-7.
        """
        gaussian, blank = _gaussian(self.exact), self._blank
        unit = self._linear(torch.ones_like(blank))[:, :1]
        coefficient = gaussian.prior.diagonal(blank) * unit[0] ** 2
        total = torch.zeros(self.size, self.size, dtype=torch.float64)
        scale = gaussian.prior.eigenvalues((self.size, self.size)).sqrt()  # type: ignore[attr-defined]
        kept = min(64, self.size)
        basis = gaussian.prior.basis  # type: ignore[attr-defined]
        for k in range(kept):
            modes = torch.zeros(kept, self.size, self.size, dtype=torch.float64)
            modes[torch.arange(kept), k, torch.arange(kept)] = scale[k, :kept]
            x = basis.inverse(modes, (self.size, self.size))[:, None]
            total += self._linear(x)[:, 1].square().sum(0)
        return torch.cat([coefficient, total[None]])

    def rms(self, task: str) -> float:
        """Root mean square of the field that is seen, under the prior."""
        return float(self.prior_variance[_channel(SEEN[task])].mean().sqrt())

    def case(
        self,
        task: str,
        mask: int,
        *,
        points: int,
        noise: float = 0.0,
        fields: int = 1,
        told: float | None = None,
    ) -> Case:
        """Fields seen at the random ``points`` of ``mask``, with errors of ``noise`` of the rms.

        ``told`` is the error that guidance and the exact posterior are told, ``noise`` by default
        and `TOLD` where there is none. The errors are the same draws at every noise.
        """
        told = (noise or TOLD) if told is None else told
        data = recipe.load(ROOT / "datasets" / f"{self.name}.py", "datasets")
        truth = data.fields(fields, self.size, HELD_OUT, fields * mask)
        rng = np.random.default_rng([5, self.size, mask])
        at = np.divmod(rng.choice(self.size**2, points, replace=False), self.size)
        place = {d: xr.DataArray(i, dims="station") for d, i in zip("yx", at, strict=True)}
        values = truth[SEEN[task]].isel(place).astype(np.float64)
        unit = self.rms(task)
        values = values + noise * unit * rng.standard_normal(values.shape)
        seen = sd.Observed(values, std=told * unit)
        mean, std = self.posterior(_gaussian(self.exact), self.exact, seen, task)
        return Case(truth[WANTED[task]], seen, mean, std)

    def posterior(
        self, gaussian: Gaussian, model: Model, seen: sd.Observed, task: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean (sample, y, x) and s.d. (y, x) of what is wanted, under a Gaussian prior."""
        cases = [o for _, _, o in seen.cases(model.codec)]
        rows = cases[0].operator.rows(self._blank).double()
        images = gaussian.prior(rows)
        chol = factor(gram(rows, images) + cases[0].covariance)
        gain = torch.cholesky_solve(images.flatten(1), chol)
        centre = gaussian.mean.double().expand_as(self._blank)
        gap = torch.cat([o.residual(centre) for o in cases])
        mean = centre + (gap @ gain).view(-1, *centre.shape[1:])
        channel = _channel(WANTED[task])
        explained = (self._linear(images) * self._linear(gain.view_as(rows))).sum(0)
        variance = (self.prior_variance - explained)[channel].clamp_min(0)
        return model.codec.physical(mean)[:, channel].numpy(), variance.sqrt().numpy()

    def kriged(self, case: Case, task: str) -> np.ndarray:
        """The classical mean: optimal interpolation with the covariance fitted to the training
        fields, and the equation; no network."""
        gaussian = _gaussian(self.trained)
        return self.posterior(gaussian, self.trained, case.seen, task)[0]

    def interpolated(self, case: Case, task: str, nearest: bool) -> np.ndarray:
        """The values seen, spread over the grid without a model, then the equation."""
        found = []
        for k, truth in enumerate(case.truth):
            values = case.seen.values.isel(sample=k, drop=True)
            if nearest:
                mesh = np.stack(np.meshgrid(truth.y, truth.x, indexing="ij"), -1)
                where = np.stack([values.y.values, values.x.values], -1)
                smooth = NearestNDInterpolator(where, values.values)(mesh)
            else:
                edge = 0.0 if task == "inverse" else None
                smooth = thin_plate(values, truth, edge=edge).values
            found.append(self._through(torch.from_numpy(smooth)[None, None], task)[0, 0].numpy())
        return np.stack(found)

    def _through(self, field: Tensor, task: str) -> Tensor:
        """The other field of one (B, 1, y, x), by the equation."""
        if task == "forward":
            solver: Callable[[Tensor], Tensor] = self.exact.codec.solver  # type: ignore[attr-defined]
            return solver(field)
        inner = torch.nn.functional.pad(field[..., 1:-1, 1:-1], (1, 1, 1, 1))
        return laplacian(field) + WAVENUMBER[self.name] ** 2 * inner

    def _linear(self, x: Tensor) -> Tensor:
        """The linear part of the codec, (B, 1, y, x) -> (B, 2, y, x)."""
        physical = self.exact.codec.physical
        return physical(x) - physical(torch.zeros_like(x))

    @property
    def _blank(self) -> Tensor:
        return torch.zeros(1, 1, self.size, self.size, dtype=torch.float64)


def _channel(variable: str) -> int:
    return ("coefficient", "solution").index(variable)


def _gaussian(model: Model) -> Gaussian:
    gaussian = model.gaussian
    assert gaussian is not None
    return gaussian


def scores(case: Case, draws: xr.DataArray) -> list[dict[str, float]]:
    """Figures of every field of a case; ``draws`` (member, sample, y, x)."""
    floor, found = exact_crps(case), []  # type: ignore[arg-type]
    for k, truth in enumerate(case.truth):
        members = draws.isel(sample=k)
        norm = float(np.sqrt((truth.astype(float) ** 2).sum()))
        mean = members.mean("member")
        found.append(
            {
                "error": float(np.sqrt(((mean - truth) ** 2).sum())) / norm,
                "exact": float(np.linalg.norm(case.mean[k] - truth.values)) / norm,
                "off_mean": float(((mean - case.mean[k]) ** 2).mean()),
                "variance": float(members.var("member", ddof=1).mean()),
                "exact_variance": float(np.mean(case.std**2)),
                "crps": float(crps(members, truth)) / norm,
                "exact_crps": float(floor[k]) / norm,
                "coverage": float(coverage(members, truth, level=0.9)),
            }
        )
    return found


def misfit(case: Case, draws: xr.DataArray) -> float:
    """Rms distance of the members from the values seen, in errors; 1 is right.

    ``draws`` (member, sample, y, x) of the variable that is seen.
    """
    values = case.seen.values
    place = {
        d: xr.DataArray(np.searchsorted(draws[d].values, values[d].values - 1e-9), dims="station")
        for d in "yx"
    }
    gap = (draws.isel(place) - values.drop_vars(["y", "x"])) / case.seen.std
    return float(np.sqrt((gap.astype(float) ** 2).mean()))


def row(
    name: str, results: list[dict[str, float]], misfit: float, members: int, **price: object
) -> dict[str, object]:
    """A line of a table: ratios of means over the fields.

    ``over_exact`` is at these fields; ``expected`` is the same ratio expected over truths of the
    exact posterior, sqrt(1 + |mean - exact mean|^2 / exact variance), without the fields' luck.
    """
    mean = {k: float(np.mean([r[k] for r in results])) for k in results[0]}
    return {
        "method": name,
        "error_of_mean": mean["error"],
        "over_exact": mean["error"] / mean["exact"],
        "expected": math.sqrt(1 + mean["off_mean"] / mean["exact_variance"]),
        "sd_ratio": math.sqrt(mean["variance"] / mean["exact_variance"]),
        "coverage_90": mean["coverage"],
        "crps_over_exact": mean["crps"] / mean["exact_crps"],
        "misfit_sd": misfit,
        "fields": len(results),
        "members": members,
        **price,
    }


def measured(
    name: str, task: str, cases: list[Case], draw: Draw, evaluations: int
) -> dict[str, object]:
    """`row` of ``draw`` on every case, with the seconds of a member."""
    results, squares, start = [], [], time.process_time()
    posts = [draw(case) for case in cases]
    seconds = time.process_time() - start
    for case, post in zip(cases, posts, strict=True):
        results += scores(case, post[WANTED[task]].transpose("member", "sample", ...))
        squares.append(misfit(case, post[SEEN[task]]) ** 2)
    members = posts[0].sizes["member"]
    cost = seconds / len(results) / members
    price = {"evaluations": evaluations, "cpu_s_a_member": cost}
    return row(name, results, math.sqrt(np.mean(squares)), members, **price)


def point(name: str, cases: list[Case], guess: Callable[[Case], np.ndarray]) -> dict[str, object]:
    """A line for a method that gives one field: its error alone."""
    errors, floors = [], []
    for case in cases:
        norm = np.sqrt((case.truth.values.astype(float) ** 2).sum((1, 2)))
        for into, field in ((errors, guess(case)), (floors, case.mean)):
            into.extend(np.sqrt(((field - case.truth.values) ** 2).sum((1, 2))) / norm)
    error, floor = float(np.mean(errors)), float(np.mean(floors))
    found: dict[str, object] = dict.fromkeys(COLUMNS)
    return found | {
        "method": name,
        "error_of_mean": error,
        "over_exact": error / floor,
        "fields": len(errors),
    }


def claim(report: Report, title: str, found: dict[str, object], error: float) -> None:
    """The error over the exact posterior's, and what a right spread shows, each with its bounds.

    The error at the fields themselves is claimed where there are 20 or more; below, only the one
    that is expected over truths, which no few fields can move.
    """
    bounds = [
        ("expected error over exact", "expected", 0.0, error),
        ("s.d. over exact", "sd_ratio", 0.9, 1.15),
        ("90 % coverage", "coverage_90", 0.86, 0.94),
        ("misfit in s.d.", "misfit_sd", 0.8, 1.5),
    ]
    if int(str(found["fields"])) >= 20:
        bounds.insert(0, ("error over exact", "over_exact", 0.0, error))
    for name, key, low, high in bounds:
        report.claim(f"{title}: {name}", float(str(found[key])), low, high)
