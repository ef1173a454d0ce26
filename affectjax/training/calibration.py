"""How far the probabilities of a run are those of being right, and the temperature that mends it.

The temperature divides the logits. It is fitted on the validation part, and what it is worth is
measured on the test part. Letters: N examples, C classes, K bins.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".
"""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from affectjax.runtime.workdir import write_json

FILE, BINS = "calibration.json", 10
# Log-temperatures that are tried: 0.05 to 20.
_ENDS = (-3.0, 3.0)


def expected_error(confidence: np.ndarray, right: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns the expected calibration error, and by bin confidence, share right and count.

    Args:
      confidence: `[N]`, the probability of what was predicted.
      right: `[N]` bool.

    Returns:
      The error, equation 3, and `[K, 3]`, K bins of equal width that are not empty.
    """
    place = np.minimum((np.asarray(confidence) * BINS).astype(int), BINS - 1)
    rows = [
        (confidence[place == k].mean(), right[place == k].mean(), (place == k).sum())
        for k in np.unique(place)
    ]
    table = np.array(rows, np.float64).reshape(-1, 3)
    error = np.abs(table[:, 0] - table[:, 1]) @ table[:, 2] / max(len(place), 1)
    return float(error), table


def cooled(probability: np.ndarray, temperature: float) -> np.ndarray:
    """Returns probabilities `[..., C]` with their logits divided by a temperature."""
    logits = np.log(np.maximum(probability, 1e-12)) / temperature
    logits -= logits.max(-1, keepdims=True)
    share = np.exp(logits)
    return share / share.sum(-1, keepdims=True)


def fit(probability: np.ndarray, label: np.ndarray) -> float:
    """Returns the temperature with the least cross-entropy.

    Args:
      probability: `[N, C]`.
      label: `[N]` int.
    """
    from scipy import optimize  # slow, and few need it

    def loss(log_temperature: float) -> float:
        share = cooled(probability, np.exp(log_temperature))[np.arange(len(label)), label]
        return float(-np.log(np.maximum(share, 1e-12)).mean())

    found = optimize.minimize_scalar(loss, bounds=_ENDS, method="bounded")
    return float(np.exp(found.x))


def write(workdir: Path) -> None:
    """Writes eval/calibration.json from the predictions of both parts, where they are classes.

    It holds `temperature`, and `ece` of "valid" and "test", `before` and `after`.
    """
    read = {split: _read(workdir / "eval" / f"{split}.csv") for split in ("valid", "test")}
    if read["valid"] is None or not len(read["valid"][1]):
        return
    temperature = fit(*read["valid"])
    errors = {}
    for split, own in read.items():
        if own is not None:
            changed = {"before": own[0], "after": cooled(own[0], temperature)}
            errors[split] = {
                when: expected_error(p.max(-1), p.argmax(-1) == own[1])[0]
                for when, p in changed.items()
            }
    write_json(workdir / "eval" / FILE, {"temperature": temperature, "ece": errors})


def load(workdir: Path) -> Mapping[str, Any] | None:
    """Returns what `write` wrote, None where it wrote nothing that can be read."""
    try:
        found = json.loads((workdir / "eval" / FILE).read_text(encoding="utf-8"))
        return found if found["temperature"] > 0 else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _read(file: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns probabilities `[N, C]` and labels `[N]` of predicted classes; None of others."""
    if not file.is_file():
        return None
    with file.open(newline="", encoding="utf-8") as opened:
        reader = csv.DictReader(opened)
        classes = (reader.fieldnames or [])[3:]
        rows = [row for row in reader if row["label"] in classes]
    if not classes or not rows:
        return None
    probability = np.array([[float(row[name]) for name in classes] for row in rows])
    if not np.allclose(probability.sum(-1), 1, atol=1e-3):  # of tasks, each yes or no
        return None
    return probability, np.array([classes.index(row["label"]) for row in rows])
