"""Ornstein-Uhlenbeck and Matern 3/2 series at irregular times: every sampler beside the posterior.

The law of the series is known, so what any set of known cells says of the others is too: a Gaussian
posterior, whose expected CRPS is std / sqrt(pi). Scores are in expectation over that posterior:
fair CRPS of the members against a truth that is drawn from it, and the share of such truths in
the central 90 % interval between members (the second from each end of 39). Both therefore carry the
noise of the members and of the known values alone, which all rows share.

Series have 40 cells at times of their own, uniform over 8 correlation lengths, other times in
training, in the test and in every seed. Laws are fitted by maximum likelihood to training draws.
Both networks are trained here, on the same draws, for every task at once: the prior stands on the
fitted law, where there is nothing left to learn and harm would show, the conditional model on a law
of the wrong family, two squared exponentials and white noise, which it has to repair.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from _report import Report
from torch import Tensor

from sciddm.nn import Cellwise, SetTransformer
from sciddm.random import Streams
from sciddm.series import (
    GaussianSeries,
    MarkovSeries,
    Panel,
    Posterior,
    SeriesLearner,
    SeriesSampler,
    posterior,
)
from sciddm.series.baselines import Floor, Held, Line, MeanOf, Walk, pooled
from sciddm.series.baselines import spread as gaussian
from sciddm.series.conditional import Conditional
from sciddm.series.fitting import guess, median_gap, polished
from sciddm.series.kernel import Matern32, Mixed, OrnsteinUhlenbeck, Shape, SquaredExponential, Term
from sciddm.series.law import factor
from sciddm.series.prior import FunctionPrior
from sciddm.series.rules import Matching

CELLS, SPAN, LENGTH = 40, 8.0, 1.0
MEMBERS = 39
STEPS = 8
"""Evaluations a draw of the learned models, and of the diffusion of the law."""
SHAPES: dict[str, Shape] = {
    "Ornstein-Uhlenbeck": OrnsteinUhlenbeck(LENGTH),
    "Matern 3/2": Matern32(LENGTH),
}


@dataclass(frozen=True)
class Size:
    """seeds; training series, those that laws are fitted to, and steps; test series, and those that
    diffusions are scored on; draws for moments, of the law and of a network."""

    seeds: int
    trained: int
    fitted: int
    steps: int
    test: int
    scored: int
    draws: int
    few: int


WHOLE = Size(3, 1024, 1024, 200, 96, 32, 2048, 1024)
QUICK = replace(WHOLE, seeds=2)


def run(report: Report, quick: bool) -> None:
    size = QUICK if quick else WHOLE
    with torch.random.fork_rng():
        for name, shape in SHAPES.items():
            seeds = [case(shape, seed, size) for seed in range(size.seeds)]
            tables(report, name, seeds)


def single(*shapes: Shape) -> Mixed:
    """One channel of variance 1."""
    none = torch.zeros(1, dtype=torch.float64)
    share = (none + 1) / len(shapes)
    return Mixed(tuple(Term(s, none[:, None][:, :0], share) for s in shapes), none)


def series(law: Mixed, count: int, seed: int, case: int) -> Panel:
    """``count`` draws of the law, all cells known, each at times of its own."""
    rng = Streams.of(seed, count, case=case)
    blank = torch.zeros(count, CELLS, dtype=torch.float64)
    at = SPAN * torch.special.ndtr(rng.at("times").normal(blank)).sort(1).values
    whole = torch.ones_like(at, dtype=torch.bool)
    panel = Panel(at, torch.zeros_like(at).long(), blank, whole, whole)
    noise = rng.at("values").normal(blank)
    return replace(panel, value=(factor(law.covariance(panel)) @ noise[..., None])[..., 0])


def forecast(panel: Panel, seed: int) -> Panel:
    """The last quarter of the time is wanted."""
    return panel.given(panel.time < 0.75 * SPAN)


def hidden(share: float) -> Callable[[Panel, int], Panel]:
    """That share of the cells of each series is wanted, at random."""

    def mask(panel: Panel, seed: int) -> Panel:
        white = Streams.of(seed, len(panel), case=9).at("hidden").normal(panel.time)
        return panel.given(white.argsort(1).argsort(1) >= round(share * CELLS))

    return mask


TASKS = {
    "forecast": forecast,
    "10 % hidden": hidden(0.1),
    "50 % hidden": hidden(0.5),
    "90 % hidden": hidden(0.9),
}


@dataclass(frozen=True)
class Score:
    """CRPS over that of the exact posterior, and the coverage of the 90 % interval."""

    ratio: float
    coverage: float


def score(draws: Tensor, exact: Posterior, wanted: Tensor) -> Score:
    """Draws (B, M, m) against truths of the exact posterior, in expectation over them."""
    count = draws.shape[1]
    x = draws.double().sort(1).values.transpose(1, 2)[wanted]
    mean, std = exact.mean[wanted][:, None], exact.std[wanted][:, None]
    z = (x - mean) / std
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    error = std * (z * (2 * torch.special.ndtr(z) - 1) + 2 * density)
    # the sum of |x_i - x_j| over pairs of sorted members
    weight = 2 * torch.arange(count, dtype=torch.float64) - count + 1
    spread = (weight * x).sum(1) / (count * (count - 1))
    crps = (error.mean(1) - spread).sum()
    last = round(0.05 * (count + 1)) - 1
    inside = torch.special.ndtr(z[:, -1 - last]) - torch.special.ndtr(z[:, last])
    return Score(float(crps / (std.sum() / math.sqrt(math.pi))), float(inside.mean()))


@dataclass(frozen=True)
class Moments:
    """Of draws of whole series at unseen times: z-scores of mean and variance over all cells, and
    the error of the covariance over the truth, at lags of a true correlation above 0.2."""

    mean: float
    variance: float
    covariance: tuple[float, ...]


def moments(sampler: SeriesSampler, law: Mixed, cells: Panel, count: int, seed: int) -> Moments:
    blank = cells.given(torch.zeros_like(cells.real))
    per = count // len(cells)
    x = sampler.draw(blank, addresses(seed, len(cells), per)).double()
    truth = law.covariance(cells)
    own = truth.diagonal(dim1=1, dim2=2)[:, None]
    z = [
        float(v.mean() / (v.std() / math.sqrt(v.numel())))
        for v in (x.mean(2).flatten(), (x.square() - own).mean(2).flatten())
    ]
    lag = (cells.time[:, :, None] - cells.time[:, None]).abs()
    found = x.mT @ x / per
    errors = []
    for low in np.arange(0.0, 2.0, 0.25):
        pairs = (lag > low) & (lag <= low + 0.25)
        wanted = float(truth[pairs].mean())
        if wanted > 0.2:
            errors.append(float(found[pairs].mean()) / wanted - 1)
    return Moments(z[0], z[1], tuple(errors))


def addresses(seed: int, count: int, members: int) -> Streams:
    cases = np.repeat(np.arange(count), members).tolist()
    return Streams(seed, tuple(cases), tuple(np.tile(np.arange(members), count).tolist()))


@dataclass(frozen=True)
class Result:
    """Of one seed: scores by sampler and task, moments by sampler."""

    scores: Mapping[str, Mapping[str, Score]]
    moments: Mapping[str, Moments]


KRIGING, KALMAN = "kriging, fitted law", "Kalman, fitted law"
BASE = "diffusion of the fitted law, guided"
PRIOR, CONDITIONAL = "learned prior on the fitted law, guided", "learned conditional, wrong family"
WRONG = "kriging, wrong family"


def case(shape: Shape, seed: int, size: Size) -> Result:
    truth = single(shape)
    train = series(truth, size.trained, seed, case=1)
    test = series(truth, size.test, seed, case=2)
    gap = median_gap(train)
    few = train.rows(slice(0, size.fitted))
    law = fit(few, [type(shape)(10 * gap)])  # type: ignore[call-arg]
    wrong = fit(few, [SquaredExponential(20 * gap), SquaredExponential(5 * gap)])
    base = FunctionPrior(law, rule=Matching(STEPS))
    samplers: dict[str, SeriesSampler] = {
        "exact posterior, drawn": GaussianSeries(truth),
        KRIGING: GaussianSeries(law),
        BASE: base,
        WRONG: GaussianSeries(wrong),
    }
    if isinstance(shape, OrnsteinUhlenbeck):
        samplers[KALMAN] = MarkovSeries(law)
    learned: dict[str, SeriesSampler] = {}
    for name, model in models(law, wrong, seed).items():
        learned[name] = teach(model, train, seed, size.steps)
    scores: dict[str, dict[str, Score]] = {}
    for task, mask in TASKS.items():
        whole = mask(test, seed)
        extra = baselines(mask(train, seed + 50), law)
        for name, sampler in (samplers | extra | learned).items():
            few = size.scored if name in learned or name == BASE else size.test
            panel = whole.rows(slice(0, few))
            draws = sampler.draw(panel, addresses(seed, few, MEMBERS))
            found = score(draws, posterior(truth, panel), panel.wanted)
            scores.setdefault(name, {})[task] = found
    cells = series(truth, 8, seed, case=3)
    return Result(scores, {
        KRIGING: moments(samplers[KRIGING], truth, cells, size.draws, seed),
        BASE: moments(base, truth, cells, size.draws, seed),
        PRIOR: moments(learned[PRIOR], truth, cells, size.few, seed),
    })  # fmt: skip


def fit(train: Panel, shapes: Sequence[Shape]) -> Mixed:
    law = polished(guess(train, 1, shapes, rest=0.02, centred=True), train)
    assert isinstance(law, Mixed)
    return law


def baselines(train: Panel, law: Mixed) -> dict[str, SeriesSampler]:
    """What needs no law, and a point forecast; residuals are those of the same task in training."""
    edges = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
    few, mean = [train.rows(slice(0, 256))], MeanOf(GaussianSeries(law))
    return {
        "kriging mean + Gaussian residuals": Floor(mean, gaussian(mean, few, edges)),
        "linear interpolation + residuals": Floor(Line(), pooled(Line(), [train], edges)),
        "naive + residuals": Floor(Held(), pooled(Held(), [train], edges)),
        "bootstrap random walk": Walk(),
    }


def models(law: Mixed, wrong: Mixed, seed: int) -> dict[str, SeriesLearner]:
    torch.manual_seed(seed)  # the first weights
    nets = [SetTransformer(1, 0.02, SPAN, width=32, heads=4, readers=1) for _ in range(2)]
    return {
        PRIOR: FunctionPrior(law, Cellwise(nets[0]), rule=Matching(STEPS)),
        CONDITIONAL: Conditional(nets[1], wrong, 1, steps=STEPS),
    }


def teach(model: SeriesLearner, train: Panel, seed: int, steps: int) -> SeriesLearner:
    """AdamW on batches with a random part hidden, or all after a random time."""
    batch, rate = 32, 2e-3
    weights = list(model.parameters())
    optimiser = torch.optim.AdamW(weights, lr=rate, weight_decay=1e-4)
    model.train()
    for step in range(steps):
        rng = np.random.default_rng((seed, step))
        panel = train.rows(torch.from_numpy(rng.choice(len(train), batch, replace=False)))
        here = torch.from_numpy(rng.random((batch, CELLS)))
        known = here > torch.from_numpy(rng.uniform(0.05, 0.95, (batch, 1)))
        before = panel.time < SPAN * torch.from_numpy(rng.uniform(0.5, 0.95, (batch, 1)))
        ahead = torch.from_numpy(rng.random((batch, 1))) < 0.3
        share = step / steps
        optimiser.param_groups[0]["lr"] = (
            rate * min(1, (step + 1) / 30) * 0.5 * (1 + math.cos(math.pi * share))
        )
        noise = Streams.of(seed, batch, case=4).inside("training", step)
        loss = model.loss(panel.given(torch.where(ahead, before, known)), noise, share).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
    return model.eval()  # type: ignore[no-any-return]


def spread(values: Sequence[float]) -> str:
    """Mean and standard error over the seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.3f}"
    return f"{mean:.3f} ({np.std(values, ddof=1) / math.sqrt(len(values)):.3f})"


