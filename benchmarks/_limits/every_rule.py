"""Every rule of guidance as a row of a table, with its published numbers of steps and weights.

All use the grid rho 7 from 80 to 0.002 but the default rule, hard values and RED-diff, which use
the default grid from 1000 to 0.001. The weights of FunDPS act through the number of grid points;
they are published for 128 x 128 and multiplied by the share of points. The weights of DiffusionPDE
are those on its own fields. Rows marked (tuned) have the weight of the best CRPS on 32 x 32 out of
factors of 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from _limits.problem import STD, Problem
from sciddm.denoise import Context, Denoiser, Gaussian
from sciddm.guide import (
    DPS,
    MMPS,
    SDA,
    TMPD,
    Conditioned,
    DiffusionPDELoop,
    DPSLoop,
    FunDPSLoop,
    HardProjection,
    PiGDM,
    PiGDMLoop,
    REDDiff,
    Replace,
    ReSample,
    Resampling,
)
from sciddm.observe import Observation
from sciddm.particle import EnKG, EnsembleKalman, Matched, TwistedSMC
from sciddm.process import Process
from sciddm.random import Streams
from sciddm.solve import Euler, Heun, LogKappa, Multistep, Rho, Solver, trajectory

ANCESTRAL = Euler(eta=1.0)
PUBLISHED_POINTS = 128 * 128


def edm(process: Process, steps: int) -> Tensor:
    """Rho 7 from 80 to 0.002."""
    return Rho(7.0).times(process, steps, 80.0, 0.002)


def even(process: Process, steps: int) -> Tensor:
    """The default: even in log kappa over the whole clock."""
    return LogKappa().times(process, steps, None, None)


class Together(Streams):
    """One address for a whole batch: thousands of addresses cost more than their draws."""

    def normal(self, like: Tensor) -> Tensor:
        first = Streams(self.seed, self.cases[:1], self.members[:1], self.purpose, self.step)
        return first.normal(like[None])[0]


def together(seed: int, rows: int) -> Together:
    return Together(seed, (0,) * rows, tuple(range(rows)))


@dataclass(frozen=True)
class Rule:
    """A row: ``draw(problem, members, seed)`` gives (F * members, ...) draws.

    evaluations : of the network, for one draw. products : with its Jacobian or the transpose.
    """

    name: str
    draw: Callable[[Problem, int, int], Tensor]
    evaluations: int
    products: int = 0


@dataclass(frozen=True)
class Posed:
    """A problem with a row for every member: in coefficients or in fields."""

    problem: Problem
    prior: Gaussian
    observation: Observation
    like: Tensor


def in_modes(problem: Problem, members: int) -> Posed:
    like = torch.zeros(len(problem.y) * members, *problem.truth.shape[1:], dtype=torch.float64)
    return Posed(problem, problem.prior, problem.observation(members), like)


def in_fields(problem: Problem, members: int) -> Posed:
    size = problem.law.size
    like = torch.zeros(len(problem.y) * members, 2, size, size, dtype=torch.float64)
    return Posed(problem, problem.field_prior, problem.field_observation(members), like)


Pose = Callable[[Problem, int], Posed]


def drawn(denoiser: Denoiser, solver: Solver, times: Tensor, like: Tensor, seed: int) -> Tensor:
    """Draws in float64 of the shape of ``like``."""
    rng = together(seed, len(like))
    x = denoiser.process.start(like, times[0], None, rng.at("start"))
    with torch.no_grad():
        for x_s in trajectory(denoiser, x, times, Context(), solver, rng):
            x = x_s
    return x


def rule(
    name: str,
    denoiser: Callable[[Posed], Denoiser],
    steps: int,
    solver: Solver | Callable[[Posed], Solver] = ANCESTRAL,
    grid: Callable[[Process, int], Tensor] = edm,
    products: int = 0,
    pose: Pose = in_modes,
    evaluations: int | None = None,
) -> Rule:
    """A denoiser under a solver. products : with the Jacobian, for each evaluation."""

    def draw(problem: Problem, members: int, seed: int) -> Tensor:
        posed = pose(problem, members)
        stepping = solver if isinstance(solver, Solver) else solver(posed)
        guided = denoiser(posed)
        times = grid(guided.process, steps)
        return drawn(guided, stepping, times, posed.like, seed)

    if evaluations is None:
        evaluations = solver.evaluations(steps) if isinstance(solver, Solver) else steps
    return Rule(f"{name}, {steps}", draw, evaluations, products * evaluations)


def loop(
    name: str,
    solver: Callable[[Posed], Solver],
    steps: int,
    calls: int = 1,
    pose: Pose = in_modes,
) -> Rule:
    """A solver around a solver on the prior. calls : evaluations a step."""
    return rule(
        name, lambda p: p.prior, steps, solver, products=1, pose=pose, evaluations=calls * steps
    )


def conditioned(p: Posed) -> Denoiser:
    return Conditioned(p.prior, p.observation, p.prior)


def hard(p: Posed) -> HardProjection:
    return HardProjection(p.prior, p.observation.operator, p.observation.y)


def replaced(p: Posed) -> Replace:
    """The values seen, put at their pixels."""
    known = torch.zeros_like(p.like)
    keep = torch.zeros(p.like.shape[1:], dtype=torch.bool)
    known[:, p.problem.channel].flatten(1)[:, p.problem.where] = p.observation.y
    keep[p.problem.channel].view(-1)[p.problem.where] = True
    return Replace(p.prior, known, keep)


def red_diff(steps: int) -> Rule:
    def draw(problem: Problem, members: int, seed: int) -> Tensor:
        posed = in_fields(problem, members)
        descent = REDDiff(posed.prior, posed.observation, steps)
        times = even(posed.prior.process, steps)
        rng = together(seed, len(posed.like))
        return descent.descend(torch.zeros_like(posed.like), times, Context(), rng)

    return Rule(f"RED-diff (one guess), {steps}", draw, steps)


def by_field(draw: Callable[[Posed, int], Tensor]) -> Callable[[Problem, int, int], Tensor]:
    """For rules whose batch is one ensemble: a call for each field, with values of its own."""

    def every(problem: Problem, members: int, seed: int) -> Tensor:
        found = []
        for field in range(len(problem.y)):
            posed = in_modes(replace(problem, y=problem.y[field : field + 1]), members)
            seen = replace(posed.observation, y=problem.y[field])
            found.append(draw(replace(posed, observation=seen), seed + 1000 * field))
        return torch.cat(found)

    return every


def twisted(steps: int) -> Rule:
    """A cloud of particles for each field."""

    def draw(p: Posed, seed: int) -> Tensor:
        twist = Matched(p.prior, p.observation, p.prior, linear=True)
        rng = Streams.of(seed, len(p.like))
        cloud = TwistedSMC(twist, steps, dtype=torch.float64)
        return cloud(p.like.shape, Context(), rng)

    return Rule(f"twisted SMC, matched, {steps}", by_field(draw), steps)


def kalman(steps: int, draws: int) -> Rule:
    """The operator by regression over ``draws`` draws a member."""

    def draw(p: Posed, seed: int) -> Tensor:
        guided = EnsembleKalman(p.prior, p.observation, p.prior, seed=seed, draws=draws)
        return drawn(guided, Multistep(), even(guided.process, steps), p.like, seed)

    return Rule(f"ensemble Kalman, {draws} draws a member, {steps}", by_field(draw), steps)


def enkg(steps: int) -> Rule:
    """Without a covariance, as published: a field that fits, not a posterior."""

    def draw(p: Posed, seed: int) -> Tensor:
        guided = EnKG(p.prior, p.observation)
        return drawn(guided, ANCESTRAL, edm(guided.process, steps), p.like, seed)

    return Rule(f"EnKG, zeta 1, {steps}", by_field(draw), steps)


def mmps(iterations: int, steps: int) -> Rule:
    return rule(
        f"MMPS, {iterations} CG iterations, ancestral",
        lambda p: MMPS(p.prior, p.observation, iterations),
        steps,
        products=2 * (iterations + 1),
    )


def preconditioned(steps: int) -> Rule:
    """With the exact covariance one iteration is the solution."""
    return rule(
        "MMPS, 1 iteration, preconditioned",
        lambda p: MMPS(p.prior, p.observation, 1, moments=p.prior),
        steps,
        Multistep(),
        even,
        products=4,
    )


def fundps(steps: int) -> Rule:
    """20000 (inverse) and 10000 (forward) at 128 x 128."""

    def solver(p: Posed) -> Solver:
        weight = 20000.0 if p.problem.inverse else 10000.0
        return FunDPSLoop(p.observation, weight * p.problem.law.size**2 / PUBLISHED_POINTS)

    return loop("FunDPS loop, published weight", solver, steps, calls=2)


def diffusion_pde(steps: int, factor: float = 1.0) -> Rule:
    """0.8 on a and 40 on u in physical units, 1.72 and 1.10 in those of the authors' fields."""

    def solver(p: Posed) -> Solver:
        weight = 40 / 36.5 if p.problem.inverse else 0.8 * 2.15
        return DiffusionPDELoop(p.observation, factor * weight)

    what = "published weight" if factor == 1 else f"{factor:g} x the weight"
    return loop(f"DiffusionPDE loop, {what}", solver, steps, calls=2)


