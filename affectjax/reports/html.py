"""Tables, as Markdown and as HTML, and a page that holds all it shows."""

import base64
import dataclasses
import html
import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
       max-width: 76rem; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin-top: 2.5rem; }
p { max-width: 46rem; }
img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .5rem; color: #555; }
th, td { padding: .25rem .9rem; text-align: right; border-bottom: 1px solid #ddd;
         white-space: nowrap; }
th { border-bottom: 2px solid #888; }
th:first-child, td:first-child { text-align: left; }
tbody tr:nth-child(even) { background: #f5f5f5; }
.headline { margin: .5rem 0; max-width: none; }
.headline b { font-size: 2.4rem; margin-right: .6rem; }
pre { overflow-x: auto; font-size: 13px; background: #f5f5f5; padding: .75rem; }
"""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
      title: stands above it.
      head: of its columns.
      rows: as many cells each.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Returns the title and a Markdown table with columns of even width."""
        cells = [tuple(self.head), *self.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.head))]
        cells.insert(1, tuple("-" * width for width in widths))
        padded = ([c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in cells)
        return "\n".join([self.title, "", *(f"| {' | '.join(row)} |" for row in padded)])

    def html(self) -> str:
        """Returns an HTML table, its title as the caption."""
        rows = "\n".join(f"<tr>{_cells('td', row)}</tr>" for row in self.rows)
        return (
            f'<div class="wide"><table>\n<caption>{html.escape(self.title)}</caption>\n'
            f"<thead><tr>{_cells('th', self.head)}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n"
            "</table></div>"
        )


def _cells(tag: str, row: Sequence[str]) -> str:
    return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)


def heading(text: str) -> str:
    """Returns a heading."""
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str) -> str:
    """Returns a paragraph."""
    return f"<p>{html.escape(text)}</p>"


def image(path: Path, says: str) -> str:
    """Returns a PNG that is part of the page.

    Args:
      path: of the PNG.
      says: what it shows, for those who do not see it.
    """
    return _inline(path.read_bytes(), "png", says)


def figure(drawn: Figure, says: str) -> str:
    """Returns a figure that is part of the page, sharp at any size.

    Args:
      drawn: the figure.
      says: what it shows, for those who do not see it.
    """
    data = io.BytesIO()
    # Without a date, so that the same run has the same page.
    drawn.savefig(data, format="svg", metadata={"Date": None})
    return f"<p class=headline>{_inline(data.getvalue(), 'svg+xml', says)}</p>"


def headline(value: str, says: str) -> str:
    """Returns a large number and what it is."""
    return f"<p class=headline><b>{html.escape(value)}</b>{html.escape(says)}</p>"


def folded(title: str, text: str) -> str:
    """Returns text that is shown when its title is clicked."""
    return (
        f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>"
    )


def _inline(data: bytes, kind: str, says: str) -> str:
    coded = base64.b64encode(data).decode()
    return f'<img src="data:image/{kind};base64,{coded}" alt="{html.escape(says)}">'


def page(title: str, parts: Sequence[str]) -> str:
    """Returns a whole HTML page that needs no other file.

    Args:
      title: of the page.
      parts: pieces of HTML, in their order.
    """
    said = html.escape(title)
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{said}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{said}</h1>\n{body}\n"
        "</body>\n</html>\n"
    )