def tables(report: Report, name: str, seeds: Sequence[Result]) -> None:
    names, first = list(seeds[0].scores), {"sampler": "exact posterior, closed form"}
    rows = [first | {task: "1" for task in TASKS}]
    rows += [
        {"sampler": n} | {t: spread([r.scores[n][t].ratio for r in seeds]) for t in TASKS}
        for n in names
    ]
    settings = f"{MEMBERS} members, {STEPS} evaluations, {len(seeds)} seeds"
    report.table(f"{name}: fair CRPS over the exact posterior's in expectation, {settings}", rows)
    rows = [
        {"sampler": n} | {t: spread([r.scores[n][t].coverage for r in seeds]) for t in TASKS}
        for n in names
    ]
    report.table(f"{name}: coverage of the central 90 % interval", rows)
    rows = []
    for n in seeds[0].moments:
        found = [r.moments[n] for r in seeds]
        mean, variance = max(abs(m.mean) for m in found), max(abs(m.variance) for m in found)
        error = float(np.abs(np.mean([m.covariance for m in found], axis=0)).max())
        rows.append({"sampler": n, "mean, z": mean, "variance, z": variance,
                     "covariance, error": error})  # fmt: skip
        if n in (BASE, PRIOR):
            worst = max(mean, variance)
            report.claim(f"{name}, {n}: marginal moments, worst z of the seeds", worst, 0, 3)
            report.claim(f"{name}, {n}: two-point covariance, worst lag", error, 0, 0.10)
    report.table(f"{name}: new series at unseen times, worst seed and lag", rows)
    for n, bound in ((BASE, 1.05), (PRIOR, 1.10), (CONDITIONAL, 1.10)):
        ratio = {t: float(np.mean([r.scores[n][t].ratio for r in seeds])) for t in TASKS}
        ahead = ratio.pop("forecast")
        report.claim(f"{name}, {n}: forecast, CRPS over the exact", ahead, 0, bound)
        worst = max(ratio.values())
        report.claim(f"{name}, {n}: imputation, CRPS over the exact, worst share", worst, 0, bound)
        share = [float(np.mean([r.scores[n][t].coverage for r in seeds])) for t in TASKS]
        report.claim(f"{name}, {n}: coverage of 90 %, lowest of the tasks", min(share), 0.86, 0.94)
        report.claim(f"{name}, {n}: coverage of 90 %, highest of the tasks", max(share), 0.86, 0.94)
