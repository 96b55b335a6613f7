"""Event probabilities of a Gaussian trajectory, and error laws beyond Gaussian.

The prior is an Ornstein-Uhlenbeck series of 32 times. The event of the first table is a mean over a
window above its quantile, so the floor is the normal tail; the baseline is plain Monte Carlo by the
sampler at the same number of evaluations. The second table asks for the maximum of the series,
against the exact mixture over the dense law, in two ways: 32 thresholds, and one function that
bends. The third holds the guided draws of one value under every error law against the posterior by
quadrature, beside the Gaussian rule on the same value.
"""

from __future__ import annotations

import math
import time

import torch
from _report import Report
from scipy import stats
from torch import Tensor

from sciddm.covariance import Matern, Spectral, White
from sciddm.denoise import Context, Gaussian
from sciddm.guide import Conditioned, Event, Exceeds, event_probability
from sciddm.observe import Noise, Observation, noise, points
from sciddm.process import VE, LogLinear
from sciddm.random import Streams
from sciddm.solve import Diffusion, Multistep, trajectory

DOUBLE = torch.float64
TIMES, STEPS, MEMBERS = 32, 16, 256
OU = Spectral(Matern(0.3, 0.5), (4.0,))
PRIOR = Gaussian(torch.zeros(()), OU, VE(clock=LogLinear(1e-3, 1e3)))
CHANCES = (1e-1, 1e-2, 1e-3)


def run(report: Report, quick: bool) -> None:
    """Three tables and their claims."""
    repeats = 5 if quick else 40
    linear(report, repeats)
    maximum(report, repeats, 400_000 if quick else 1_500_000)
    laws(report)


def window(x: Tensor) -> Tensor:
    """The mean of the second quarter of the series."""
    return x[:, 0, 8:16].mean(-1)


def dense() -> Tensor:
    """The covariance (32, 32) of the series."""
    return OU(torch.eye(TIMES, dtype=DOUBLE).view(TIMES, 1, TIMES))[:, 0]


def linear(report: Report, repeats: int) -> None:
    """The normal tail: estimates of 256 paths, the worst of ``repeats`` seeds."""
    cov = dense()
    std = float(cov[8:16, 8:16].mean()) ** 0.5
    rows, worst, law = [], 0.0, 1.0
    for chance in CHANCES:
        event = Event(window, std * float(stats.norm.isf(chance)))
        found, seconds = estimates(event, MEMBERS, repeats)
        error = max(abs(p / chance - 1) for p, _ in found)
        plain = monte_carlo(event, repeats)
        guided = Diffusion(Exceeds(PRIOR, event, PRIOR), Multistep(), 3 * STEPS)
        x = guided((MEMBERS, 1, TIMES), Context(), Streams.of(0, MEMBERS)).double()
        tail = stats.norm.sf((window(x) / std).numpy()) / chance
        pvalue = float(stats.kstest(tail, "uniform").pvalue)
        worst, law = max(worst, error), min(law, pvalue)
        rows.append(
            {
                "exact": chance,
                "estimate": found[0][0],
                "largest_relative_error": error,
                "members": MEMBERS,
                "evaluations": MEMBERS * STEPS,
                "seconds": seconds,
                "plain_estimate": plain[0],
                "plain_largest_relative_error": max(abs(p / chance - 1) for p in plain),
                "tail_law_ks_p": pvalue,
            }
        )
    report.table("Probability of a mean over a window above a threshold", rows)
    report.claim("largest relative error of an event probability down to 1e-3", worst, 0.0, 0.10)
    report.claim("tail law of guided draws, least Kolmogorov-Smirnov p", law, 1e-3, 1.0)


def estimates(event: Event, members: int, repeats: int) -> tuple[list[tuple[float, float]], float]:
    """(probability, its standard error) for ``repeats`` seeds, and the seconds of one."""
    like, found = torch.zeros(members, 1, TIMES, dtype=DOUBLE), []
    start = time.monotonic()
    for seed in range(repeats):
        r = event_probability(PRIOR, event, PRIOR, like, Streams.of(seed, members), steps=STEPS)
        found.append((r.probability, r.standard_error))
    return found, (time.monotonic() - start) / repeats


def monte_carlo(event: Event, repeats: int) -> list[float]:
    """The share of plain draws in the event, at the same members and evaluations."""
    sampler = Diffusion(PRIOR, Multistep(), STEPS)
    return [
        float(event.happens(sampler((MEMBERS, 1, TIMES), Context(), rng)).double().mean())
        for rng in (Streams.of(seed, MEMBERS) for seed in range(repeats))
    ]


def maximum(report: Report, repeats: int, samples: int) -> None:
    """The maximum of the series against the mixture of Owen et al. (2019) over the dense law."""
    cov, g = dense(), torch.manual_seed(0)
    std, chol = cov.diagonal().sqrt(), torch.linalg.cholesky(cov)
    plain = (torch.randn(samples, TIMES, generator=g, dtype=DOUBLE) @ chol.T).amax(1)
    rows, worst = [], 0.0
    for chance in CHANCES:
        level = float(plain.sort().values[int((1 - chance) * samples)])
        exact = mixture(level, cov, std, chol, 100_000, g)
        columns, seconds = estimates(Event(lambda x: x[:, 0], level), MEMBERS, repeats)
        bent, slower = estimates(Event(lambda x: x[:, 0].amax(1), level), MEMBERS, 1)
        crude = monte_carlo(Event(lambda x: x[:, 0], level), repeats)
        error = (sum((p / exact - 1) ** 2 for p, _ in columns) / repeats) ** 0.5
        worst = max(worst, error)
        rows.append(
            {
                "exact": exact,
                "as_32_thresholds": columns[0][0],
                "rms_relative_error": error,
                "own_relative_error": columns[0][1] / exact,
                "evaluations": MEMBERS * STEPS,
                "seconds": seconds,
                "as_one_function": bent[0][0],
                "its_own_relative_error": bent[0][1] / exact,
                "its_seconds": slower,
                "plain_rms_relative_error": (sum((p / exact - 1) ** 2 for p in crude) / repeats)
                ** 0.5,
                "whole_prior_run": float((plain > level).double().mean()),
            }
        )
    report.table("Probability that the maximum of the series is above a threshold", rows)
    report.claim("rms relative error for the maximum, as thresholds", worst, 0.0, 0.10)