def dps_loop(steps: int) -> Rule:
    return loop(
        "DPS loop, zeta 1.6 (tuned), ancestral", lambda p: DPSLoop(p.observation, 1.6), steps
    )


def sda(gamma: float, steps: int) -> Rule:
    return rule(
        f"SDA, gamma {gamma:g}", lambda p: SDA(p.prior, p.observation, gamma), steps, products=1
    )


def pigdm(steps: int) -> list[Rule]:
    return [
        rule(
            "PiGDM, score form",
            lambda p: PiGDM(p.prior, p.observation, STD),
            steps,
            products=1,
            pose=in_fields,
        ),
        loop("PiGDM, as published", lambda p: PiGDMLoop(p.observation, STD), steps, pose=in_fields),
    ]


def hardly(steps: int) -> list[Rule]:
    """Rules that take the values for exact."""
    again = Resampling(3)
    return [
        rule("hard projection (DDNM)", hard, steps, Multistep(), even, pose=in_fields),
        rule("ReSample, gamma 40", hard, steps, ReSample(), even, pose=in_fields),
        rule("replacement", replaced, steps, ANCESTRAL, even, pose=in_fields),
        rule("replacement, 3 times (RePaint)", replaced, steps, again, even, pose=in_fields),
    ]


def default(steps: int = 32) -> Rule:
    return rule("Conditioned, default solver and grid", conditioned, steps, Multistep(), even)


