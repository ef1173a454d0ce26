"""What the labels of a data set are, and the check that they are that.

Letters: N examples, K binary tasks.
"""

import dataclasses
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from affectjax.errors import InputError

Refuse = Callable[[int, str], None]
# Of labels that are only numbers; a larger one is a score, an id or a slip of the pen.
MOST_CLASSES = 10000
# What programs write for a value that is not there, and is no class by that name.
MISSING = frozenset(
    ("nan", "NaN", "NAN", "-nan", "None", "NULL", "null", "NA", "N/A", "n/a", "#N/A", "<NA>")
)


@dataclasses.dataclass(frozen=True)
class LabelSpec:
    """The kind and the range of a data set's labels.

    Attributes:
      kind: `score` is one real number an example (`[N]` float32), `class` one of `classes`
        (`[N]` int32, the position in `classes`), `binary` one yes or no for each of `classes`
        (`[N, K]` int32 of 0 and 1).
      classes: names, in the order of the numbers (class) or of the columns (binary).
      low: least score that is allowed, None for no bound.
      high: greatest score that is allowed, None for no bound.
    """

    kind: Literal["score", "class", "binary"]
    classes: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None

    def __post_init__(self):
        if self.kind not in ("score", "class", "binary"):
            raise InputError(f"label kind {self.kind!r} is none of score, class, binary")
        if self.kind != "score" and not self.classes:
            raise InputError(f"labels of kind {self.kind!r} need the names of their classes")

    def blank(self, *rows: int) -> np.ndarray:
        """Returns zeros in the shape and the dtype of labels: one, or as many as `rows` says."""
        columns = (len(self.classes),) if self.kind == "binary" else ()
        return np.zeros((*rows, *columns), np.float32 if self.kind == "score" else np.int32)

    @property
    def allowed(self) -> str:
        """Returns the allowed labels in words, for messages."""
        if self.kind == "score":
            low = "-inf" if self.low is None else f"{self.low:g}"
            high = "inf" if self.high is None else f"{self.high:g}"
            return f"a number in [{low}, {high}]"
        names = ", ".join(self.classes)
        if self.kind == "class":
            return f"one of {names} or its number 0 to {len(self.classes) - 1}"
        return f"{len(self.classes)} values of 0 or 1, for {names}"

    def faults(self, label: np.ndarray) -> dict[int, str]:
        """Returns what is wrong with each wrong label, by its row; empty when all are right.

        Args:
          label: `[N]` or `[N, K]`, as `Split.label`.
        """
        label = np.asarray(label)
        columns = (len(self.classes),) if self.kind == "binary" else ()
        if label.shape[1:] != columns:
            return dict.fromkeys(range(len(label)), f"label is not {self.allowed}")
        if self.kind == "score":
            low = -np.inf if self.low is None else self.low
            high = np.inf if self.high is None else self.high
            right = np.isfinite(label) & (label >= low) & (label <= high)
        elif self.kind == "class":
            right = (label >= 0) & (label < len(self.classes))
        else:
            right = ((label == 0) | (label == 1)).all(axis=1)
        wrong = np.flatnonzero(~right)
        return {int(i): f"label {label[i].tolist()} is not {self.allowed}" for i in wrong}

    def check(self, label: np.ndarray, ids: Sequence[str], where: str) -> None:
        """Raises an InputError that names the first example whose label is not allowed.

        Args:
          label: `[N]` or `[N, K]`, as `Split.label`.
          ids: N names.
          where: file and split, for the message.
        """
        for row, reason in self.faults(label).items():
            raise InputError(f"{where}: example {ids[row]}: {reason}")


def parse(values: Sequence[Any], spec: LabelSpec, refuse: Refuse) -> np.ndarray:
    """Returns the label array of a split, read from numbers or text.

    Args:
      values: N labels: numbers, class names, or for binary tasks K numbers or a string of K
        numbers with blanks between them.
      spec: what they should be.
      refuse: called with (row, reason) for each that cannot be read. When it returns, the label
        becomes NaN (score) or -1, which `LabelSpec.faults` finds again.

    Returns:
      `[N]` float32, `[N]` int32 or `[N, K]` int32.
    """
    one = {"score": _score, "class": _class, "binary": _binary}[spec.kind]
    bad = {"score": np.nan, "class": -1, "binary": [-1] * len(spec.classes)}[spec.kind]
    result = []
    for row, value in enumerate(values):
        try:
            result.append(one(value, spec))
        except (ValueError, TypeError, OverflowError):
            refuse(row, f"label {value!r} is not {spec.allowed}")
            result.append(bad)
    dtype = np.float32 if spec.kind == "score" else np.int32
    shape = (-1, len(spec.classes)) if spec.kind == "binary" else (-1,)
    return np.asarray(result, dtype).reshape(shape)


