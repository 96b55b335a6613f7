"""Solvers and guidance at the limit: every rule beside the exact law, a table a problem.

The parts run side by side, two at a time. With --quick at most 8 minutes on 2 cores.

    python benchmarks/limits.py [--quick] [--json] [PART ...]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib  # noqa: E402
import io  # noqa: E402
import multiprocessing  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from concurrent.futures import ProcessPoolExecutor, as_completed  # noqa: E402
from importlib import import_module  # noqa: E402

from _report import Report, arguments  # noqa: E402

PARTS = (
    "rules",
    "cost",
    "poisson",
    "lorenz",
    "solvers",
    "calibration",
    "stochastic",
    "events",
)
"""Longest first; the tables are printed as the parts end."""
WORKERS = 2


def part(name: str, quick: bool) -> tuple[Report, str, float]:
    """Run one part in a process of its own: its report and what it printed."""
    report = Report("limits", {})
    start = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()) as text:
        import_module(f"_limits.{name}").run(report, quick)
    return report, text.getvalue(), time.monotonic() - start


def main() -> None:
    chosen = [a for a in sys.argv[1:] if not a.startswith("-")] or list(PARTS)
    sys.argv = [sys.argv[0], *(a for a in sys.argv[1:] if a.startswith("-"))]
    args = arguments(__doc__ or "")
    report = Report("limits", {"quick": args.quick, "parts": chosen, "seconds": {}})
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, mp_context=context) as pool:
        running = {pool.submit(part, name, args.quick): name for name in chosen}
        for done in as_completed(running):
            name = running[done]
            try:
                found, text, seconds = done.result()
            except Exception as fault:  # one part that broke does not take the others with it
                print(f"{name} broke: {fault!r}")
                report.claim(f"{name} ran to its end", 0, 1, 1)
                continue
            print(f"{text}\n{name}: {seconds:.0f} s")
            sys.stdout.flush()
            report.claims += found.claims
            report.tables |= found.tables
            report.settings["seconds"][name] = round(seconds, 1)  # type: ignore[index]
    report.finish(args.json)


if __name__ == "__main__":
    main()
