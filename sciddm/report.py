"""A report as one page of HTML: text, tables and pictures, with nothing to fetch from elsewhere."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping
from pathlib import Path

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .8rem;text-align:right;"
    "border-bottom:1px solid #ccc}td:first-child,th:first-child{text-align:left}"
    "img{max-width:100%}figure{margin:1.5rem 0}figcaption{color:#444}"
)


def page(title: str, blocks: Iterable[str]) -> str:
    """A whole document of blocks made by `text`, `table` and `picture`."""
    name = html.escape(title)
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>'
    return f"{head}<style>{STYLE}</style><h1>{name}</h1>\n" + "\n".join(blocks) + "\n</html>\n"


def text(*lines: str, head: str = "") -> str:
    """Paragraphs, under a heading if there is one."""
    above = f"<h2>{html.escape(head)}</h2>\n" if head else ""
    return above + "\n".join(f"<p>{html.escape(line)}</p>" for line in lines)


def table(rows: Mapping[str, Mapping[str, float | str]]) -> str:
    """Rows by name; numbers to four digits, and an empty cell where a row has no such figure."""
    heads = list(dict.fromkeys(head for row in rows.values() for head in row))
    above = "".join(f"<th>{html.escape(head)}</th>" for head in ("", *heads))
    lines = [
        f"<tr><td>{html.escape(name)}</td>"
        + "".join(f"<td>{html.escape(_cell(row.get(head, '')))}</td>" for head in heads)
        + "</tr>"
        for name, row in rows.items()
    ]
    return f"<table><tr>{above}</tr>{''.join(lines)}</table>"


def picture(path: Path, caption: str) -> str:
    """A PNG file, held in the page itself."""
    data = base64.b64encode(path.read_bytes()).decode()
    said = html.escape(caption)
    image = f'<img alt="{said}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{said}</figcaption></figure>"


def _cell(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
