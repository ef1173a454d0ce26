"""LoRA on the parameters of any tower: the tower itself knows nothing of it.

    lora_params = lora.init(key, params, settings.rank)
    tower.apply({"params": lora.adapt(params, lora_params, settings, key)}, x)  # in training
    tower.apply({"params": lora.adapt(params, lora_params, settings)}, x)  # merged, for good

Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models".
Letters: L layers stacked in one kernel, I inputs, O outputs, R rank.
"""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from affectjax.errors import InputError

Tree = dict[str, Any]
# The projections of every attention of affectjax.models.
ATTENTION = r"(^|/)(query|key|value|key_value|out)/kernel$"
# And those of every feed-forward layer.
EVERY_PROJECTION = r"(^|/)(query|key|value|key_value|out|up|down)/kernel$"


@dataclasses.dataclass(frozen=True)
class Lora:
    """How much is added to a kernel.

    Attributes:
      rank: R, of what is added.
      alpha: what is added is multiplied by alpha / rank.
      dropout: rate on the inputs of `a` in training.

    Raises:
      InputError: a value that cannot be meant.
    """

    rank: int = 6
    alpha: float = 36.0
    dropout: float = 0.2

    def __post_init__(self):
        if not isinstance(self.rank, int) or self.rank < 1:
            raise InputError(f"the rank of LoRA is {self.rank}; allowed: a whole number from 1")
        if not self.alpha > 0:
            raise InputError(f"alpha of LoRA is {self.alpha}; allowed: numbers above 0")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout of LoRA is {self.dropout}; allowed: from 0 to below 1")


def init(key: jax.Array, params: Tree, rank: int, pattern: str = ATTENTION) -> Tree:
    """Returns what trains in place of the kernels: at first it adds nothing to them.

    Args:
      key: of the draw.
      params: of a tower; kernels are `[I, O]`, or `[L, I, O]` where layers are stacked.
      rank: R.
      pattern: regular expression, found in the paths `blocks/query/kernel` of those to adapt.

    Returns:
      At the place of each kernel that `pattern` finds `a` `[..., I, R]`, uniform within
      1 / sqrt(I), and `b` `[..., R, O]`, zeros; float32. Nothing at the place of others.

    Raises:
      InputError: `pattern` finds no kernel, or one that is no matrix; the rank is below 1.
    """
    if rank < 1:
        raise InputError(f"the rank of LoRA is {rank}; allowed: a whole number from 1")
    flat = traverse_util.flatten_dict(params, sep="/")
    paths = [path for path in sorted(flat) if re.search(pattern, path)]
    if not paths:
        raise InputError(f"no parameter of the tower matches {pattern!r}; it has {', '.join(flat)}")
    found = {}
    for path, one in zip(paths, jax.random.split(key, len(paths)), strict=True):
        shape = flat[path].shape
        if len(shape) < 2:
            raise InputError(f"{path} of shape {shape} matches {pattern!r}, but is no matrix")
        *layers, inputs, outputs = shape
        bound = inputs**-0.5
        found[f"{path}/a"] = jax.random.uniform(
            one, (*layers, inputs, rank), minval=-bound, maxval=bound
        )
        found[f"{path}/b"] = jnp.zeros((*layers, rank, outputs))
    return traverse_util.unflatten_dict(found, sep="/")


def adapt(params: Tree, lora_params: Tree, settings: Lora, key: jax.Array | None = None) -> Tree:
    """Returns the parameters of a tower with `alpha / rank * a @ b` added to its kernels.

    Without a key this merges: `x @ kernel` is then exactly `x @ W + alpha / rank * (x @ a) @ b`,
    and the result is a tower as any other.

    With a key the inputs of `a` are dropped, which is the same as to drop its rows. One draw holds
    for a layer and a step, for all tokens of all examples; the published LoRA draws for each token.
    The mean over draws is the same, the noise of a step is that of features left out of a whole
    batch, and no tower has to be written anew for it.

    Args:
      params: of a tower.
      lora_params: as `init` returns them.
      settings: with the rank of `lora_params`.
      key: of the dropout, the same on every device; None in evaluation and to merge.

    Returns:
      A tree as `params`. Its gradient reaches `params` too: differentiate for `lora_params` alone.

    Raises:
      InputError: `lora_params` are of another tower or rank.
    """
    flat = dict(traverse_util.flatten_dict(params, sep="/"))
    added = traverse_util.flatten_dict(lora_params, sep="/")
    paths = sorted({path.rpartition("/")[0] for path in added})
    dropped = key is not None and settings.dropout > 0
    keys = jax.random.split(key, len(paths)) if dropped else [None] * len(paths)
    for path, one in zip(paths, keys, strict=True):
        a, b = added[f"{path}/a"], added[f"{path}/b"]
        if path not in flat:
            raise InputError(f"LoRA has parameters for {path}, which the tower has not")
        kernel = flat[path]
        *layers, inputs, outputs = kernel.shape
        expected = (*layers, inputs, settings.rank), (*layers, settings.rank, outputs)
        if (a.shape, b.shape) != expected:
            raise InputError(
                f"LoRA has a of shape {a.shape} and b of shape {b.shape} for {path}; a kernel "
                f"{kernel.shape} and rank {settings.rank} allow {expected[0]} and {expected[1]}"
            )
        if dropped:
            keep = jax.random.bernoulli(one, 1 - settings.dropout, (*layers, inputs, 1))
            a = jnp.where(keep, a / (1 - settings.dropout), 0.0)
        flat[path] = (kernel + settings.alpha / settings.rank * (a @ b)).astype(kernel.dtype)
    return traverse_util.unflatten_dict(flat, sep="/")
