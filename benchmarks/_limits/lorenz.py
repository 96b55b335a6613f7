"""Lorenz-63 trajectories from sparse observations: every rule against a particle smoother.

The window is 48 frames of 0.025 (1.2 time units, about one e-folding of errors), the initial state
known to 2 in each coordinate, the model's noise sqrt(0.025) a frame, and the first coordinate seen
every eighth frame with s.d. 1. Seeds 0, 1, ... without a choice. The answer of 100,000 particles is
the exact one up to the row 'the smoother, run again'.

Errors of the mean are in posterior s.d. (rms over frames and coordinates) and relative in L2, the
spread is the ratio of the rms s.d.; all are rms or geometric means over the seeds. The figure to
reach is a mean within 5 % and a spread ratio from 0.9 to 1.1, in both units.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from _report import Report
from torch import Tensor, nn

from _limits.lorenz_window import DOUBLE, Window, kalman_smoother, make, smoother
from sciddm.covariance import White
from sciddm.denoise import Context, Denoiser, Gaussian
from sciddm.guide import DPS
from sciddm.observe import Observation
from sciddm.particle import Cloud, EnKG, EnsembleKalman, Matched, TwistedSMC
from sciddm.process import VP, LogLinear
from sciddm.random import Streams
from sciddm.solve import Diffusion, Multistep, trajectory

PRIOR = Gaussian(torch.zeros((), dtype=DOUBLE), White(), VP(clock=LogLinear(0.02, 100.0)))


class GaussNewton(Denoiser):
    """Moment matching with the operator linearised at each member's estimate, all members at once.

    ``passes`` linearisations a level, each step halved up to three times until the loss falls:
    `guide.Conditioned`, which goes member by member, with the adjoint of this window.
    """

    def __init__(self, observation: Observation, window: Window, passes: int) -> None:
        nn.Module.__init__(self)
        self.process, self.observation = PRIOR.process, observation
        self.window, self.passes = window, passes

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        x_hat, variance = PRIOR(x_t, t, context), PRIOR.mean_variance(t, x_t)

        def loss(x: Tensor) -> Tensor:
            return 0.5 * (x - x_hat).square().sum((1, 2)) / variance - self.observation.log_prob(x)

        point, least = x_hat, loss(x_hat)
        for _ in range(self.passes):
            values, rows = self.window.derivative(point)
            flat = rows.flatten(2)
            moved = (flat @ (x_hat - point).flatten(1)[..., None])[..., 0]
            total = variance * flat @ flat.mT + self.observation.covariance
            weight = torch.linalg.solve(total, self.observation.y - values - moved)
            step = x_hat + variance * (weight[:, :, None, None] * rows).sum(1) - point
            for share in (1.0, 0.5, 0.25, 0.125):
                trial = point + share * step
                found = loss(trial)
                better = found < least
                point = torch.where(better[:, None, None], trial, point)
                least = torch.where(better, found, least)
                step = torch.where(better[:, None, None], torch.zeros_like(step), step)
        return point


@dataclass(frozen=True, eq=False)
class Answer:
    """Mean and variance (3, L + 1) of a rule, and what it cost."""

    mean: Tensor
    variance: Tensor
    members: int = 0
    evaluations: int = 0
    integrations: int = 0
    seconds: float = 0.0
    effective: float = math.nan
    log_evidence: float = math.nan


@dataclass(frozen=True, eq=False)
class Case:
    """One window, its values and the smoother's answers: both runs together, and each alone."""

    window: Window
    observation: Observation
    exact: Answer
    first: Answer
    second: Answer
    skewness: float
    ancestors: int


def prepare(seed: int) -> Case:
    """The window of a seed with its reference."""
    window, y = make(seed)
    runs = []
    for k in range(2):
        start = time.monotonic()
        paths, evidence, ancestors = smoother(window, y, 1000 + k)
        runs.append((paths, evidence, ancestors, time.monotonic() - start))
    both = torch.cat([run[0] for run in runs])
    mean, variance = both.mean(0), both.var(0)
    skewness = ((both - mean).pow(3).mean(0) / variance**1.5).abs().max()
    first, second = (
        Answer(p.mean(0), p.var(0), len(p), 0, len(p), s, log_evidence=e) for p, e, _, s in runs
    )
    evidence = math.log(sum(math.exp(run[1]) for run in runs) / 2)
    exact = Answer(mean, variance, len(both), log_evidence=evidence)
    observation = Observation(y, window, torch.tensor(window.error**2, dtype=DOUBLE))
    ancestors = min(run[2] for run in runs)
    return Case(window, observation, exact, first, second, float(skewness), ancestors)