def mixture(
    level: float, cov: Tensor, std: Tensor, chol: Tensor, count: int, g: torch.Generator
) -> float:
    """P(maximum > level) from draws that exceed at one time, weighed by how many times exceed."""
    tail = torch.special.ndtr(-level / std)
    i = torch.multinomial(tail / tail.sum(), count, replacement=True, generator=g)
    x = torch.randn(count, TIMES, generator=g, dtype=DOUBLE) @ chol.T
    chance = torch.rand(count, generator=g, dtype=DOUBLE)
    top = -std[i] * torch.special.ndtri(chance * tail[i])
    x = x + cov[i] / std[i, None] ** 2 * (top - x[torch.arange(count), i])[:, None]
    return float((tail.sum() / (x > level - 1e-12).sum(1)).mean())


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=DOUBLE)


# name, law, value, what the Gaussian rule is told: value and error variance
LAWS: tuple[tuple[str, Noise, float, float, float], ...] = (
    ("Gaussian", noise.Gaussian(number(0.25)), 1.0, 1.0, 0.25),
    ("Student-t, df 4, near", noise.StudentT(number(0.3), 4.0), 1.0, 1.0, 0.18),
    ("Student-t, df 4, gross error", noise.StudentT(number(0.3), 4.0), 5.0, 5.0, 0.18),
    ("Cauchy, two modes", noise.StudentT(number(0.1), 1.0), 3.0, 3.0, 0.01),
    ("Poisson, 5 of 2 exp(z)", noise.Poisson(number(2.0)), 5.0, math.log(2.5), 0.2),
    ("Poisson, 0 of 2 exp(z)", noise.Poisson(number(2.0)), 0.0, math.log(0.25), 2.0),
    ("Poisson, 2 of 3 z", noise.Poisson(number(3.0), log_rate=False), 2.0, 2 / 3, 2 / 9),
    ("censored, below -1", noise.Censored(number(0.04), low=number(-1.0)), -1.0, -1.0, 0.04),
    ("censored, above 1.5", noise.Censored(number(0.04), high=number(1.5)), 1.5, 1.5, 0.04),
)


def laws(report: Report) -> None:
    """One value of X ~ N(0, 1): draws are increasing in their noise, so 1001 quantiles of it give
    their law; errors in posterior s.d."""
    prior = Gaussian(torch.zeros(()), White(), VE(clock=LogLinear(1e-3, 1e3)))
    steps, rows, worst = 50, [], (0.0, 0.0)
    z = (torch.arange(200_000, dtype=DOUBLE) + 0.5) / 200_000 * 18 - 9
    chance = (torch.arange(1001, dtype=DOUBLE) + 0.5) / 1001
    normal = torch.special.ndtri(chance)
    start = 1e3 * normal.view(-1, 1, 1)
    width = float(normal.std(unbiased=False))
    for name, law, value, stand_in, variance in LAWS:
        every = torch.full((len(z), 1), value, dtype=DOUBLE)
        log_p = law.log_prob(every, z[:, None]) - 0.5 * z**2
        weight = torch.softmax(log_p, dim=0)
        mean = (weight * z).sum()
        std = (weight * (z - mean) ** 2).sum().sqrt()
        cells = torch.searchsorted(torch.cumsum(weight, 0), chance)
        ideal = z[cells.clamp_max(len(z) - 1)]  # what exact draws give at these quantiles
        row: dict[str, object] = {"law": name, "exact_mean": float(mean), "exact_std": float(std)}
        for label, seen in (
            ("", (value, law)),
            ("gaussian_rule_", (stand_in, noise.Gaussian(number(variance)))),
        ):
            observation = Observation(
                number(seen[0]).view(1), points([0], torch.zeros(1, 1), (1,)), seen[1]
            )
            guided = Conditioned(prior, observation, prior, sweeps=1)
            begin = time.monotonic()
            *_, x = trajectory(guided, start, prior.process.times(steps), Context(), Multistep())
            seconds = time.monotonic() - begin
            row[f"{label}mean_error"] = float((x.mean() - ideal.mean()) / std)
            row[f"{label}std_ratio"] = float(x.std() / ideal.std())
            if not label:
                row |= {"evaluations": steps, "seconds": seconds}
                gap = abs(float(row["mean_error"])), abs(float(row["std_ratio"]) - 1)  # type: ignore[arg-type]
                worst = max(worst[0], gap[0]), max(worst[1], gap[1])
        rows.append(row)
    report.table(f"One value under every error law (start has {width:.4f} of its s.d.)", rows)
    report.claim("error laws, largest error of the mean in s.d.", worst[0], 0.0, 0.02)
    report.claim("error laws, largest error of the s.d. ratio", worst[1], 0.0, 0.03)
