"""Linear models of pooled features: ridge regression and logistic regression, by scikit-learn.

The penalty is chosen by cross-validation within the training part. Everything is computed on one
thread: the products are small, and the number of cores then changes nothing.

Letters: N examples, F features, C classes, K binary tasks, P penalties.
"""

import contextlib
import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from affectjax.data.batches.splits import assign_folds
from affectjax.data.labels import LabelSpec
from affectjax.training.pooling import Vectors

# Strong ones first. One is as strong as the features of a modality together, see `Scaler`.
PENALTIES = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
FOLDS, SEED = 3, 0
# Weaker penalties than the best so far that are tried.
PATIENCE = 2
# Words are told apart by the tokens that stand in the most texts, this many.
TOKENS = 2000
# Steps of logistic regression at most, and the gradient at which it ends.
STEPS, TOLERANCE = 200, 1e-4
# The least probability that a logarithm is taken of.
LEAST = 1e-6


class Scaler:
    """Vectors of one modality to columns of mean 0 over the training part.

    Each column has the same deviation, but those of tokens: these are weighted by TF-IDF, whose
    rare columns would outweigh all else. In the sum over its columns each modality varies by one,
    so that among several none counts for more because it is wide.
    """

    def __init__(self, vectors: Vectors):
        """Learns from `vectors` `[N, F]` of the training part."""
        from scipy import sparse

        self._weights = None
        if sparse.issparse(vectors):
            from sklearn.feature_extraction.text import TfidfTransformer

            texts = vectors.getnnz(0)
            # What stands in every text, as its end does, or in a single one tells nothing.
            told = np.where((texts > 1) & (texts < vectors.shape[0]), texts, 0)
            some = np.clip(np.count_nonzero(told), 1, TOKENS)
            most = np.argsort(-told, kind="stable")[:some]
            self._columns = np.sort(most)
            self._weights = TfidfTransformer(sublinear_tf=True).fit(vectors[:, self._columns])
        x = self._dense(vectors)
        self._mean, spread = x.mean(0), x.std(0)
        if self._weights is not None:
            self._scale = np.full(x.shape[1], np.sqrt(np.square(spread).sum()))
        else:
            constant = spread <= 1e-6 * np.maximum(np.abs(self._mean), 1e-6)
            self._scale = np.where(constant, np.inf, spread * np.sqrt(max((~constant).sum(), 1)))
        self._scale = np.where(self._scale > 0, self._scale, np.inf)

    def __call__(self, vectors: Vectors) -> np.ndarray:
        """Returns the columns `[N, F]` of any part."""
        return (self._dense(vectors) - self._mean) / self._scale

    def _dense(self, vectors: Vectors) -> np.ndarray:
        if self._weights is None:
            return np.asarray(vectors, np.float64)
        return self._weights.transform(vectors[:, self._columns]).toarray().astype(np.float64)