def drawn(case: Case, members: int, evaluations: int, draw: Callable[[], Tensor]) -> Answer:
    """The law of equally weighted members z."""
    case.window.integrations = 0
    start = time.monotonic()
    z = draw()
    seconds, integrations = time.monotonic() - start, case.window.integrations
    path = case.window.path(z)
    return Answer(path.mean(0), path.var(0), members, evaluations, integrations, seconds)


def diffusion(case: Case, denoiser: Denoiser, members: int, steps: int, low: float) -> Answer:
    """Members of a guided denoiser, by the default solver from noise level 20 down to ``low``."""

    def draw() -> Tensor:
        sampler = Diffusion(denoiser, Multistep(), steps, 20.0, low)
        times = sampler.grid.times(PRIOR.process, steps, 20.0, low)
        like = torch.zeros(members, 3, case.window.frames + 1, dtype=DOUBLE)
        rng = Streams.of(7, members)
        x = PRIOR.process.start(like, times[0], None, rng.at("start"))
        with torch.no_grad():
            *_, last = trajectory(denoiser, x, times, Context(), sampler.solver, rng)
        return last

    return drawn(case, members, steps, draw)


def twisted(case: Case, particles: int, steps: int) -> tuple[Answer, Cloud]:
    """Twisted sequential Monte Carlo, at its defaults."""
    case.window.integrations = 0
    start = time.monotonic()
    twist = Matched(PRIOR, case.observation, PRIOR, derivative=case.window.derivative)
    smc = TwistedSMC(twist, steps, kappa_max=20.0, kappa_min=0.1, dtype=DOUBLE)
    shape = (particles, 3, case.window.frames + 1)
    cloud = smc.cloud(shape, Context(), Streams.of(7, particles))
    seconds, integrations = time.monotonic() - start, case.window.integrations
    path, weight = case.window.path(cloud.particles), cloud.log_weight.exp()
    mean = (weight[:, None, None] * path).sum(0)
    variance = (weight[:, None, None] * (path - mean).square()).sum(0)
    low = min(cloud.effective)
    return Answer(
        mean, variance, particles, steps, integrations, seconds, low, cloud.log_evidence
    ), cloud


def laplace(case: Case, members: int) -> Answer:
    """Draws of the Gaussian at the mode of z, which Levenberg-Marquardt finds (weak 4D-Var)."""
    window, y, r = case.window, case.observation.y, case.window.error**2
    shape = (1, 3, window.frames + 1)
    unit = torch.eye(math.prod(shape), dtype=DOUBLE)

    def loss(z: Tensor) -> float:
        gap = y - window(z.view(shape))[0]
        return float(0.5 * z.square().sum() + 0.5 * gap.square().sum() / r)

    def draw() -> Tensor:
        z, damping = torch.zeros(len(unit), dtype=DOUBLE), 1.0
        for _ in range(60):
            values, rows = window.derivative(z.view(shape))
            a, gap = rows[0].flatten(1), y - values[0]
            slope, bend = a.T @ gap / r - z, unit + a.T @ a / r
            trial = z + torch.linalg.solve(bend + damping * unit, slope)
            better = loss(trial) < loss(z)
            z, damping = (trial, damping / 4) if better else (z, damping * 4)
        half = torch.linalg.inv(torch.linalg.cholesky(bend))
        like = torch.zeros(members, len(unit), dtype=DOUBLE)
        return (z + Streams.of(7, members).normal(like) @ half).view(members, *shape[1:])

    return drawn(case, members, 0, draw)