def infer(values: Sequence[str], where: str = "labels") -> LabelSpec:
    """Returns the spec that a column of text seems to follow.

    Whole numbers from 0 up are classes, named by their numbers; other numbers are scores without
    bounds; anything else is class names, in alphabetical order. Blanks, MISSING, and among numbers
    `inf` and what is too large for a number, do not count: as labels they are wrong.

    Args:
      values: one label an example, of all splits.
      where: their file, for the message.

    Raises:
      InputError: numbers and names together, names that differ only in case or blanks, decimal
        commas, or whole numbers that are too large to be classes.
    """
    filled = [value.strip() for value in values if value.strip() and value.strip() not in MISSING]
    names = sorted({value for value in filled if not _is_number(value)})
    _check_names(names, any(map(_is_number, filled)), where)
    if names:
        return LabelSpec("class", tuple(names))
    numbers = np.asarray([float(value) for value in filled])
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers) or not np.all((numbers >= 0) & (numbers == np.floor(numbers))):
        return LabelSpec("score")
    if numbers.max() >= MOST_CLASSES:
        raise InputError(
            f"{where}: the label {numbers.max():.0f} would make {numbers.max() + 1:.0f} classes;"
            f" allowed: {MOST_CLASSES}, or a labels.json that says what the labels are"
        )
    return LabelSpec("class", tuple(str(i) for i in range(int(numbers.max()) + 1)))


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _check_names(names: Sequence[str], numbers_too: bool, where: str) -> None:
    """Raises InputError for names of classes that seem to be slips of the pen."""
    said = "or a labels.json beside the table says what the labels are"
    for name in names:
        if re.fullmatch(r"[+-]?\d+,\d+", name):
            raise InputError(f"{where}: the label {name!r} has a comma; write a point, {said}")
    if names and numbers_too:
        raise InputError(
            f"{where}: column label has numbers and {names[0]!r}; it holds names or numbers, {said}"
        )
    written: dict[str, str] = {}
    for name in names:
        plain = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        if plain in written:
            raise InputError(
                f"{where}: the labels {written[plain]!r} and {name!r} would be two classes; write"
                f" one of them, {said}"
            )
        written[plain] = name


def declared(folder: Path) -> LabelSpec | None:
    """Returns what the labels.json of a folder says, None where there is none.

    It is `{"kind": "class", "classes": ["sad", "happy"]}`; `kind` is score, class or binary; scores
    may have `low` and `high`.

    Args:
      folder: where to look for it.

    Raises:
      InputError: when it says something that a `LabelSpec` cannot be.
    """
    said = folder / "labels.json"
    if not said.is_file():
        return None
    try:
        content = json.loads(said.read_text(encoding="utf-8"))
        return LabelSpec(**{**content, "classes": tuple(content.get("classes", ()))})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{said}: expected an object with kind, classes, low, high ({error})"
        ) from error


def _score(value: Any, spec: LabelSpec) -> float:
    del spec
    number = float(value)
    if not np.isfinite(number):
        raise ValueError
    return number


def _class(value: Any, spec: LabelSpec) -> int:
    """Returns the position of a class name, or the number that stands for it."""
    if isinstance(value, str) and value.strip() in spec.classes:
        return spec.classes.index(value.strip())
    number = float(value)
    if number != int(number) or not 0 <= number < len(spec.classes):
        raise ValueError
    return int(number)


def _binary(value: Any, spec: LabelSpec) -> list[int]:
    """Returns K zeros and ones."""
    parts = value.split() if isinstance(value, str) else list(value)
    numbers = [float(p) for p in parts]
    if len(numbers) != len(spec.classes) or any(n not in (0.0, 1.0) for n in numbers):
        raise ValueError
    return [int(n) for n in numbers]
