"""The command ``sciddm``: one verb, its inputs, where the output goes.

Exit codes: 0 done, 1 a run failed, 2 bad input (one line on standard error, nothing written), 130
interrupted. Figures go to standard output, with ``--json`` as one object on the last line;
everything else goes to standard error. Numerical libraries are imported inside the verbs, so that
help and bad flags answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from sciddm import __version__, forecasting, series_verbs, verbs
from sciddm.errors import InputError, RunError

Verb = Callable[[argparse.Namespace], int | None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own) and return its exit code."""
    with warnings.catch_warnings():
        warnings.showwarning = _one_line(warnings.showwarning)
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    try:
        args = _parser().parse_args(argv)
        return int(args.verb(args) or 0)
    except InputError as error:
        return _fail(error, 2)
    except RunError as error:
        return _fail(error, 1)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "allocate memory" not in str(error):
            raise
        return _fail("not enough memory; take fewer members, or a smaller grid or batch.", 1)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing half-written stands under a final name.", 130)
    except BrokenPipeError:
        # The reader (head, less) has gone: Python must not fail once more while it closes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _one_line(usual: Callable[..., None]) -> Callable[..., None]:
    """How warnings about data are shown: a line as of errors, without the place in the source."""

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if category.__name__ == "DataWarning":
            print(f"sciddm: warning: {' '.join(str(message).split())}", file=sys.stderr)
        else:
            usual(message, category, *where, **more)

    return show


