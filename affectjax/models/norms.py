"""Batch norm over the valid examples of the global batch, and group norm over those of an image.

Letters: B examples on this device, H height, W width, D features, G groups of features.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax

from affectjax.errors import InputError


class BatchNorm(nn.Module):
    """Batch norm whose numbers depend neither on how many devices share a batch, nor on padding.

    The running statistics are those of PyTorch, whose checkpoints can go on being trained: the
    variance that normalises is the biased one, the variance that is remembered the unbiased one.

    Attributes:
      momentum: what the running statistics keep at a step; PyTorch's momentum is one minus this.
      epsilon: added to the variance.
      axis_name: the mapped axis over which the batch is split, None where it is whole.
      groups: names of kinds of inputs that have running statistics of their own, while all share
        the scale and the bias; empty for one kind.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None
    groups: tuple[str, ...] = ()

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        weight: jax.Array | None = None,
        *,
        train: bool,
        group: str | None = None,
    ) -> jax.Array:
        """Normalises each feature, by the batch in training and by the running statistics else.

        Args:
          x: `[B, ..., D]`; the statistics are over all axes but the last, in float32.
          weight: `[B]`; an example counts where it is above 0 and not at all elsewhere. None: all
            count. In training, an example that does not count comes out as if it were zeros, and
            gets no gradient.
          train: whether to normalise by the batch, and to move the running statistics towards it.
            A batch without any example that counts leaves them as they are.
          group: which of `groups`; None where there are none.

        Returns:
          As `x`.

        Raises:
          InputError: `group` is none of `groups`, or lacks.
        """
        allowed = self.groups or (None,)
        if group not in allowed:
            names = ", ".join(map(str, allowed))
            raise InputError(f"batch norm of the group {group}; allowed: {names}")
        size = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (size,))
        bias = self.param("bias", nn.initializers.zeros, (size,))
        # Those of every group, whichever is asked for first.
        means = {g: self._running("mean", g, jnp.zeros, size) for g in allowed}
        variances = {g: self._running("var", g, jnp.ones, size) for g in allowed}
        dtype, x = x.dtype, x.astype(jnp.float32)
        if train:
            valid = jnp.ones(len(x), bool) if weight is None else weight > 0
            valid = valid.reshape(-1, *[1] * (x.ndim - 1))
            # A padded row may hold anything, and 0 * NaN is NaN.
            x = jnp.where(valid, x, 0.0)
            mean, variance, count = self._statistics(x, valid)
            if not self.is_initializing():
                self._remember(means[group], mean, count > 0)
                # Of one value there is no unbiased variance.
                unbiased = variance * count / jnp.maximum(count - 1, 1)
                self._remember(variances[group], unbiased, count > 1)
        else:
            mean, variance = means[group].value, variances[group].value
        factor = scale * lax.rsqrt(variance + self.epsilon)
        return ((x - mean) * factor + bias).astype(dtype)

    def _running(
        self, name: str, group: str | None, fill: Callable[..., jax.Array], size: int
    ) -> nn.Variable:
        """Returns the variable `[D]` of a running statistic."""
        name = name if group is None else f"{name}_{group}"
        return self.variable("batch_stats", name, fill, (size,), jnp.float32)

    def _remember(self, running: nn.Variable, value: jax.Array, known: jax.Array) -> None:
        """Moves a running statistic towards `value`, where that is `known`."""
        moved = self.momentum * running.value + (1 - self.momentum) * lax.stop_gradient(value)
        running.value = jnp.where(known, moved, running.value)

    def _statistics(self, x: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns mean `[D]`, biased variance `[D]` and number of values of the global batch.

        Args:
          x: `[B, ..., D]` float32, zeros in the examples that do not count.
          valid: `[B, ..., 1]` bool, all middle axes 1: which examples count.
        """
        axes = tuple(range(x.ndim - 1))
        each = math.prod(x.shape[1:-1])  # values of a feature in an example
        count = self._sum(each * jnp.sum(valid, dtype=jnp.float32))
        mean = self._sum(jnp.sum(x, axes)) / jnp.maximum(count, 1)
        # Around the mean: the difference of two large sums would lose the small variances.
        apart = jnp.where(valid, jnp.square(x - mean), 0.0)
        return mean, self._sum(jnp.sum(apart, axes)) / jnp.maximum(count, 1), count

    def _sum(self, value: jax.Array) -> jax.Array:
        """Returns the sum of `value` over the devices."""
        return value if self.axis_name is None else lax.psum(value, self.axis_name)


class GroupNorm(nn.Module):
    """Group norm over the rows of an image that count: no batch, and no padding, has a part in it.

    Attributes:
      groups: G, a divisor of D.
      epsilon: added to the variance.

    Source: Wu and He 2018, "Group Normalization".
    """

    groups: int = 8
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Normalises each group of the features of an image, then scales and moves each feature.

        Args:
          x: `[B, H, W, D]`.
          mask: `[B, H]`, the rows that count; None for all. Of the others, what comes out is of no
            use.

        Returns:
          As `x`.
        """
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        counts = jnp.ones(x.shape[:2], bool) if mask is None else mask
        counts = counts[:, :, None, None, None]
        y = rearrange(x, "b h w (g d) -> b h w g d", g=self.groups)
        # Of one image without any row there is nothing to divide.
        mean = functools.partial(jnp.mean, axis=(1, 2, 4), keepdims=True, where=counts)
        some = counts.any(1, keepdims=True)
        centre = jnp.where(some, mean(y), 0.0)
        y -= centre
        variance = jnp.where(some, mean(jnp.square(y)), 1.0)
        y *= lax.rsqrt(variance + self.epsilon)
        return rearrange(y, "b h w g d -> b h w (g d)") * scale + bias
