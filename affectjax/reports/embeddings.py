"""The shared space of a run: how far emotions, and modalities, lie apart in its features.

    space.silhouettes("runs/x/concepts")["three"]["emotion"]["modality"]

Letters: N examples, D features, M modalities.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from threadpoolctl import threadpool_limits

from affectjax import emotions
from affectjax.data import archives
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.runtime import manifest
from affectjax.tasks.supramodal import concept_bank

FEATURES = "features.npz"
KINDS = ("feature", "emotion", "non_emotion")
GROUPS = ("emotion", "modality")
MOST = 2000
_SEED = 0
_PERPLEXITY = 30.0
_AXES = 50  # principal axes that t-SNE starts from: more are noise, and slow


@dataclasses.dataclass(frozen=True, eq=False)
class Space:
    """Examples of all modalities together.

    Attributes:
      features: by kind `[N, D]`: "feature" from the towers, before the shared encoder; "emotion"
        and "non_emotion", of the two encoders. D may differ between kinds.
      emotion: `[N]` names of classes.
      modality: `[N]` names.
    """

    features: Mapping[str, np.ndarray]
    emotion: np.ndarray
    modality: np.ndarray

    def counts(self) -> dict[str, dict[str, int]]:
        """Returns by modality and class how many examples there are."""
        found: dict[str, dict[str, int]] = {}
        for m in (m for m in MODALITIES if m in self.modality):
            names, sizes = np.unique(self.emotion[self.modality == m], return_counts=True)
            found[m] = dict(zip(names.tolist(), sizes.tolist(), strict=True))
        return found


def load(folder: str | Path) -> Space:
    """Returns the features that a run left in the folder of its concepts.

    Args:
      folder: has features.npz with "<m>/<kind>" `[N, D]` and "<m>/label" `[N]` names, for each
        modality m.

    Raises:
      InputError: there is none, it is damaged, or a feature is not finite.
    """
    path = Path(folder) / FEATURES
    if not path.is_file():
        raise InputError(f"{path} is not there: has the run learned concepts?")
    manifest.check(path.parent, (FEATURES,), concept_bank.REMEDY)
    found = archives.read(path)
    held = [m for m in MODALITIES if f"{m}/label" in found]
    lacking = [f"{m}/{kind}" for m in held for kind in KINDS if f"{m}/{kind}" not in found]
    if not held or lacking:
        raise InputError(f"{path} is damaged: it has no {(lacking or ['text/label'])[0]!r}")
    for m in held:
        for name in (f"{m}/{kind}" for kind in KINDS):
            x, size = found[name], len(found[f"{m}/label"])
            if x.ndim != 2 or len(x) != size or not np.isfinite(x).all():
                raise InputError(f"{path}: {name!r} {x.shape} is not [{size}, D] finite numbers")
    for kind in KINDS:
        if len({found[f"{m}/{kind}"].shape[1] for m in held}) > 1:
            raise InputError(f"{path}: the modalities differ in the width of {kind!r}")
    return Space(
        features={kind: np.concatenate([found[f"{m}/{kind}"] for m in held]) for kind in KINDS},
        emotion=np.concatenate([found[f"{m}/label"] for m in held]),
        modality=np.repeat(held, [len(found[f"{m}/label"]) for m in held]),
    )


def sample(space: Space, scheme: str, most: int = MOST, seed: int = _SEED) -> Space:
    """Returns as many examples of each modality as of any other, their emotions in one scheme.

    Args:
      space: all examples.
      scheme: "three" merges emotions to negative, neutral and positive, and leaves surprise out;
        "seven" takes only those modalities whose labels are the seven.
      most: the most examples.
      seed: of the choice among them.
    """
    classes = emotions.SCHEMES[scheme]
    names, inverse = np.unique(space.emotion, return_inverse=True)
    number = emotions.to_scheme(names.tolist(), classes)[inverse]
    pools = {}
    for m in dict.fromkeys(space.modality.tolist()):
        own = space.modality == m
        # "neutral" is one of the seven and of the three.
        if scheme != "seven" or not set(space.emotion[own]) <= set(emotions.THREE):
            pools[m] = np.flatnonzero(own & (number >= 0))
    size = min([len(pool) for pool in pools.values()] + [most // max(len(pools), 1)])
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(pool, size, replace=False) for pool in pools.values()]
    rows = np.sort(np.concatenate([*chosen, np.zeros(0, int)]))
    return Space(
        features={kind: x[rows] for kind, x in space.features.items()},
        emotion=np.array(classes)[number[rows]],
        modality=space.modality[rows],
    )


def silhouettes(folder: str | Path) -> dict[str, Any]:
    """Returns how far groups of examples lie apart, by cosine: 1 apart, 0 mixed, below 0 astray.

    A space that the modalities share has emotions apart, and modalities mixed.

    Args:
      folder: see `load`.

    Returns:
      By scheme, "three" and "seven" (see `sample`): `examples`, by modality and class how many; and
      by kind of feature, by what they are grouped ("emotion" or "modality"), `value`, and `reason`:
      None, or what stands in the way where the value is None.

    Raises:
      InputError: see `load`.
    """
    space = load(folder)
    found: dict[str, Any] = {}
    for scheme in ("three", "seven"):
        some = sample(space, scheme)
        found[scheme] = {"examples": some.counts()} | {
            kind: {group: _silhouette(x, getattr(some, group), group) for group in GROUPS}
            for kind, x in some.features.items()
        }
    return found


def _silhouette(x: np.ndarray, groups: np.ndarray, what: str) -> dict[str, Any]:
    """Returns `value` and `reason` of features `[N, D]` in groups `[N]`."""
    names, sizes = np.unique(groups, return_counts=True)
    reason = None
    if len(names) < 2:
        reason = f"there is one {what} alone: {names[0]}" if len(names) else "there is no example"
    elif sizes.min() < 2:
        reason = f"there is one example alone of {names[sizes.argmin()]}"
    value = None if reason else float(silhouette_score(x, groups, metric="cosine"))
    return {"value": value, "reason": reason}


def embed(x: np.ndarray, seed: int = _SEED) -> np.ndarray:
    """Returns `[N, 2]`: features `[N, D]` as points of a plane, by t-SNE.

    Features that are all the same, or fewer than three of them, come as zeros.

    Args:
      x: the features.
      seed: of t-SNE.
    """
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    if len(x) < 3 or np.ptp(unit, axis=0).max() < 1e-6:
        return np.zeros((len(x), 2))
    # At length one the Euclidean distance orders pairs as the cosine does.
    axes = PCA(min(_AXES, *x.shape), random_state=seed).fit_transform(unit)
    perplexity = min(_PERPLEXITY, (len(x) - 1) / 3)
    tsne = TSNE(init="pca", perplexity=perplexity, random_state=seed)
    # One thread: the same picture on every machine, and no waiting where others use the cores.
    with threadpool_limits(1, user_api="openmp"):
        return tsne.fit_transform(axes)