def _fail(reason: object, code: int) -> int:
    print(f"sciddm: {' '.join(str(reason).split())}", file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    """Bad flags are bad input: one line and exit code 2, without the page of usage."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see `{self.prog} --help`.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sciddm", description="Diffusion ensembles, from zarr to zarr.")
    parser.add_argument("--version", action="version", version=f"sciddm {__version__}")
    known = parser.add_subparsers(required=True, metavar="VERB", title="verbs")

    demo = _verb(known, "demo", verbs.demo, "the whole road, on a fresh field or on your own file")
    demo.add_argument("--data", metavar="FILE", help="your NetCDF or zarr, instead of a PDE")
    demo.add_argument("--variable", metavar="NAME", help="its variable")
    demo.add_argument("-o", "--out", metavar="DIR", help="[runs/demo, made anew each time]")
    _drawing(demo)

    make = _verb(known, "make", verbs.make, "make a data set of the shelf")
    make.add_argument("dataset", help="a name in datasets/, or the path of a recipe")
    make.add_argument("store", help="the zarr store to write")
    make.add_argument("--size", default="toy", help="toy, small or full [toy]")
    make.add_argument("--seed", type=_index, default=0, help="[0]")
    make.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a number of the recipe"
    )
    make.add_argument("--workers", type=_count, help="processes [one a core]")
    make.add_argument("--resume", action="store_true", help="go on where the last run stopped")
    _replacing(make)

    train = _verb(known, "train", verbs.train, "train a model as a config says, and save it")
    _experiment(train)
    run = _verb(known, "run", verbs.run, "run any pipeline of the shelf on a config")
    run.add_argument("pipeline", help="a name in pipelines/, or the path of a file")
    _experiment(run)

    recover = _verb(known, "recover", verbs.recover, "draw p(field | observations)")
    recover.add_argument("model", help="the folder of a saved model")
    recover.add_argument("seen", help="observations: a table (CSV, NetCDF) or gridded values")
    recover.add_argument("--std", type=_error, help="their standard error, unless the table has it")
    recover.add_argument("--variable", metavar="NAME", help="which variable was observed")
    recover.add_argument(
        "--freedom",
        type=_error,
        help="of Student's law, for gross errors [Gaussian]",
    )
    recover.add_argument("--low", type=float, help="lowest value that the instrument gives")
    recover.add_argument("--high", type=float, help="highest value that the instrument gives")
    recover.add_argument("--rule", metavar="NAME", help="guidance, see docs/choose.md [the best]")
    _ensemble(recover)

    impute = _verb(known, "impute", series_verbs.impute, "fill the gaps of series, or of fields")
    impute.add_argument(
        "inputs",
        nargs="+",
        metavar="[MODEL] FILE",
        help="a saved model, or none: a law fitted to the file; and a table or store with gaps",
    )
    impute.add_argument("-o", "--out", required=True, metavar="OUT", help="a .csv or a .zarr")
    impute.add_argument("--std", type=_error, help="error of the known values [they are exact]")
    _series(impute)
    _drawing(impute)

    forecast = _verb(known, "forecast", forecasting.forecast, "draw what follows a past")
    forecast.add_argument("model", help="the folder of a saved model that forecasts")
    forecast.add_argument("past", help="frames with a time axis, or a table of series")
    forecast.add_argument("-o", "--out", required=True, metavar="OUT", help="a .zarr, or a .csv")
    forecast.add_argument(
        "--steps", type=_count, metavar="N", help="lead steps [all that the model serves, or 12]"
    )
    forecast.add_argument(
        "--start", nargs="+", metavar="DATE", help="times to forecast from [the last of the past]"
    )
    forecast.add_argument("--forcings", metavar="FILE", help="what is known ahead [the past]")
    forecast.add_argument("--seen", metavar="FILE", help="values on the way, with their times")
    forecast.add_argument("--std", type=float, help="standard error of --seen [the file's own]")
    _series(forecast)
    forecast.add_argument("--names", metavar="OF", help="weatherbench2 or climpred [our own]")
    forecast.add_argument("--resume", action="store_true", help="go on where the last run stopped")
    _drawing(forecast)

    generate = _verb(known, "generate", verbs.generate, "draw from the prior")
    generate.add_argument("model", help="the folder of a saved model")
    generate.add_argument("--length", type=_count, help="rows of new series [all of a window]")
    _ensemble(generate)

    refine = _verb(known, "refine", verbs.refine, "find the best time grid, saved with the model")
    refine.add_argument("model", help="the folder of a saved model")
    refine.add_argument("-o", "--out", required=True, metavar="DIR", help="the new model's folder")
    refine.add_argument("--steps", type=_count, default=10, help="evaluations a draw [10]")
    refine.add_argument("--members", type=_count, default=512, help="draws it is found on [512]")
    refine.add_argument("--seed", type=_index, default=0, help="[0]")
    _replacing(refine)

    exceed = _verb(known, "exceed", verbs.exceed, "the probability of passing thresholds")
    exceed.add_argument("model", help="the folder of a saved model")
    exceed.add_argument("thresholds", help="a table (CSV, NetCDF) of places and thresholds")
    exceed.add_argument("--variable", metavar="NAME", help="which variable is meant")
    exceed.add_argument("--below", action="store_true", help="below at any place, not above")
    exceed.add_argument("-o", "--out", metavar="OUT.zarr", help="where the draws go, if anywhere")
    exceed.add_argument("--steps", type=_count, default=32, help="evaluations a path [32]")
    exceed.add_argument("--members", type=_count, default=256, help="weighed paths [256]")
    exceed.add_argument("--seed", type=_index, default=0, help="[0]")
    _replacing(exceed)

    density = _verb(known, "density", verbs.density, "log density of fields under a model")
    density.add_argument("model", help="the folder of a saved model")
    density.add_argument("fields", help="a store or file that holds the model's variables")
    density.add_argument("--probes", type=_count, default=16, help="of the trace [16]")
    density.add_argument("--steps", type=_count, default=64, help="of the flow [64]")
    density.add_argument("--seed", type=_index, default=0, help="[0]")

    score = _verb(known, "score", verbs.score, "an ensemble against the truth")
    score.add_argument("ensemble", help="a store with a dim 'member'")
    score.add_argument("truth", help="a store or file that holds the same cases")
    score.add_argument("--variable", metavar="NAME", help="only this one")
    score.add_argument("--level", type=_level, default=0.9, help="of the interval [0.9]")
    score.add_argument(
        "--block", type=_count, help="starts in a block, for intervals of the scores"
    )

    plot = _verb(known, "plot", verbs.plot, "a picture of an ensemble")
    plot.add_argument("ensemble", help="a store with a dim 'member'")
    plot.add_argument("--truth", help="a store or file that holds the same case")
    plot.add_argument("--variable", metavar="NAME", help="[the first]")
    plot.add_argument("--case", type=_index, default=0, metavar="N", help="which, of several [0]")
    plot.add_argument("--kind", metavar="NAME", help="fan, maps, spectra, ranks, skill or spread")
    plot.add_argument("--at", nargs="+", metavar="NAME=VALUE", help="place of a fan [the mean]")
    plot.add_argument("-o", "--out", default="posterior.png", help="[posterior.png]")
    _replacing(plot)

    card = _verb(known, "card", verbs.card, "what a model is, was trained on, and is not for")
    card.add_argument("model", help="a saved model, or a name in models/")

    verify = _verb(known, "verify", verbs.verify, "check every byte of a store or a saved model")
    verify.add_argument("path", help="a store, or the folder of a saved model")
    return parser


def _verb(known: Any, name: str, verb: Verb, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = known.add_parser(name, help=about, description=about)
    parser.set_defaults(verb=verb)
    if name != "card":  # which is prose
        parser.add_argument("--json", action="store_true", help="print figures for machines")
    return parser


def _replacing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")


def _experiment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="a name in configs/, or the path of a TOML file")
    parser.add_argument("--resume", action="store_true", help="go on where the last run stopped")
    parser.add_argument("--store", help="the data set's store, instead of the config's")
    parser.add_argument("-o", "--out", help="where the result goes, instead of the config's")
    _replacing(parser)


def _drawing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--members", type=_count, default=64, help="[64]")
    parser.add_argument("--seed", type=_index, default=0, help="[0]")
    _replacing(parser)


def _series(parser: argparse.ArgumentParser) -> None:
    """Which columns of a table of series, and what of the draws is written."""
    parser.add_argument("--item", metavar="NAME", help="column of items [by usual names]")
    parser.add_argument("--time", nargs="+", metavar="NAME", help="of times [by usual names]")
    parser.add_argument("--target", nargs="+", metavar="NAME", help="columns of values [numbers]")
    parser.add_argument("--time-format", metavar="FORM", help="of times, such as %%m/%%d/%%Y")
    parser.add_argument("--sort", action="store_true", help="put rows in order of time")
    parser.add_argument("--keep", choices=("first", "last", "mean"), help="of two rows of one time")
    parser.add_argument(
        "--missing", nargs="*", metavar="CODE", help="numbers or words for no value; none: no codes"
    )
    parser.add_argument(
        "--interval", type=_level, nargs="+", metavar="P", help="of a table's bounds [0.9]"
    )
    parser.add_argument(
        "--members-out", choices=("all", "none"), help="every member, or intervals [all in a .zarr]"
    )


def _ensemble(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", required=True, metavar="OUT.zarr", help="where it goes")
    parser.add_argument("--steps", type=_count, help="steps of the solver [the model's own]")
    parser.add_argument("--solver", metavar="NAME", help="see docs/choose.md [the model's own]")
    _drawing(parser)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number above 0")
    return int(text)


def _index(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 0 on")
    return int(text)


def _error(text: str) -> float:
    value = _float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an error above 0 in data units")
    return value


def _level(text: str) -> float:
    value = _float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number between 0 and 1")
    return value


def _float(text: str) -> float:
    """The number, or NaN, which passes no comparison."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


if __name__ == "__main__":
    sys.exit(main())
