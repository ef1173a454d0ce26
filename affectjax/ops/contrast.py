"""Losses over pairs and triples of a batch: contrast between modalities, and orthogonality.

Both are of the GLOBAL batch: the mean over devices of what they return, and of its gradients, is
what one device would get. Letters: B examples on this device, N in the global batch, D features.
"""

import jax
import jax.numpy as jnp
from jax import lax

# Anchors whose [N, N] comparisons are made at once: they stay in the cache, and there is enough
# of them for an accelerator. All at once is ten times as slow under vmap, and memory grows as N^3.
_ANCHORS = 16
# A vector whose squared length is below this has no direction: its cosines, and gradients, are 0.
_NO_LENGTH = 1e-12


def triplet(
    features: jax.Array,
    modality: jax.Array,
    label: jax.Array,
    weight: jax.Array,
    margin: float = 0.2,
    axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns this device's part of the margin loss over triples, and how many triples there are.

    The mean over S = {(i, j, k): m_i != m_j, m_i = m_k, c_i = c_j, c_i != c_k} of
    relu(margin - cos(f_i, f_j) + cos(f_i, f_k)): the same emotion in another modality shall lie
    nearer than another emotion in the same modality.

    Args:
      features: `[B, D]`; where all are 0, their cosines are.
      modality: `[B]` int, m.
      label: `[B]` int, c; an example of label -1 is in no triple.
      weight: `[B]`; an example of weight 0 is in no triple, the others count alike.
      margin: alpha.
      axis_name: the mapped axis over which the batch is split, None where it is whole.

    Returns:
      The loss, 0 where S is empty, and the number of triples in S of the global batch, float32.

    Equation: Supramodal (3)
    """
    kept = (weight > 0) & (label >= 0)
    here = (unit(jnp.where(kept[:, None], features, 0)), modality, label, kept)
    there = here
    if axis_name is not None:
        there = lax.all_gather(here, axis_name, tiled=True)
    (near, modality, label, kept), (far, modalities, labels, all_kept) = here, there
    both = kept[:, None] & all_kept
    same_modality, same_label = modality[:, None] == modalities, label[:, None] == labels
    positive, negative = both & ~same_modality & same_label, both & same_modality & ~same_label

    cosine = jnp.matmul(near, far.T, precision=lax.Precision.HIGHEST)
    in_positive, in_negative = _active(cosine, positive, negative, margin)
    # Each active triple adds margin - cos(i, j) + cos(i, k): gathered by pair, the cosines are
    # multiplied with counts, whose gradient is zero, so its gradient is theirs too.
    total = jnp.sum((margin - cosine) * in_positive + cosine * in_negative)
    count = jnp.sum(positive.sum(1, dtype=jnp.float32) * negative.sum(1, dtype=jnp.float32))
    each = count
    if axis_name is not None:
        each, count = lax.pmean(count, axis_name), lax.psum(count, axis_name)
    return total / jnp.maximum(each, 1e-9), count


def unit(x: jax.Array) -> jax.Array:
    """Returns the rows of `[B, D]` at length one, float32; zeros where a row has no length."""
    x = x.astype(jnp.float32)
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return jnp.where(square < _NO_LENGTH, 0.0, x * lax.rsqrt(jnp.maximum(square, _NO_LENGTH)))


def _active(
    cosine: jax.Array, positive: jax.Array, negative: jax.Array, margin: float
) -> tuple[jax.Array, jax.Array]:
    """Returns in how many triples with a loss above zero each pair is.

    Args:
      cosine: `[B, N]`.
      positive: `[B, N]` bool, whether (i, j) begins a triple.
      negative: `[B, N]` bool, whether (i, k) ends one.
      margin: alpha.

    Returns:
      `[B, N]` for (i, j) and `[B, N]` for (i, k), float32.
    """
    cosine = lax.stop_gradient(cosine)
    least = jnp.where(positive, cosine - margin, jnp.inf)
    reached = jnp.where(negative, cosine, -jnp.inf)

    def anchor(row):
        least, reached = row
        active = reached[None, :] > least[:, None]
        return active.sum(1, dtype=jnp.int32), active.sum(0, dtype=jnp.int32)

    counted = lax.map(anchor, (least, reached), batch_size=_ANCHORS)
    return jax.tree.map(lambda x: x.astype(jnp.float32), counted)


def orthogonality(
    emotion: jax.Array,
    other: jax.Array,
    weight: jax.Array,
    axis_name: str | None = None,
    normalize: bool = True,
) -> jax.Array:
    """Returns the squared Frobenius norm of emotion^T other over the global batch.

    Every device returns the whole of it.

    Args:
      emotion: `[B, D]`.
      other: `[B, D]`, the non-emotion features of the same examples.
      weight: `[B]`; an example of weight 0 is left out, the others count alike.
      axis_name: the mapped axis over which the batch is split, None where it is whole.
      normalize: divide by the squared number of examples, so that the scale of the loss does not
        depend on it. The paper does not.

    Equation: Supramodal (2)
    """
    kept = (weight > 0)[:, None]
    emotion, other = (jnp.where(kept, x, 0).astype(jnp.float32) for x in (emotion, other))
    product = jnp.matmul(emotion.T, other, precision=lax.Precision.HIGHEST)
    count = jnp.sum(kept, dtype=jnp.float32)
    if axis_name is not None:
        product, count = lax.psum((product, count), axis_name)
    norm = jnp.sum(product**2)
    return norm / jnp.maximum(count, 1) ** 2 if normalize else norm
