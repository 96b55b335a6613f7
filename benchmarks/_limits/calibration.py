"""The whole product test, likelihoods, and the four calibration tests on right and wrong samplers.

Calibration: truths from a Gaussian prior on 32 points, values from the truths, members from the
sampler; the four tests ask whether a truth could be one of its members. Three samplers are wrong
on purpose and made from the default's own draws: too narrow (0.7), too wide (1.4), shifted by half
a posterior s.d. Each test is repeated on blocks of cases, and the share of blocks that it flags
says what it sees.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from _limits import likelihood
from _limits.product import (
    COVARIANCES,
    FLOOR,
    OPERATORS,
    PROCESSES,
    SOLVERS,
    Cell,
    cell,
)
from sciddm import score
from sciddm.basis import Cosine
from sciddm.covariance import Matern, Spectral
from sciddm.denoise import Context, Gaussian
from sciddm.guide import Conditioned
from sciddm.observe import Observation, points
from sciddm.process import VP
from sciddm.random import Streams
from sciddm.solve import Diffusion, Euler, Multistep, Solver

if TYPE_CHECKING:
    from _report import Report

SIZE, SENSORS, SD, BLOCK = 32, 6, 0.15, 500
WRONG = {"too narrow": (0.7, 0.0), "too wide": (1.4, 0.0), "shifted": (1.0, 0.5)}
TESTS = ("coverage", "SBC", "TARP", "C2ST")


def run(report: Report, quick: bool) -> None:
    """Add the tables and claims of the three parts."""
    cells = product_cells(quick)
    tables(report, cells)
    likelihood.run(report, quick)
    calibration(report, blocks=6 if quick else 20, members=19 if quick else 59)


def product_cells(quick: bool) -> list[tuple[Cell, float]]:
    """Every cell at 20 and 50 evaluations, with its seconds; quick: at 20, and one observation and
    half of the covariances for each process, in turn."""
    done = []
    for i, (p, c) in enumerate(product(PROCESSES, COVARIANCES)):
        if quick and (i // len(COVARIANCES) + i) % 2:
            continue
        for j, o in enumerate(OPERATORS):
            if quick and (i + i // len(COVARIANCES) + j) % len(OPERATORS):
                continue
            for evaluations in (20,) if quick else (20, 50):
                for s in SOLVERS:
                    start = time.perf_counter()
                    found = cell(p, c, o, s, evaluations)
                    done.append((found, time.perf_counter() - start))
    return done


def tables(report: Report, cells: Sequence[tuple[Cell, float]]) -> None:
    """The product by process and covariance, and by solver; how many cells are within bounds."""
    found = [c for c, _ in cells]
    for evaluations in sorted({c.evaluations for c in found}):
        rows = []
        for p, v in dict.fromkeys((c.process, c.covariance) for c in found):
            row: dict[str, Any] = {"process, prior in noise": f"{p}, {v}", "exact": 1.0}
            for s in SOLVERS:
                place = (p, v, s, evaluations)
                ratios = [
                    c.ratio
                    for c in found
                    if (c.process, c.covariance, c.solver, c.evaluations) == place
                ]
                row[s] = round(max(ratios, key=lambda r: abs(np.log(r))), 3)
            rows.append(row)
        report.table(
            f"Product: worst s.d. ratio of any point and observation, {evaluations} evaluations",
            rows,
        )
    rows = []
    for s, rule in SOLVERS.items():
        for evaluations in sorted({c.evaluations for c in found}):
            mine = [(c, t) for c, t in cells if (c.solver, c.evaluations) == (s, evaluations)]
            rows.append(
                {
                    "solver": s,
                    "order": rule.order,
                    "evaluations": evaluations,
                    "exact": 1.0,
                    "worst s.d. ratio": max(
                        (c.ratio for c, _ in mine), key=lambda r: abs(np.log(r))
                    ),
                    "allowed": 1 + rule.allowed(evaluations),
                    "worst mean, s.d.": max(c.distance for c, _ in mine),
                    "worst covariance": max(c.whole for c, _ in mine),
                    "within": sum(c.within for c, _ in mine),
                    "cells": len(mine),
                    "seconds a cell": sum(t for _, t in mine) / len(mine),
                }
            )
    report.table("Product by solver: each cell held to the exact posterior", rows)
    within = sum(c.within for c in found)
    count, far = len(found), max(c.distance for c in found)
    report.claim(f"product: cells within their bounds, of {count}", within, count, count)
    report.claim("product: worst distance of a mean, s.d.", far, 0, FLOOR)


@dataclass(frozen=True)
class Problem:
    """Cases of the exact problem: truths, what is seen of them, and their posteriors."""

    gaussian: Gaussian
    observation: Observation
    truth: Tensor
    mean: Tensor
    covariance: Tensor

    @staticmethod
    def of(cases: int, seed: int = 0) -> Problem:
        """``cases`` truths (cases, 1, SIZE), all with the same sensors between the grid points."""
        prior = Spectral(Matern(0.3, 1.5, 1.2), (1.0,), Cosine())
        gaussian = Gaussian(torch.zeros(()), prior, VP())
        place = torch.linspace(1.3, SIZE - 3.6, SENSORS, dtype=torch.float64)[:, None]
        operator = points([0] * SENSORS, place, (SIZE,))
        truth = gaussian.sample(
            torch.zeros(cases, 1, SIZE, dtype=torch.float64), Streams.of(seed, cases)
        )
        clean = operator(truth)
        y = clean + SD * Streams.of(seed, cases).at("error").normal(clean)
        unit = torch.eye(SIZE, dtype=torch.float64).view(SIZE, 1, SIZE)
        sigma, a = prior(unit).flatten(1), operator(unit).T
        gain = sigma @ a.T @ torch.linalg.inv(a @ sigma @ a.T + SD**2 * torch.eye(SENSORS).double())
        observation = Observation(y, operator, torch.tensor(SD**2))
        return Problem(gaussian, observation, truth, y @ gain.T, sigma - gain @ a @ sigma)

    @property
    def std(self) -> Tensor:
        """S.d. of the posterior at every point (SIZE,)."""
        return self.covariance.diagonal().sqrt()

    def drawn(self, solver: Solver, evaluations: int, members: int) -> Tensor:
        """Members (members, cases, SIZE) of the sampler."""
        rows = members * len(self.truth)
        y = self.observation.y.repeat(members, 1)
        seen = Observation(y, self.observation.operator, torch.tensor(SD**2))
        sampler = Diffusion(
            Conditioned(self.gaussian, seen, self.gaussian), solver, steps=evaluations
        )
        x = sampler((rows, 1, SIZE), Context(), Streams.of(1, rows))
        return x.double().view(members, -1, SIZE)

    def exact(self, members: int) -> Tensor:
        """Members of the posterior itself."""
        root = torch.linalg.cholesky(self.covariance + 1e-12 * torch.eye(SIZE))
        z = Streams.of(2, members).normal(
            torch.zeros(members, len(self.truth), SIZE, dtype=torch.float64)
        )
        return self.mean + z @ root.T

    def wrong(self, x: Tensor, width: float, shift: float) -> Tensor:
        """The same members with another width and place, in posterior s.d."""
        return self.mean + width * (x - self.mean) + shift * self.std

    def judged(self, x: Tensor, cases: slice) -> dict[str, tuple[float, bool]]:
        """The figure of each of the four tests on some cases, and whether it is flagged at 1 %."""
        truth, y, mean = (v[cases].numpy() for v in (self.truth, self.observation.y, self.mean))
        t, ens = _named(truth[:, 0]), _named(x[:, cases].numpy())
        each = score.coverage(ens, t, 0.9, over=("x",))
        off = float(each.mean()) - 0.9
        noise = float(each.std()) / len(truth) ** 0.5
        p = min(float(score.sbc(f(ens), f(t), "case", bins=10)) for f in self._functions(cases))
        tarp = self.tarp(x, cases)
        ones = (truth[:, 0], x[0, cases].numpy())
        a, b = (_named(np.concatenate([v - mean, y], axis=1)) for v in ones)
        told = score.c2st(a, b, "case", components=SIZE + SENSORS)
        return {
            "coverage": (off, abs(off) > 2.576 * noise),
            "SBC": (p, 4 * p < 0.01),
            "TARP": (tarp, tarp > 1.628 / len(truth) ** 0.5),
            "C2ST": (float(told), float(told) > told.attrs["limit"]),
        }

    def tarp(self, x: Tensor, cases: slice) -> float:
        """Largest error of the expected coverage of balls around the mean plus one s.d.: near
        enough to see the width, and on one side so that a shift is seen too."""
        centre = _named((self.mean[cases] + self.std).numpy())
        ens, truth = _named(x[:, cases].numpy()), _named(self.truth[cases, 0].numpy())
        return float(score.tarp(ens, truth, "case", references=centre).attrs["max_error"])

    def _functions(self, cases: slice) -> list[Callable[[xr.DataArray], xr.DataArray]]:
        """A value, the mean of the field, and two that see the data: the misfit to the values and
        the posterior density."""
        unit = torch.eye(SIZE, dtype=torch.float64).view(SIZE, 1, SIZE)
        a = self.observation.operator(unit).numpy()
        y, mean = self.observation.y[cases].numpy(), self.mean[cases].numpy()
        inverse = np.linalg.inv(self.covariance.numpy())

        def misfit(v: np.ndarray) -> np.ndarray:
            return ((v @ a - y) ** 2).sum(-1)

        def density(v: np.ndarray) -> np.ndarray:
            return -np.einsum("...i,ij,...j->...", v - mean, inverse, v - mean)

        def on(f: Callable[[np.ndarray], np.ndarray]) -> Callable[[xr.DataArray], xr.DataArray]:
            return lambda v: v.isel(x=0, drop=True).copy(data=f(v.values))

        return [
            lambda v: v.isel(x=SIZE // 2, drop=True),
            lambda v: v.mean("x"),
            on(misfit),
            on(density),
        ]


def _named(x: np.ndarray) -> xr.DataArray:
    """(case, x) or (member, case, x)."""
    return xr.DataArray(x, dims=("member", "case", "x")[-x.ndim :], name="field")


def calibration(report: Report, blocks: int, members: int) -> None:
    """The four tests on all cases, and the share of blocks that each of them flags."""
    problem = Problem.of(blocks * BLOCK)
    rows = []
    shares: dict[str, dict[str, float]] = {}

    def add(name: str, evaluations: int, draw: Callable[[], Tensor]) -> Tensor:
        start = time.perf_counter()
        x = draw()
        seconds = time.perf_counter() - start
        parts = [problem.judged(x, slice(k * BLOCK, (k + 1) * BLOCK)) for k in range(blocks)]
        shares[name] = {t: float(np.mean([p[t][1] for p in parts])) for t in TESTS}
        figures = {
            "coverage error": abs(float(np.mean([p["coverage"][0] for p in parts]))),
            "SBC, median p": float(np.median([p["SBC"][0] for p in parts])),
            "TARP": problem.tarp(x, slice(None)),
            "C2ST": float(np.mean([p["C2ST"][0] for p in parts])),
        }
        flags = {f"flagged: {t}": shares[name][t] for t in TESTS}
        rows.append(
            {"sampler": name, "evaluations": evaluations, **figures, **flags, "seconds": seconds}
        )
        return x

    add("exact posterior", 0, lambda: problem.exact(members))
    add("Euler", 20, lambda: problem.drawn(Euler(), 20, members))
    for n in (20, 50):
        x = add(f"default at {n}", n, lambda n=n: problem.drawn(Multistep(), n, members))
    for name, (width, shift) in WRONG.items():
        add(name, 50, lambda w=width, s=shift, x=x: problem.wrong(x, w, s))
    report.table(
        f"Calibration: {blocks * BLOCK} cases of {members} members on {SIZE} points, and the share "
        f"flagged of {blocks} blocks of {BLOCK} cases",
        rows,
    )
    for row in rows:
        if row["sampler"].startswith("default"):
            report.claim(f"{row['sampler']}: coverage error at 0.9", row["coverage error"], 0, 0.02)
            report.claim(f"{row['sampler']}: TARP, largest error", row["TARP"], 0, 0.06)
            report.claim(f"{row['sampler']}: C2ST accuracy", row["C2ST"], 0, 0.55)
    for test in TESTS:
        least = min(shares[name][test] for name in WRONG)
        report.claim(f"{test}: least share of a wrong sampler flagged", least, 0.95, 1)
        right = shares["exact posterior"][test]
        report.claim(f"{test}: share of exact draws flagged", right, 0, 0.2)
