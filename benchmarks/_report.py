"""What every benchmark prints: tables for people, one JSON object for machines, an exit code."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import sciddm as sd


def arguments(doc: str) -> argparse.Namespace:
    """``--quick`` (at most 8 minutes on 2 cores) and ``--json`` (the last line is one object)."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller run, at most 8 minutes")
    parser.add_argument(
        "--sign", action="store_true", help="write the tables into the model's card"
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    return parser.parse_args()


@dataclass
class Report:
    """Collects tables and claims; `finish` prints them and exits with 0 only if all claims hold."""

    benchmark: str
    settings: Mapping[str, Any]
    claims: list[dict[str, Any]] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def claim(self, name: str, value: float, low: float, high: float) -> None:
        """One figure and its bounds."""
        value = float(value)  # of numpy it would not go into JSON
        holds = math.isfinite(value) and low <= value <= high
        bound = [None if math.isinf(b) else b for b in (low, high)]
        self.claims.append({"name": name, "value": round(value, 5), "bound": bound, "holds": holds})

    def table(self, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Print a table and keep it."""
        self.tables[title] = [dict(r) for r in rows]
        print(f"\n{title}")
        columns = list(rows[0])
        cells = [[_cell(r.get(c)) for c in columns] for r in rows]
        widths = [max(len(c), *(len(r[i]) for r in cells)) for i, c in enumerate(columns)]
        for line in (columns, ["-" * w for w in widths], *cells):
            print(
                "  ".join(
                    v.rjust(w) if i else v.ljust(w)
                    for i, (v, w) in enumerate(zip(line, widths, strict=True))
                )
            )
        sys.stdout.flush()

    def sign(self, folder: Path) -> None:
        """Write the tables and claims into the card of a saved model, in place of the last ones."""
        model = sd.load(folder)
        head = model.card.split("\nMeasured by ")[0].rstrip()
        lines = [f"\n\nMeasured by `python benchmarks/{self.benchmark}.py`", ""]
        for title, rows in self.tables.items():
            columns = list(rows[0])
            lines += [f"{title}\n", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
            lines += ["| " + " | ".join(_cell(r.get(c)) for c in columns) + " |" for r in rows]
            lines.append("")
        for c in self.claims:
            verdict = "holds" if c["holds"] else "not reached"
            lines.append(f"- {c['name']}: {c['value']}, bound {c['bound']}: {verdict}")
        replace(model, card=head + "\n".join(lines) + "\n").save(folder, overwrite=True)

    def finish(self, as_json: bool) -> None:
        """Print the claims and exit."""
        print()
        for c in self.claims:
            print(
                f"{'holds' if c['holds'] else 'FAILS'}  {c['name']}: {c['value']} in {c['bound']}"
            )
        if as_json:
            print(
                json.dumps(
                    {
                        "benchmark": self.benchmark,
                        "settings": dict(self.settings),
                        "claims": self.claims,
                        "tables": self.tables,
                    }
                )
            )
        sys.exit(0 if all(c["holds"] for c in self.claims) else 1)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
