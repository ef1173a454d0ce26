"""The floor to beat on a small set of scores: a ridge on mean-pooled text.

    python -m tests.benchmarks.ridge --data=DATA

DATA has a folder `mosi_text_audio` with the data set `mosi`. A row a penalty; the best
row is chosen with the tested split in view: it flatters the ridge.
"""

from collections.abc import Iterator

import numpy as np
from sklearn.linear_model import Ridge

from affectjax import metrics
from affectjax.data.batches.dataset import DataConfig, Dataset
from tests.benchmarks import timing

PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def rows(setting: timing.Setting) -> Iterator[timing.Row]:
    """Fits on the training split and notes the metrics on the validation split."""
    folder = setting.data / "mosi_text_audio"
    if not folder.exists():
        raise timing.Skipped("no mosi_text_audio in the folder of --data")
    dataset = Dataset(DataConfig("mosi", str(folder), standardize=()))
    pooled, label = {}, {}
    for role in ("train", "valid"):
        arrays = dataset.arrays(dataset.part(role))
        count = arrays["text"]["mask"].sum(1, keepdims=True)
        pooled[role] = arrays["text"]["x"].sum(1) / np.maximum(count, 1)
        label[role] = arrays["label"]
    for penalty in PENALTIES:
        ridge = Ridge(alpha=penalty)
        ridge.fit(pooled["train"], label["train"])
        out = metrics.sentiment(ridge.predict(pooled["valid"]), label["valid"])
        note = ", ".join(f"{name} {out[name]:.3f}" for name in ("acc2_has0", "mae", "corr"))
        fit = lambda r=ridge: r.fit(pooled["train"], label["train"]) and None  # noqa: E731
        yield timing.row(f"ridge, penalty {penalty:g}", fit, setting, note=note)


if __name__ == "__main__":
    timing.main(rows)