def run(report: Report, quick: bool) -> None:
    seeds, particles, steps = (range(6), 2000, 14) if quick else (range(10), 8000, 20)
    members = 128 if quick else 1024
    table: dict[str, list[Answer]] = {}
    cases = [prepare(seed) for seed in seeds]
    for case in cases:
        window, seen = case.window, case.observation
        like = torch.zeros(20000, 3, window.frames + 1, dtype=DOUBLE)
        noise = torch.randn(like.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
        start = time.monotonic()
        mean, variance = kalman_smoother(window, seen.y)
        kalman = Answer(mean, variance, 0, 0, 1, time.monotonic() - start)
        found = {
            "exact: the smoother, run again": case.second,
            "prior": drawn(case, len(like), 0, lambda noise=noise: noise),
            "extended Kalman smoother": kalman,
            "Laplace at the mode": laplace(case, 4000),
            "DPS, zeta 1": diffusion(case, DPS(PRIOR, seen), members // 2, 50, 0.05),
            "moment matching, 1 linearisation": diffusion(
                case, GaussNewton(seen, window, 1), members, 20, 0.05
            ),
            "moment matching, 3 linearisations": diffusion(
                case, GaussNewton(seen, window, 3), members, 20, 0.05
            ),
            "ensemble Kalman, Cov[X | x_t]": diffusion(
                case, EnsembleKalman(PRIOR, seen, PRIOR), members, 50, 0.05
            ),
            "ensemble Kalman as published (EnKG)": diffusion(
                case, EnKG(PRIOR, seen), members, 50, 0.05
            ),
            "twisted SMC": twisted(case, particles, steps)[0],
        }
        for name, answer in found.items():
            table.setdefault(name, []).append(answer)
    report.table(
        f"Lorenz-63, {len(cases)} windows: 48 frames, 6 values, against 200,000 particles",
        [
            line(name, answers, [c.first if name.startswith("exact") else c.exact for c in cases])
            for name, answers in table.items()
        ],
    )
    best = table["twisted SMC"]
    report.table(
        "Lorenz-63, window by window",
        [
            per_case(seed, case, table, k)
            for k, (seed, case) in enumerate(zip(seeds, cases, strict=True))
        ],
    )
    far, relative, ratio = pooled(best, [c.exact for c in cases])
    report.claim("Lorenz-63, twisted SMC: error of the mean, relative in L2", relative, 0, 0.05)
    report.claim("Lorenz-63, twisted SMC: error of the mean, posterior s.d.", far, 0, 0.05)
    report.claim("Lorenz-63, twisted SMC: spread ratio", ratio, 0.9, 1.1)


def scores(found: Answer, exact: Answer) -> tuple[float, float, float]:
    """(error of the mean in s.d., relative in L2, ratio of the rms s.d.)."""
    gap = found.mean - exact.mean
    far = (gap.square() / exact.variance).mean().sqrt()
    ratio = (found.variance.mean() / exact.variance.mean()).sqrt()
    return float(far), float(gap.norm() / exact.mean.norm()), float(ratio)


def pooled(found: list[Answer], exact: list[Answer]) -> tuple[float, float, float]:
    """`scores` over the windows: rms errors, geometric mean of the ratios."""
    each = torch.tensor([scores(f, e) for f, e in zip(found, exact, strict=True)])
    rms = each.square().mean(0).sqrt()
    return float(rms[0]), float(rms[1]), float(each[:, 2].log().mean().exp())


def line(name: str, found: list[Answer], exact: list[Answer]) -> dict[str, object]:
    far, relative, ratio = (v if math.isfinite(v) else "diverged" for v in pooled(found, exact))
    return {
        "rule": name,
        "error_sd": far,
        "error_l2": relative,
        "sd_ratio": ratio,
        "members": found[0].members,
        "evaluations": found[0].evaluations,
        "integrations": found[0].integrations,
        "seconds": sum(f.seconds for f in found) / len(found),
    }


def per_case(seed: int, case: Case, table: dict[str, list[Answer]], k: int) -> dict[str, object]:
    best, kalman = table["twisted SMC"][k], table["extended Kalman smoother"][k]
    far, relative, ratio = scores(best, case.exact)
    return {
        "seed": seed,
        "prior_sd": float(table["prior"][k].variance.mean().sqrt()),
        "posterior_sd": float(case.exact.variance.mean().sqrt()),
        "largest_skewness": case.skewness,
        "kalman_error_sd": scores(kalman, case.exact)[0],
        "kalman_sd_ratio": scores(kalman, case.exact)[2],
        "ancestors": case.ancestors,
        "rerun_error_sd": scores(case.second, case.first)[0],
        "smc_error_sd": far,
        "smc_error_l2": relative,
        "smc_sd_ratio": ratio,
        "smc_least_ess": best.effective,
        "log_evidence": case.exact.log_evidence,
        "smc_log_evidence": best.log_evidence,
    }
