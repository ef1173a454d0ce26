"""The supramodal network behind its towers in NumPy, one example at a time, and its two losses.

Written from section 3 of SPEC and equations 2 to 5 of the paper, in float64. Weights are nested
dicts of arrays under the names of the Flax modules.
"""

import numpy as np
import numpy_concepts as ref

ORDER = ("text", "audio", "vision")
# SPEC: fear, disgust, sadness, anger negative, happy positive, surprise left out.
SEVEN = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
THREE = ("negative", "neutral", "positive")
COARSE = ("negative", "negative", "negative", "positive", "neutral", "negative", None)


def merged(label, classes):
    """Returns a label as one of the three; -1 where it is left out."""
    if len(classes) == 3:
        return int(label)
    return THREE.index(COARSE[label]) if COARSE[label] else -1


# ---- batch norm ---------------------------------------------------------------------------------


def moments(x, weight):
    """Returns mean and biased variance of the rows that count, and how many there are."""
    rows = [row for row, w in zip(x, weight, strict=True) if w > 0]
    mean = sum(rows) / len(rows)
    return mean, sum((row - mean) ** 2 for row in rows) / len(rows), len(rows)


def batch_norm(x, weight, p, running, train):
    """Returns the normalised rows, and the running mean and variance after them.

    Args:
      x: `[B, D]`.
      weight: `[B]`.
      p: `scale` and `bias`.
      running: mean and variance before.
      train: whether to normalise by the rows that count.
    """
    mean, variance = running
    after = running
    if train:
        mean, variance, count = moments(x, weight)
        unbiased = variance * count / (count - 1)
        after = 0.9 * running[0] + 0.1 * mean, 0.9 * running[1] + 0.1 * unbiased
    return (x - mean) / np.sqrt(variance + 1e-5) * p["scale"] + p["bias"], after


def two_layers(x, weight, p, running, train, group=""):
    """Returns Dense, BatchNorm and ReLU, twice, and the running statistics after them.

    Args:
      x: `[B, D]`.
      weight: `[B]`.
      p: the weights.
      running: statistics by norm, under the names that Flax gives them.
      train: see `batch_norm`.
      group: whose statistics; "" where there is one kind.
    """
    end, after = f"_{group}" if group else "", {}
    for i in range(2):
        x = np.asarray(x, np.float64) @ p[f"dense_{i}"]["kernel"]
        own = running[f"norm_{i}"]
        before = own[f"mean{end}"], own[f"var{end}"]
        x, new = batch_norm(x, weight, p[f"norm_{i}"], before, train)
        after[f"norm_{i}"] = own | {f"mean{end}": new[0], f"var{end}": new[1]}
        x = np.maximum(x, 0)
    return x, after


def read(features, weight, p, running, train, shared=False):
    """Returns by modality the features and logits of `Supramodal.read`, and the statistics after.

    Args:
      features: by modality `[B, D]`, what the towers gave.
      weight: by modality `[B]`.
      p: the weights of everything.
      running: statistics of everything.
      train: see `batch_norm`.
      shared: whether the emotion encoder normalises all modalities together.
    """
    after, found = dict(running), {}
    here = [m for m in ORDER if m in features]
    if shared:
        x, w = (np.concatenate([d[m] for m in here]) for d in (features, weight))
        emotion, after["emotion"] = two_layers(x, w, p["emotion"], running["emotion"], train)
    for m in here:
        if shared:
            own, emotion = emotion[: len(features[m])], emotion[len(features[m]) :]
        else:
            own, after["emotion"] = two_layers(
                features[m], weight[m], p["emotion"], after["emotion"], train, m
            )
        name = f"non_emotion_{m}"
        rest, after[name] = two_layers(features[m], weight[m], p[name], running[name], train)
        heads = {h: own @ p[h]["kernel"] + p[h]["bias"] for h in ("seven", "three")}
        found[m] = {"emotion": own, "non_emotion": rest, **heads}
    return found, after


# ---- losses -------------------------------------------------------------------------------------


def entropy(logits, label, weight):
    """Returns the mean cross-entropy over the examples that count and have a label; 0 of none."""
    total = count = 0.0
    for row, c, w in zip(np.asarray(logits, np.float64), label, weight, strict=True):
        if w > 0 and c >= 0:
            total += np.log(np.exp(row - row.max()).sum()) + row.max() - row[c]
            count += 1
    return total / count if count else 0.0


def right(logits, label, weight):
    """Returns the share of the examples that count whose label has the greatest logit."""
    pairs = zip(logits, label, weight, strict=True)
    hits = [float(np.argmax(row) == c) for row, c, w in pairs if w > 0 and c >= 0]
    return sum(hits) / len(hits) if hits else 0.0


def orthogonality(found, weight, unit_length, normalize):
    pair = [np.asarray(found[k], np.float64) for k in ("emotion", "non_emotion")]
    if unit_length:
        lengths = [np.sqrt((x**2).sum(1, keepdims=True)) for x in pair]
        pair = [x / np.where(n > 0, n, 1) for x, n in zip(pair, lengths, strict=True)]
    return ref.orthogonality(*pair, weight, normalize)


def triplets(found, label, weight, margin):
    """Returns the triplet loss over the modalities of `label`, and the number of triples."""
    here = [m for m in ORDER if m in label]
    gather = lambda values: np.concatenate([values(m) for m in here])  # noqa: E731
    loss, _, count = ref.triplet(
        gather(lambda m: found[m]["emotion"]),
        gather(lambda m: np.full(len(label[m]), ORDER.index(m))),
        gather(lambda m: label[m]),
        gather(lambda m: weight[m]),
        margin,
    )
    return loss, count
