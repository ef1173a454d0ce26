"""Tables and lists that people wrote: in which encoding, with what between the values, which rows.

UTF-8 and UTF-16, with or without a mark of the order of bytes, and commas, semicolons or tabs
between the values are told apart; what is not UTF-8 with commas is said once in the log. A value
with a delimiter, a line break or a double quote in it stands in double quotes.
"""

import codecs
import csv
import dataclasses
import difflib
import functools
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from absl import logging

from affectjax.errors import InputError

SUFFIXES = (".csv", ".tsv")
# What is wrong with a row that is longer than the line of column names.
LONGER = "has too many values; one with a comma in it needs double quotes"
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
# UTF-32 goes first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
      line: the number of its last line in the file.
      values: by column, without the blanks around; empty where the row is too short.
      longer: whether it has values beyond the last column.
    """

    line: int
    values: dict[str, str]
    longer: bool


def find(folder: Path, stem: str) -> Path | None:
    """Returns the table of a name in a folder, None where there is none.

    Args:
      folder: where to look.
      stem: its name without the suffix, one of SUFFIXES.

    Raises:
      InputError: there are several.
    """
    found = [path for suffix in SUFFIXES if (path := folder / f"{stem}{suffix}").is_file()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise InputError(f"{folder}: has both {names}; keep one")
    return found[0] if found else None


def read(
    path: Path, needed: Sequence[str], known: Collection[str] | None = None
) -> tuple[tuple[str, ...], list[Row]]:
    """Returns the columns of a table and its rows, without those that have no value at all.

    Args:
      path: the file, with a line of column names.
      needed: columns that it must have.
      known: all that it may have; None for any.

    Raises:
      InputError: when it cannot be read, lacks a column, has another than the known ones or one
        twice, has no row, or a double quote in it swallows rows.
    """
    with _opened(path) as file:
        return parse(path, _decoded(path, file), needed, known)


def parse(
    path: Path, lines: Iterable[str], needed: Sequence[str], known: Collection[str] | None = None
) -> tuple[tuple[str, ...], list[Row]]:
    """Returns what `read` does, of lines that were decoded before."""
    columns, found = _parsed(path, lines, needed, known)
    rows = list(found)
    if not rows:
        raise InputError(f"{path}: has no row")
    return columns, rows


def stream(path: Path, needed: Sequence[str]) -> Iterator[Row]:
    """Yields the rows of a table that is too large to be held; see `read`."""
    with _opened(path) as file:
        yield from _parsed(path, _decoded(path, file), needed, None)[1]


def text(path: Path) -> str:
    """Returns what a list says; an InputError where it is neither UTF-8 nor UTF-16."""
    with _opened(path, newline=None) as file:
        return "".join(_decoded(path, file))


def check_names(found: Iterable[str], known: Collection[str], where: str, what: str) -> None:
    """Raises InputError for the first name that is not known, with the nearest that is.

    Args:
      found: the names.
      known: those that are allowed.
      where: their file, for the message.
      what: they are, as in "column".
    """
    for name in found:
        if name not in known:
            near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(
                f"{where}: {what} {name!r} is unknown; allowed: {', '.join(known)}{hint}"
            )


def _opened(path: Path, newline: str | None = "") -> IO[str]:
    """Opens a file in its encoding; the csv module asks for line ends as they are."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
        return path.open(newline=newline, encoding=_encoding(head))
    except (OSError, ValueError) as error:  # a path of no file is a ValueError
        raise InputError(f"{path}: is not readable ({error})") from error


def _encoding(head: bytes) -> str:
    """Returns the encoding of a file that begins with these bytes."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if len(head) > 1 and 0 in head[:2] and head[0] != head[1]:  # an ASCII letter in UTF-16
        return "utf-16-le" if head[1] == 0 else "utf-16-be"
    return "utf-8-sig"


def _decoded(path: Path, file: IO[str]) -> Iterator[str]:
    """Yields the lines of an open file."""
    try:
        yield from file
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"{path}: is not a readable UTF-8 table ({error}); save it as UTF-8 or UTF-16"
        ) from error
    if not file.encoding.startswith("utf-8"):
        _say(path, file.encoding.upper())


@functools.lru_cache(maxsize=256)
def _say(path: Path, how: str) -> None:
    """Logs how a table was read, once."""
    logging.info("%s: is read as %s", path, how)


def _parsed(
    path: Path, lines: Iterable[str], needed: Sequence[str], known: Collection[str] | None
) -> tuple[tuple[str, ...], Iterator[Row]]:
    """Returns the columns of a table, checked, and an iterator over its rows."""
    lines = iter(lines)
    head = next(lines, "")
    columns, delimiter = _columns(head, {*needed, *(known or ())})
    if delimiter != ",":
        _say(path, f"a table with {_DELIMITERS[delimiter]} between the values")
    if known is not None:
        check_names(columns, known, str(path), "column")
    twice = [name for name in known or needed if columns.count(name) > 1]
    if twice:
        raise InputError(f"{path}: has the column {twice[0]!r} twice")
    missing = [name for name in needed if name not in columns]
    if missing:
        raise InputError(
            f"{path}: has no column {', '.join(missing)}; expected {', '.join(needed)}, found"
            f" {', '.join(columns) or 'nothing'}"
        )
    return columns, _rows(path, lines, columns, delimiter, needed)


def _columns(head: str, wanted: set[str]) -> tuple[tuple[str, ...], str]:
    """Returns the names in the first line, and the delimiter that shows most of those wanted."""
    best: tuple[tuple[str, ...], str] = ((), ",")
    for delimiter in _DELIMITERS:
        cells = next(csv.reader([head], delimiter=delimiter), [])
        names = tuple(cell.strip() for cell in cells)
        if not best[0] or len(wanted & {*names}) > len(wanted & {*best[0]}):
            best = names, delimiter
    return best


def _rows(
    path: Path, lines: Iterator[str], columns: Sequence[str], delimiter: str, needed: Sequence[str]
) -> Iterator[Row]:
    """Yields the rows that follow the line of column names.

    Raises:
      InputError: a double quote is not closed, or was closed so late that a value holds a row.
    """
    taken: list[str] = []  # the lines of the row at hand

    def counted() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    reader = csv.reader(counted(), delimiter=delimiter, strict=True)
    last = 1
    while True:
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise InputError(
                f"{path}: line {last + 1}: is not a row ({error}); a double quote that opens a"
                " value closes it, and stands twice within it"
            ) from error
        if record is None:
            return
        first, last = last + 1, last + len(taken)
        swallowed = any(_is_row(line, columns, delimiter, needed) for line in taken[1:])
        taken.clear()
        if swallowed:
            raise InputError(
                f"{path}: line {first}: the double quote that opens here closes at line {last},"
                " with rows between; a quote within a value stands twice"
            )
        cells = [cell.strip() for cell in record]
        if any(cells):
            values = dict.fromkeys(columns, "") | dict(zip(columns, cells, strict=False))
            yield Row(last, values, any(cells[len(columns) :]))


def _is_row(line: str, columns: Sequence[str], delimiter: str, needed: Sequence[str]) -> bool:
    """Returns whether a line within a quoted value looks like a row of its own.

    It has as many values as there are columns, and none that is needed is empty or begins with a
    blank, as what follows a comma in a sentence does.
    """
    cells = next(csv.reader([line], delimiter=delimiter), [])
    if len(columns) < 2 or len(cells) != len(columns):
        return False
    needs = [cell for name, cell in zip(columns, cells, strict=True) if name in needed]
    return all(cell and not cell[0].isspace() for cell in needs)
