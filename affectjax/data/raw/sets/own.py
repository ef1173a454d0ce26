"""Anybody's own sequences: a plain folder, or a file in one of the other layouts.

What the labels are is taken from the raw files: from a `labels.json` beside `labels.csv`
(`{"kind": "class", "classes": ["sad", "happy"]}`; `kind` is score, class or binary; scores may have
`low` and `high`), else from the label column itself: whole numbers from 0 up are classes, other
numbers are scores, anything else is class names. Files of the other layouts hold scores.

The group is the id up to its last `_number` or `[...]`.
"""

from pathlib import Path

from affectjax.data import labels as labels_lib
from affectjax.data.labels import LabelSpec
from affectjax.data.raw.dataset import SEGMENT, RawDataset
from affectjax.data.raw.readers import plain


def labels(view: str, path: Path) -> LabelSpec:
    """Returns what the labels in a raw file or folder are.

    Args:
      view: the only one, sequences.
      path: what will be read.

    Raises:
      InputError: when labels.json says something that a `LabelSpec` cannot be.
    """
    del view
    said = labels_lib.declared(path)
    if said is not None:
        return said
    if plain.matches(path):
        table = plain.table_of(path)
        values = [row.values["label"] for row in plain.read_table(table)[1]]
        return labels_lib.infer(values, str(table))
    return LabelSpec("score")


DATASET = RawDataset(
    labels=labels,
    group=SEGMENT,
    sequence_files={
        True: (".", "aligned.pkl", "*_data.pkl"),
        False: (".", "unaligned.pkl", "*_data_noalign.pkl"),
    },
)