def closed(steps: int) -> list[Rule]:
    """The closed form under other solvers, on the grid of the published loops."""
    solvers = {"2M": Multistep(), "Euler": Euler(), "ancestral": ANCESTRAL, "Heun": Heun()}
    return [rule(f"Conditioned, {n} (EDM)", conditioned, steps, s) for n, s in solvers.items()]


def quick_rules() -> list[Rule]:
    """Every rule; the loops with few steps."""
    return [
        default(),
        *closed(50),
        mmps(1, 50),
        mmps(3, 50),
        mmps(10, 50),
        mmps(30, 50),
        preconditioned(32),
        twisted(32),
        kalman(32, 25),
        enkg(100),
        rule("DPS, zeta 10", lambda p: DPS(p.prior, p.observation, 10.0), 100, products=1),
        dps_loop(500),
        sda(0.01, 100),
        sda(0.1, 100),
        sda(1.0, 100),
        *pigdm(50),
        rule("TMPD, row sums", lambda p: TMPD(p.prior, p.observation), 50, products=2),
        *hardly(25),
        red_diff(100),
        fundps(200),
        diffusion_pde(500, 4.0),
    ]


def whole_rules() -> list[Rule]:
    """Every rule with its published number of steps."""
    return [
        default(20),
        default(),
        default(50),
        *closed(50),
        *closed(100),
        mmps(1, 100),
        mmps(3, 100),
        mmps(10, 100),
        mmps(30, 100),
        preconditioned(32),
        twisted(32),
        kalman(32, 200),
        enkg(500),
        rule("DPS, zeta 10", lambda p: DPS(p.prior, p.observation, 10.0), 500, products=1),
        dps_loop(500),
        sda(0.01, 500),
        sda(0.1, 500),
        sda(1.0, 500),
        *pigdm(100),
        rule("TMPD, row sums", lambda p: TMPD(p.prior, p.observation), 100, products=2),
        *hardly(100),
        red_diff(500),
        fundps(200),
        fundps(500),
        diffusion_pde(500, 4.0),
        diffusion_pde(2000),
    ]


def fine_rules() -> list[Rule]:
    """For 64 x 64: the default, the matrix-free rule and the published loops."""
    return [
        default(),
        mmps(30, 50),
        mmps(100, 50),
        dps_loop(500),
        fundps(200),
        fundps(500),
        diffusion_pde(500, 4.0),
        diffusion_pde(2000),
    ]


def small_rules() -> list[Rule]:
    return [
        default(),
        *closed(50)[1:3],
        mmps(1, 20),
        mmps(10, 20),
        preconditioned(32),
        twisted(12),
        rule("DPS, zeta 10", lambda p: DPS(p.prior, p.observation, 10.0), 50, products=1),
        dps_loop(50),
        sda(0.1, 50),
        *pigdm(25),
        rule("TMPD, row sums", lambda p: TMPD(p.prior, p.observation), 25, products=2),
        *hardly(25)[:3],
        fundps(100),
        diffusion_pde(100, 16.0),
    ]
