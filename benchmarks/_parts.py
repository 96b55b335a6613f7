"""A benchmark of several parts: each runs in a process of its own, two at a time.

A part is a module with ``run(report, quick)``; one that offers a larger size has ``large(report,
quick)`` too, which ``--large`` runs after it. A part that breaks, or is killed, is a claim that
fails and takes no other part with it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from _report import Report

WORKERS = 2
MODELS = Path(__file__).resolve().parents[1] / "models"


@dataclass(frozen=True)
class Benchmark:
    """The parts of a benchmark.

    name : of the benchmark. package : where its parts are modules. parts : by name, longest first;
    the tables are printed as the parts end. alone : parts that measure time, run one by one after
    the others. larger : whether ``--large`` is offered. signed : models into whose cards ``--sign``
    writes the tables and claims that begin with their name.
    """

    name: str
    package: str
    parts: Sequence[str]
    alone: Sequence[str] = ()
    larger: bool = False
    signed: Sequence[str] = ()

    def main(self, doc: str) -> None:
        """Read the flags, run the parts that were asked for, print and exit as `Report.finish`."""
        args = self.arguments(doc)
        chosen = args.part or [*self.parts, *self.alone]
        settings = {"quick": args.quick, "parts": chosen, "seconds": {}}
        report = Report(self.name, settings | ({"large": args.large} if self.larger else {}))
        for names, workers in (
            ([n for n in chosen if n not in self.alone], WORKERS),
            ([n for n in chosen if n in self.alone], 1),
        ):
            with ThreadPoolExecutor(workers) as pool:
                running = {pool.submit(self._apart, n, args.quick, args.large): n for n in names}
                for done in as_completed(running):
                    self._add(report, running[done], done)
        for model in self.signed if args.sign else ():
            found = about(report, model)
            if found.tables:
                found.sign(MODELS / model)
        report.finish(args.json)

    def arguments(self, doc: str) -> argparse.Namespace:
        """The flags, and the parts that are wanted (none: all)."""
        parser = argparse.ArgumentParser(description=doc.splitlines()[0])
        known = [*self.parts, *self.alone]
        parser.add_argument("part", nargs="*", help=f"of {', '.join(known)}; all by default")
        parser.add_argument("--quick", action="store_true", help="at most 8 minutes on 2 cores")
        parser.add_argument("--json", action="store_true", help="end with one JSON object")
        parser.set_defaults(large=False, sign=False)
        if self.larger:
            parser.add_argument("--large", action="store_true", help="128 x 128 too, where offered")
        if self.signed:
            parser.add_argument(
                "--sign", action="store_true", help="write the tables into the cards"
            )
        args = parser.parse_args()
        for name in args.part:
            if name not in known:
                parser.error(f"got part {name!r}, expected of {', '.join(known)}")
        return args

    def _apart(self, name: str, quick: bool, large: bool) -> tuple[Report, str, float]:
        """One part in a process that ends with it, so that what kills it kills nothing else."""
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context, _end_with_parent) as pool:
            return pool.submit(part, self.name, self.package, name, quick, large).result()

    def _add(self, report: Report, name: str, done: Future[tuple[Report, str, float]]) -> None:
        try:
            found, text, seconds = done.result()
        except Exception as fault:  # one part that broke does not take the others with it
            print(f"\n{name} broke: {fault!r}")
            traceback.print_exception(fault, file=sys.stderr)
            report.claim(f"{name} ran to its end", 0, 1, 1)
            return
        print(f"{text}\n{name}: {seconds:.0f} s")
        sys.stdout.flush()
        report.claims += found.claims
        report.tables |= found.tables
        report.settings["seconds"][name] = round(seconds, 1)  # type: ignore[index]


def _end_with_parent() -> None:
    """A worker whose driver was killed would go on for minutes, for nobody."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def about(report: Report, model: str) -> Report:
    """The tables and claims of a report that begin with the name of a model."""

    def meant(title: str) -> bool:
        return re.sub("[^a-z0-9]+", "_", title.lower()).startswith(f"{model}_")

    tables = {title: rows for title, rows in report.tables.items() if meant(title)}
    claims = [c for c in report.claims if meant(c["name"])]
    return Report(report.benchmark, report.settings, claims, tables)


def part(
    benchmark: str, package: str, name: str, quick: bool, large: bool
) -> tuple[Report, str, float]:
    """Run one part: its report, what it printed and its seconds."""
    report = Report(benchmark, {})
    start = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()) as text:
        module = import_module(f"{package}.{name}")
        module.run(report, quick)
        if large and "large" in vars(module):
            module.large(report, quick)
    return report, text.getvalue(), time.monotonic() - start
