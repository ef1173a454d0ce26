"""How much each modality of the sequence view tells, measured by simple probes.

    python -m affectjax.data.synth.probe --seed=0

A probe is a logistic regression on pooled features. `pooled` is late fusion: the three modalities'
pooled features side by side. `joint` has two more blocks that no pooling within a modality gives:
the words weighted by how loud the voice, and how strong the face, is where they are said.
"""

import argparse

import numpy as np

from affectjax.data.sequences import FeatureSet, Sequences, Split
from affectjax.data.synth import views
from affectjax.modalities import MODALITIES

STRENGTHS = (0.003, 0.01, 0.03, 0.1)


def ceilings(features: FeatureSet, seed: int) -> dict[str, float]:
    """Measures the accuracy of the probes on the test split.

    Args:
      features: the sequence view.
      seed: of the probes.

    Returns:
      Accuracy in [0, 1] for `text`, `audio`, `vision`, `pooled` and `joint`. The regularisation is
      chosen on the validation split.
    """
    blocks = {split: _blocks(part) for split, part in features.splits.items()}
    labels = {split: part.label for split, part in features.splits.items()}
    choices = {name: (name,) for name in MODALITIES}
    choices["pooled"] = MODALITIES
    choices["joint"] = (*MODALITIES, "coincidence")
    scores = {}
    for name, used in choices.items():
        x = {split: np.concatenate([b[u] for u in used], 1) for split, b in blocks.items()}
        scores[name] = _score(x, labels, seed)
    return scores


def _score(x: dict[str, np.ndarray], y: dict[str, np.ndarray], seed: int) -> float:
    """Returns the test accuracy of the model that is best on the validation split."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    best = (-1.0, -1.0)
    for strength in STRENGTHS:
        regression = LogisticRegression(C=strength, max_iter=1000, random_state=seed)
        model = make_pipeline(StandardScaler(), regression).fit(x["train"], y["train"])
        valid = model.score(x["valid"], y["valid"])
        if valid > best[0]:
            best = (valid, model.score(x["test"], y["test"]))
    return float(best[1])


def _blocks(split: Split) -> dict[str, np.ndarray]:
    """Returns the probes' features, `[N, .]` a block."""
    blocks = {name: pool(sequences) for name, sequences in split.ordered()}
    voice = split.modalities["audio"]
    face = split.modalities["vision"]
    pointers = (_where(voice.x[..., 0], voice.mask), _where(_moved(face), face.mask))
    text = split.modalities["text"]
    blocks["coincidence"] = np.concatenate([_words_at(text, place) for place in pointers], 1)
    return blocks


def pool(sequences: Sequences) -> np.ndarray:
    """Returns `[N, 5D + 1]` mean, maximum, minimum, deviation, mean step, and presence.

    Args:
      sequences: `[N, T, D]`; an example without a true step gives zeros.
    """
    x, mask = sequences.x.astype(np.float64), sequences.mask[..., None]
    count = np.maximum(mask.sum(1), 1)
    mean = np.where(mask, x, 0).sum(1) / count
    spread = np.sqrt((np.where(mask, x - mean[:, None], 0) ** 2).sum(1) / count)
    present = mask.any(1)
    top = np.where(present, np.where(mask, x, -np.inf).max(1), 0)
    low = np.where(present, np.where(mask, x, np.inf).min(1), 0)
    pairs = mask[:, 1:] & mask[:, :-1]
    step = np.where(pairs, np.diff(x, axis=1), 0).sum(1) / count
    return np.concatenate([mean, top, low, spread, step, present], 1)


def _moved(face: Sequences) -> np.ndarray:
    """Returns `[N, T]` how far the face is from its mean over the clip."""
    mask = face.mask[..., None]
    mean = np.where(mask, face.x, 0).sum(1, keepdims=True) / np.maximum(mask.sum(1)[:, None], 1)
    return np.abs(face.x - mean)[..., :11].sum(-1)


def _where(level: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns `[N]` at which share of the valid steps `[N, T]` the level is highest."""
    smooth = np.where(mask, level, -np.inf)
    return (smooth.argmax(1) + 0.5) / np.maximum(mask.sum(1), 1)


def _words_at(text: Sequences, place: np.ndarray) -> np.ndarray:
    """Returns `[N, 2D]` the words weighted by nearness to a place in the sentence, mean and max."""
    count = np.maximum(text.mask.sum(1, keepdims=True), 1)
    share = (np.arange(text.mask.shape[1]) + 0.5) / count
    near = np.exp(-(((share - place[:, None]) / 0.2) ** 2)) * text.mask
    weighted = text.x * near[..., None]
    return np.concatenate([weighted.sum(1), weighted.max(1), weighted.min(1)], 1)


def main() -> None:
    """Prints a table of the ceilings."""
    parser = argparse.ArgumentParser(description="Measure the ceilings of affect_synth.")
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    for name, accuracy in ceilings(views.sequences(seed), seed).items():
        print(f"{name:8s} {100 * accuracy:5.1f} %")


if __name__ == "__main__":
    main()
