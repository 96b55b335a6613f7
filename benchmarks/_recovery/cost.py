"""What one posterior member costs at 128 x 128: wall seconds on one and on two threads.

Poisson inverse, 500 points, 20 evaluations. The shipped network is small; beside it the same model
with a fresh network of a million parameters, untrained, which costs what a trained one would. A
draw is made in blocks of 16 rows whatever was asked for, so one member asked for alone costs a
whole block; in an ensemble it costs a sixteenth. Gains (500 sensors, once a mask) are in the
figures.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from _report import Report

import sciddm as sd
from _recovery.cases import Problem
from sciddm import nn
from sciddm.denoise import Preconditioned
from sciddm.ensemble import BLOCK
from sciddm.model import Model

STEPS, POINTS = 20, 500


def run(report: Report, quick: bool) -> None:
    """Two networks, one and two threads; --quick has the larger network on two."""
    problem = Problem.of("poisson", 128)
    case = problem.case("inverse", 0, points=POINTS)
    models = {"fresh, untrained": larger(problem.trained)}
    if not quick:
        models["shipped"] = problem.trained
    rows, before = [], torch.get_num_threads()
    try:
        for name, model in models.items():
            for threads in (2,) if quick else (2, 1):
                torch.set_num_threads(threads)
                sd.recover(model, case.seen, members=1, steps=2)  # what is loaded once
                wall, cpu = time.monotonic(), time.process_time()
                sd.recover(model, case.seen, members=BLOCK, steps=STEPS, seed=1)
                wall, cpu = time.monotonic() - wall, time.process_time() - cpu
                rows.append(
                    {
                        "network": name,
                        "parameters": parameters(model),
                        "threads": threads,
                        "evaluations": STEPS,
                        "block_of_16_s": wall,
                        "one_of_16_s": wall / BLOCK,
                        "cpu_s": cpu,
                    }
                )
    finally:
        torch.set_num_threads(before)
    report.table("Seconds of a posterior member, 128 x 128, 500 points", rows)
    size, seconds = rows[0]["parameters"], rows[0]["block_of_16_s"]
    report.claim("parameters of the network that is timed, millions", size / 1e6, 0.5, 2.0)
    report.claim("a member of 16 on 2 threads, seconds", seconds / BLOCK, 0, 10)
    report.claim("a member asked for alone on 2 threads, seconds", seconds, 0, 10)


def larger(model: Model) -> Model:
    """The same model with an untrained network of a million parameters."""
    torch.manual_seed(0)
    denoiser = model.sampler.denoiser
    backbone = nn.SpectralOperator(2, 1, (16, 16), 32, 4)
    fresh = Preconditioned(backbone, denoiser.process, model.gaussian).eval().requires_grad_(False)
    return replace(model, sampler=replace(model.sampler, denoiser=fresh))


def parameters(model: Model) -> int:
    """Of the network alone."""
    denoiser = model.sampler.denoiser
    assert isinstance(denoiser, Preconditioned)
    return sum(p.numel() for p in denoiser.backbone.parameters())
