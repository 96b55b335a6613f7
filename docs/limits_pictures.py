"""The pictures of the chooser: every solver and every rule against an exact posterior.

The problems are those of `benchmarks/_limits`, so a picture and a table of the same name agree.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from _limits import every_rule, rules  # noqa: E402
from _limits.problem import make  # noqa: E402
from _limits.solver_choice import most  # noqa: E402
from _limits.stochastic import END, Units  # noqa: E402

from sciddm import choices, plot  # noqa: E402
from sciddm.basis import Cosine  # noqa: E402
from sciddm.covariance import Matern, Spectral  # noqa: E402
from sciddm.denoise import Context, Denoiser, Gaussian  # noqa: E402
from sciddm.guide import Conditioned, linear_posterior  # noqa: E402
from sciddm.observe import Observation, points  # noqa: E402
from sciddm.process import VE, LogLinear  # noqa: E402
from sciddm.random import Streams  # noqa: E402
from sciddm.solve import Solver, trajectory  # noqa: E402

Figures = dict[str, float]
DOUBLE = torch.float64
SHAPE = (1, 10, 10)
SIZE = 100
SOLVERS = {name: solver for name, solver in choices.SOLVERS.items() if name != "adaptive"}
"""Those whose draws are affine in their noise, so that their law is known without Monte Carlo."""
BUDGETS = (5, 7, 10, 14, 20, 32, 50)


@dataclass(frozen=True, eq=False)
class Posterior:
    """A guided denoiser, and the exact mean (D,) and s.d. (D,) of what it should draw."""

    denoiser: Denoiser
    mean: torch.Tensor
    std: torch.Tensor

    def compare(self, solver: Solver, budget: int) -> tuple[float, float]:
        """S.d. over the exact one, and distance of the mean in s.d., of all possible draws.

        Every solver is affine here: its law follows from the images of the start and of each noise.
        """
        process = self.denoiser.process
        times = process.times(most(solver, budget))
        start = process.coefficients(times[0])[2] * torch.eye(SIZE, dtype=DOUBLE).view(-1, *SHAPE)
        rows = {END: SIZE + 1}
        for _ in range(2):  # the first pass learns how many impulses there are
            x = torch.zeros(rows[END], *SHAPE, dtype=DOUBLE)
            x[1 : SIZE + 1] = start
            count = len(x)
            *_, last = trajectory(
                self.denoiser, x, times, Context(), solver, Units(0, (), (), rows=rows)
            )
            if rows[END] == count:
                break
        moved = (last[1:] - last[:1]).flatten(1)
        ratio = moved.square().sum(0).sqrt() / self.std
        away = (last[0].flatten() - self.mean) / self.std
        return rms(ratio), rms(away)


def rms(v: torch.Tensor) -> float:
    return float(v.square().mean().sqrt())


def sensors() -> Posterior:
    """Twelve sensors in a smooth 10 x 10 field, errors an eighth of its s.d."""
    prior = Spectral(Matern(0.35, 1.5, 1.2), (1.0, 1.0), Cosine())
    gaussian = Gaussian(torch.zeros((), dtype=DOUBLE), prior, VE(clock=LogLinear(0.01, 300.0)))
    position = 9 * torch.rand(12, 2, generator=torch.manual_seed(5), dtype=DOUBLE)
    operator = points([0] * 12, position, SHAPE[1:])
    like = torch.zeros(1, *SHAPE, dtype=DOUBLE)
    error = 0.15 * torch.randn(12, generator=torch.manual_seed(6), dtype=DOUBLE)
    y = operator(prior.sample(like, Streams.of(3, 1)))[0] + error
    observation = Observation(y, operator, torch.tensor(0.15**2, dtype=DOUBLE))
    mean, _, variance = linear_posterior(gaussian, observation, like)
    guided = Conditioned(gaussian, observation, gaussian)
    return Posterior(guided, mean.flatten(), variance.flatten().sqrt())


class Rough(Denoiser):
    """A denoiser with an error of its own in every row and at every call: ``share`` of the s.d.
    that the clean field has left there, in every direction."""

    def __init__(self, gaussian: Gaussian, share: float) -> None:
        torch.nn.Module.__init__(self)
        self.gaussian, self.process, self.share = gaussian, gaussian.process, share
        self.draw = torch.Generator().manual_seed(0)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, context: Context) -> torch.Tensor:
        z = torch.randn(x_t.shape, generator=self.draw, dtype=DOUBLE)
        kappa = self.process.kappa(t)
        error = self.gaussian.prior.joint(
            z, self.process.noise, lambda p, c: kappa * torch.sqrt(c * p / (p + kappa**2 * c))
        )
        return self.gaussian(x_t, t, context) + self.share * error


class Silent(Streams):
    """No noise: what is left is the mean of all draws."""

    def normal(self, like: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(like)


def moved(posterior: Posterior, solver: Solver, budget: int, rows: int = 64) -> float:
    """Distance of the mean in s.d., rms over ``rows`` denoisers that are a tenth wrong."""
    exact = posterior.denoiser
    gaussian = exact.moments
    assert isinstance(gaussian, Gaussian)
    rough = Conditioned(Rough(gaussian, 0.1), exact.observation, gaussian)
    times = exact.process.times(most(solver, budget))
    x = torch.zeros(rows, *SHAPE, dtype=DOUBLE)
    *_, last = trajectory(rough, x, times, Context(), solver, Silent(0, (), ()))
    return rms((last.flatten(1) - posterior.mean) / posterior.std)


LOOKS = {  # colour, dashes, marker
    "multistep": (0, "-", "o"),
    "adams": (5, "-", "s"),
    "singlestep": (2, "-", "^"),
    "euler": (3, "--", "v"),
    "heun": (1, "--", "D"),
    "ancestral": (4, ":", "v"),
    "stochastic-adams": (1, ":", "s"),
    "extended": (2, ":", "P"),
    "matched": (6, ":", "x"),
}
"""The solvers of the picture; the others are printed alone. Dots are the stochastic ones."""


def solvers() -> tuple[Figure, Figures]:
    """Spread, and what an error of the denoiser does to the mean, against evaluations."""
    posterior, figures = sensors(), {}
    fig = Figure(figsize=(9.6, 3.5), layout="constrained")
    left, right = fig.subplots(1, 2)
    for name, solver in SOLVERS.items():
        counts = [n for n in BUDGETS if solver.evaluations(most(solver, n)) <= n]
        found = [(*posterior.compare(solver, n), moved(posterior, solver, n)) for n in counts]
        for n, (ratio, away, rough) in zip(counts, found, strict=True):
            if n in (5, 10, 20, 50):
                figures[f"{name}, {n}: s.d. ratio"] = ratio
                figures[f"{name}, {n}: mean"] = away
                figures[f"{name}, {n}: mean, denoiser off by a tenth"] = rough
        if name in LOOKS:
            colour, dashes, marker = LOOKS[name]
            style = {"color": plot.LINES[colour], "ls": dashes, "marker": marker}
            style |= {"lw": 2.4 if name == "multistep" else 1.4, "ms": 4.5, "mfc": "white"}
            label = f"{name} (default)" if name == "multistep" else name
            left.plot(counts, [f[0] for f in found], label=label, **style)
            right.plot(counts, [f[2] for f in found], **style)
    left.axhline(1.0, color="black", lw=0.8, zorder=0)
    left.set(ylabel="spread / exact spread", ylim=(0.42, 2.4))
    right.set(ylabel="distance of the mean, posterior s.d.", ylim=(0.02, 1.0))
    left.set_title("exact denoiser")
    right.set_title("a denoiser that is a tenth wrong")
    for ax, ticks in ((left, (0.5, 0.7, 1.0, 1.4, 2.0)), (right, (0.02, 0.05, 0.1, 0.2, 0.5, 1.0))):
        scaled(ax, ticks)
        ax.set_xlabel("network evaluations a member")
    fig.legend(loc="outside right center")
    return fig, figures


def scaled(ax: Axes, ticks: tuple[float, ...]) -> None:
    """Logarithmic axes with plain numbers."""
    ax.set(xscale="log", yscale="log")
    ax.set_xticks([5, 10, 20, 50], ["5", "10", "20", "50"])
    ax.set_yticks(ticks, [f"{v:g}" for v in ticks])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_minor_formatter(NullFormatter())


FAMILIES = (
    "covariance in closed form",
    "covariance by the Jacobian",
    "clouds and ensembles",
    "error of the estimate guessed",
    "steps along a gradient",
    "values taken for exact",
)
POINTS: Mapping[str, tuple[str, int, tuple[int, int]]] = {
    "Conditioned, default solver and grid": (
        "Conditioned (default),\nMMPS preconditioned",
        0,
        (4, 25),
    ),
    "Conditioned, 2M (EDM)": ("", 0, (0, 0)),
    "Conditioned, Euler (EDM)": ("Conditioned, Euler", 0, (8, -3)),
    "Conditioned, ancestral (EDM)": ("Conditioned, ancestral", 0, (-2, -14)),
    "Conditioned, Heun (EDM)": ("", 0, (0, 0)),
    "MMPS, 1 CG iterations, ancestral": ("MMPS 1", 1, (-8, -3)),
    "MMPS, 3 CG iterations, ancestral": ("MMPS 3", 1, (8, -3)),
    "MMPS, 10 CG iterations, ancestral": ("MMPS 10, ancestral", 1, (8, -3)),
    "MMPS, 30 CG iterations, ancestral": ("MMPS 30, ancestral", 1, (8, -3)),
    "MMPS, 1 iteration, preconditioned": ("", 1, (0, 0)),
    "twisted SMC, matched": ("TwistedSMC", 2, (9, -11)),
    "ensemble Kalman, 25 draws a member": ("EnsembleKalman", 2, (8, -3)),
    "EnKG, zeta 1": ("EnKG", 2, (8, -3)),
    "DPS, zeta 10": ("DPS", 4, (-8, -4)),
    "DPS loop, zeta 1.6 (tuned), ancestral": ("DPSLoop", 4, (0, 8)),
    "SDA, gamma 0.01": ("SDA 0.01", 3, (8, -3)),
    "SDA, gamma 0.1": ("SDA 0.1", 3, (8, -3)),
    "SDA, gamma 1": ("SDA 1", 3, (8, -3)),
    "PiGDM, score form": ("PiGDM", 3, (8, -3)),
    "PiGDM, as published": ("PiGDMLoop", 3, (-8, 0)),
    "TMPD, row sums": ("TMPD", 3, (8, -3)),
    "hard projection (DDNM)": ("HardProjection", 5, (8, -3)),
    "ReSample, gamma 40": ("ReSample", 5, (8, -3)),
    "replacement": ("Replace", 5, (8, -3)),
    "replacement, 3 times (RePaint)": ("Resampling", 5, (4, -13)),
    "RED-diff (one guess)": ("REDDiff", 4, (-1, 9)),
    "FunDPS loop, published weight": ("FunDPSLoop", 4, (8, -3)),
    "DiffusionPDE loop, 4 x the weight": ("DiffusionPDELoop", 4, (2, -15)),
}
"""Of each row of the benchmark its label, its family and where the label stands."""


FAR = 10.0
"""Distance beyond which a rule has words and no point."""


def look(family: int) -> dict[str, object]:
    """Colour and marker of a family of rules."""
    return {"color": plot.LINES[family], "marker": "osP^Dv"[family], "ls": "none", "ms": 6}


def words(ax: Axes, text: str, at: tuple[float, float], offset: tuple[int, int]) -> None:
    """A label ``offset`` points from its point, right-aligned on its left side."""
    side = "right" if offset[0] < -4 else "left"
    ax.annotate(text, at, offset, textcoords="offset points", fontsize=8, ha=side)


def guidance() -> tuple[Figure, Figures]:
    """Every rule: distance of the mean and spread, against the exact posterior."""
    problem = make(32, 125, 1e-3, True, 4)
    found = rules.rows(problem, every_rule.quick_rules(), 20)
    fig, figures = Figure(figsize=(9.8, 4.2), layout="constrained"), {}
    near, far = fig.subplots(1, 2, width_ratios=(1, 1.35))
    for line in found[3:]:
        name = str(line["rule"]).rpartition(", ")[0]
        if "distance_sd" not in line:
            figures[f"{line['rule']}: diverged, evaluations"] = line["evaluations"]
            continue
        x, y = float(line["distance_sd"]), float(line["sd_ratio"])
        label, family, offset = POINTS[name]
        ax = near if x < 0.5 else far
        if x < FAR:
            ax.plot([x], [y], alpha=0.85, **look(family))
            words(ax, label, (x, y), offset)
        else:
            words(ax, f"{label} ({x:.0f}, {y:.0f})", (FAR, 7.4), (-6, 0))
        for key in ("distance_sd", "sd_ratio", "crps", "misfit_sd", "evaluations", "seconds"):
            figures[f"{line['rule']}: {key}"] = float(line[key])
    for family, text in enumerate(FAMILIES):
        far.plot([], [], label=text, **look(family))
    near.plot([0], [1], marker="*", ms=15, color="black", mfc="none", ls="none")
    words(near, "exact", (0, 1), (-4, -24))
    near.set(xlim=(-0.03, 0.5), ylim=(0.8, 1.12), title="near the exact posterior")
    far.set(xscale="log", yscale="log", xlim=(0.6, FAR), ylim=(0.95, 8), title="far from it")
    far.set_xticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    far.set_yticks([1, 2, 5], ["1", "2", "5"])
    far.xaxis.set_minor_formatter(NullFormatter())
    far.yaxis.set_minor_formatter(NullFormatter())
    for ax in (near, far):
        ax.axhline(1.0, color="black", lw=0.8, zorder=0)
        ax.set_xlabel("distance of the mean, posterior s.d.")
    near.set_ylabel("spread / exact spread")
    fig.legend(loc="outside lower center", ncols=3)
    return fig, figures


PICTURES = (solvers, guidance)