def constant(spec: LabelSpec, label: np.ndarray, count: int) -> np.ndarray:
    """Returns `[count, ...]`, for every example the same: shares of the classes, or the mean score.

    Args:
      spec: what the labels mean.
      label: `[N]` or `[N, K]`, of the training part.
      count: of examples.
    """
    if spec.kind == "class":
        said = np.bincount(label, minlength=len(spec.classes)) / len(label)
    else:
        said = np.mean(label, axis=0, dtype=np.float64)
    return np.tile(said, (count, *[1] * np.ndim(said)))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps scikit-learn to one thread, and what it would say of it to itself.

    Steps that were not enough, and folds that lack a class, change the place of a penalty among the
    others by next to nothing.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def choose(
    spec: LabelSpec, x: np.ndarray, label: np.ndarray, groups: Sequence[str]
) -> tuple[float, float]:
    """Returns the penalty with the least loss over the folds, and that loss.

    The loss of scores is the squared error, of classes and binary tasks the cross-entropy. Where
    there are no folds, it is NaN, and the penalty the middle one.

    Args:
      spec: what the labels mean.
      x: `[N, F]`, scaled, of the training part.
      label: of them.
      groups: N names, the video or speaker of each; no two folds share one.
    """
    with _quietly():
        cut = list(folds(spec, label, groups))
        paths = [path(spec, x[train], label[train], x[held], PENALTIES) for train, held in cut]
        truth = [label[held] for _, held in cut]
        losses: list[float] = []
        for said in zip(*paths, strict=True):
            losses.append(sum(map(functools.partial(_loss, spec), said, truth)))
            if len(losses) - np.argmin(losses) > PATIENCE:
                break
    if not losses:
        return PENALTIES[len(PENALTIES) // 2], np.nan
    best = int(np.argmin(losses))
    return PENALTIES[best], losses[best] / sum(map(len, truth))


def predict(
    spec: LabelSpec,
    x: np.ndarray,
    label: np.ndarray,
    penalty: float,
    others: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Returns by name the predictions `[N, ...]` for other parts.

    Args:
      spec: what the labels mean.
      x: `[N, F]`, scaled, of the training part.
      label: of them.
      penalty: one of `PENALTIES`.
      others: by name `[N, F]`, scaled.
    """
    with _quietly():
        said = path(spec, x, label, np.concatenate(list(others.values())), (penalty,))
        said = next(said)
    ends = np.cumsum([len(own) for own in others.values()])[:-1]
    return dict(zip(others, np.split(said, ends), strict=True))


def folds(
    spec: LabelSpec, label: np.ndarray, groups: Sequence[str]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the rows to train on and those held out: whole groups, of classes like shares.

    Args: see `choose`.
    """
    from sklearn import model_selection

    count = min(FOLDS, len(set(groups)))
    if count < 2:
        return
    if spec.kind == "class":
        alone = len(set(groups)) == len(groups)
        count = min(count, np.bincount(label).max())
        if count < 2:
            return
        kind = model_selection.StratifiedKFold if alone else model_selection.StratifiedGroupKFold
        yield from kind(count, shuffle=True, random_state=SEED).split(label, label, groups)
        return
    part = assign_folds(groups, count, SEED)
    for held in range(count):
        yield np.flatnonzero(part != held), np.flatnonzero(part == held)


def path(
    spec: LabelSpec,
    x: np.ndarray,
    label: np.ndarray,
    others: np.ndarray,
    penalties: Sequence[float],
) -> Iterator[np.ndarray]:
    """Yields for each penalty the predictions `[N, ...]` for `others` `[N, F]`.

    Args:
      spec: what the labels mean.
      x: `[N, F]` to learn from.
      label: of them.
      others: `[N, F]`.
      penalties: strong ones first: each model starts from the one before.
    """
    if spec.kind == "score":
        yield from _ridge(x, label, others, penalties)
    elif spec.kind == "class":
        yield from _logistic(x, label, others, penalties, len(spec.classes))
    else:
        tasks = [_logistic(x, own, others, penalties, 2) for own in label.T]
        for said in zip(*tasks, strict=True):
            yield np.stack([own[:, 1] for own in said], axis=1)


def _ridge(
    x: np.ndarray, label: np.ndarray, others: np.ndarray, penalties: Sequence[float]
) -> np.ndarray:
    """Returns `[P, N]`."""
    from sklearn.linear_model import Ridge

    # One target for each penalty: what they have in common is computed once.
    target = np.tile(label.astype(np.float64)[:, None], len(penalties))
    model = Ridge(alpha=np.array(penalties), solver="cholesky").fit(x, target)
    return model.predict(others).reshape(len(others), len(penalties)).T


def _logistic(
    x: np.ndarray, label: np.ndarray, others: np.ndarray, penalties: Sequence[float], classes: int
) -> Iterator[np.ndarray]:
    """Yields `[N, C]`; a class that nobody shows is never said."""
    from sklearn.linear_model import LogisticRegression

    x, others = x.astype(np.float32), others.astype(np.float32)
    there = np.unique(label)
    model: Any = LogisticRegression(max_iter=STEPS, tol=TOLERANCE, warm_start=True)
    for penalty in penalties:
        said = np.zeros((len(others), classes))
        if len(there) == 1:
            said[:, there] = 1
        else:
            said[:, there] = model.set_params(C=1 / penalty).fit(x, label).predict_proba(others)
        yield said


def _loss(spec: LabelSpec, said: np.ndarray, label: np.ndarray) -> float:
    """Returns the sum over examples of the loss of `said` `[N, ...]`."""
    if spec.kind == "score":
        return float(np.square(said - label).sum())
    if spec.kind == "class":
        true = said[np.arange(len(label)), label]
    else:
        true = np.where(label == 1, said, 1 - said)
    return float(-np.log(np.maximum(true, LEAST)).sum())
