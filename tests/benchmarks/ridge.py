"""The floor to beat on a small set of scores: a ridge on mean-pooled text.

    python -m tests.benchmarks.ridge --dir=FILE

Prints a row a penalty. The best row is chosen with the tested split in view: it flatters the ridge.
"""

import numpy as np
from absl import app, flags
from sklearn.linear_model import Ridge

from affectjax import metrics
from affectjax.data.batches.dataset import DataConfig, Dataset

_DIR = flags.DEFINE_string("dir", None, "A file or folder of the data set `mosi`.", required=True)

PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def main(argv):
    """Fits on the training split and prints the metrics on the validation split."""
    del argv
    dataset = Dataset(DataConfig("mosi", _DIR.value, standardize=()))
    pooled, label = {}, {}
    for role in ("train", "valid"):
        arrays = dataset.arrays(dataset.part(role))
        count = arrays["text"]["mask"].sum(1, keepdims=True)
        pooled[role] = arrays["text"]["x"].sum(1) / np.maximum(count, 1)
        label[role] = arrays["label"]
    for penalty in PENALTIES:
        ridge = Ridge(alpha=penalty).fit(pooled["train"], label["train"])
        out = metrics.sentiment(ridge.predict(pooled["valid"]), label["valid"])
        shown = ", ".join(f"{name} {out[name]:.3f}" for name in ("acc2_has0", "mae", "corr"))
        print(f"penalty {penalty:5.1f}: {shown}")


if __name__ == "__main__":
    app.run(main)
