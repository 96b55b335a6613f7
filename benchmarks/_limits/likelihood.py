"""Log-likelihoods along the probability flow beside closed forms, in nats a dimension."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sciddm.basis import Cosine
from sciddm.covariance import Covariance, Matern, Spectral, White
from sciddm.denoise import Context, Denoiser, Gaussian, Mixture
from sciddm.likelihood import gaussian_log_prob, log_prob
from sciddm.process import VP, LogLinear
from sciddm.random import Streams
from sciddm.solve import Euler, Heun, Multistep, Singlestep, Solver

if TYPE_CHECKING:
    from _report import Report

N, ROWS = 32, 8
CLOCK = LogLinear(0.02, 1000.0)
PRIOR = Spectral(Matern(0.3, 1.5, 1.2), (1.0,), Cosine())
NOISES: dict[str, Covariance] = {
    "white": White(),
    "matern": Spectral(Matern(0.2, 0.5), (1.0,), Cosine()),
}
SOLVERS: dict[str, Solver] = {
    "Euler": Euler(),
    "Heun": Heun(),
    "Multistep": Multistep(),
    "Singlestep 3": Singlestep(3),
}
LAST = "Singlestep 3"
"""The default of `log_prob`."""


class Opaque(Denoiser):
    """A denoiser that nobody knows to be Gaussian."""

    def __init__(self, inner: Denoiser) -> None:
        nn.Module.__init__(self)
        self.inner, self.process = inner, inner.process

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return self.inner(x_t, t, context)


def run(report: Report, quick: bool) -> None:
    """Add the table and the claims; the same in a quick run, a few seconds."""
    rows: list[dict[str, Any]] = []
    for name, noise in NOISES.items():
        law = Gaussian(torch.linspace(-1, 1, N).double().view(1, N), PRIOR, VP(noise, CLOCK))
        like = torch.zeros(ROWS, 1, N, dtype=torch.float64)
        x = law.sample(like, Streams.of(0, ROWS))
        x = x + CLOCK.kappa_min * noise.sample(like, Streams.of(1, ROWS))
        truth = gaussian_log_prob(law, x, torch.tensor(CLOCK.kappa_min))
        for solver in SOLVERS:
            for steps in (32, 64) if solver == LAST else (64, 128):
                rows.append(row(f"Gaussian in {name} noise", law, x, truth, solver, steps, None))
        for probes, base in ((1, None), (16, None), (1, law)):
            what = f"{probes} probe{'s' * (probes > 1)}{', base known' if base else ''}"
            hidden = Opaque(law)
            rows.append(row(f"the same, {what}", hidden, x, truth, LAST, 64, probes, base))
    mixture, x, truth = humps()
    for solver, steps in (("Multistep", 256), (LAST, 64), (LAST, 96)):
        rows.append(row("mixture, 4 dimensions", mixture, x, truth, solver, steps, None))
    report.table("Log-likelihood: largest error in nats a dimension", rows)
    held = (("Gaussian", 190), ("mixture", 286))
    for r in rows:
        place = (r["law"].split()[0].strip(","), r["evaluations"])
        if r["solver"] == LAST and place in held:
            label = f"{r['law']}: log-likelihood error at {r['evaluations']} evaluations"
            report.claim(label, r["error"], 0, 1e-3)


def humps() -> tuple[Mixture, Tensor, Tensor]:
    """Three separate modes in four dimensions, fields near them, and their log-density."""
    means = 3 * torch.randn(3, 1, 4, generator=torch.manual_seed(3), dtype=torch.float64)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    clock = LogLinear(0.05, 300.0)
    noise = torch.randn(9, 1, 4, generator=torch.manual_seed(4), dtype=torch.float64)
    x = means.repeat_interleave(3, 0) + 0.6 * noise
    variance = 0.4**2 + clock.kappa_min**2
    square = (x[:, None] - means[None]).square().sum((-1, -2))
    parts = weights.log() - 0.5 * square / variance - 2 * math.log(2 * math.pi * variance)
    return Mixture(means, weights, 0.4, VP(White(), clock)), x, parts.logsumexp(1)


def row(
    name: str,
    denoiser: Denoiser,
    x: Tensor,
    truth: Tensor,
    solver: str,
    steps: int,
    probes: int | None,
    base: Gaussian | None = None,
) -> dict[str, Any]:
    """One line of the table."""
    start = time.perf_counter()
    rng = None if probes is None else Streams.of(7, len(x))
    found = log_prob(
        denoiser, x, steps=steps, solver=SOLVERS[solver], probes=probes, rng=rng, base=base
    )
    size = x[0].numel()
    return {
        "law": name,
        "solver": solver,
        "evaluations": SOLVERS[solver].evaluations(steps),
        "exact, mean": float(truth.mean()) / size,
        "found, mean": float(found.mean()) / size,
        "error": float((found - truth).abs().max()) / size,
        "seconds": time.perf_counter() - start,
    }
