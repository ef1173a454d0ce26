"""Losses and concepts of the supramodal system in NumPy, one triple and one example at a time.

Written from equations 2, 3, 6 and 7 of the paper and from what SPEC decides, in float64.
"""

import numpy as np


def cosine(a, b):
    """Returns the cosine of two vectors; 0 where one has no length."""
    length = np.sqrt(np.dot(a, a)) * np.sqrt(np.dot(b, b))
    return np.dot(a, b) / length if length else 0.0


def triples(modality, label, weight):
    """Returns S of equation 3."""
    counted = [n for n in range(len(label)) if weight[n] > 0 and label[n] != -1]
    found = []
    for i in counted:
        for j in counted:
            for k in counted:
                crosses = modality[i] != modality[j] and modality[i] == modality[k]
                if crosses and label[i] == label[j] and label[i] != label[k]:
                    found.append((i, j, k))
    return found


def triplet(features, modality, label, weight, margin=0.2):
    """Returns the loss of equation 3, its gradient to the features, and |S|."""
    features = np.asarray(features, np.float64)
    found = triples(modality, label, weight)
    loss, gradient = 0.0, np.zeros_like(features)
    for i, j, k in found:
        near, far = cosine(features[i], features[j]), cosine(features[i], features[k])
        if margin - near + far > 0:
            loss += (margin - near + far) / len(found)
            for a, b, sign in ((i, j, -1), (j, i, -1), (i, k, 1), (k, i, 1)):
                gradient[a] += sign * _slope(features[a], features[b]) / len(found)
    return loss, gradient, len(found)


def _slope(a, b):
    """Returns the gradient of cos(a, b) to a; 0 where one has no length."""
    long, other = np.sqrt(np.dot(a, a)), np.sqrt(np.dot(b, b))
    if not long * other:
        return np.zeros_like(a)
    return b / (long * other) - cosine(a, b) * a / long**2


def orthogonality(emotion, other, weight, normalize=True):
    """Returns the loss of equation 2."""
    rows = [n for n in range(len(weight)) if weight[n] > 0]
    width, total = emotion.shape[1], 0.0
    for p in range(width):
        for q in range(other.shape[1]):
            total += sum(float(emotion[n, p]) * float(other[n, q]) for n in rows) ** 2
    return total / max(len(rows), 1) ** 2 if normalize else total


def select(probability, label, top=0.2, correct_only=True):
    """Returns by class the rows of the top part of the correctly predicted examples."""
    classes = probability.shape[1]
    chosen = []
    for c in range(classes):
        candidates = []
        for n in range(len(label)):
            right = all(probability[n, c] >= probability[n, d] for d in range(classes))
            if label[n] == c and (right or not correct_only):
                candidates.append((-probability[n, c], n))
        keep = int(len(candidates) * round(100 * top)) // 100
        keep = max(keep, 1) if candidates else 0
        chosen.append(sorted(n for _, n in sorted(candidates)[:keep]))
    return chosen


def concept(pools, drawn):
    """Returns the concept of one example: equation 6.

    Args:
      pools: by modality the members `[P, D]` of the example's label; those without one are absent.
      drawn: by modality the numbers of the members that are drawn.
    """
    means = []
    for m, members in pools.items():
        total = np.zeros(members.shape[1])
        for j in drawn[m]:
            total += members[j]
        means.append(total / len(drawn[m]))
    return sum(means) / len(means)


def guidance(feature, concept, present, weight, reduce="mean"):
    """Returns the loss of equation 7, over the examples that have a concept."""
    total, count = 0.0, 0.0
    for n in range(len(feature)):
        if present[n] and weight[n] > 0:
            squares = [(float(a) - float(b)) ** 2 for a, b in zip(feature[n], concept[n])]  # noqa: B905
            total += weight[n] * (sum(squares) / (len(squares) if reduce == "mean" else 1))
            count += weight[n]
    return total / count if count else 0.0
