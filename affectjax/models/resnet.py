"""ResNet-18.

Source: He et al. 2016, "Deep Residual Learning for Image Recognition"; the parameters hold what
the published checkpoints hold.
Letters: B examples, H height, W width, D features.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from affectjax.models.norms import BatchNorm
from affectjax.ops.convolution import conv2d, max_pool

he = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

STAGES, BLOCKS = 4, 2


class ConvNorm(nn.Module):
    """A convolution and the batch norm after it.

    Attributes:
      features: D of the result.
      size: side of the kernel, odd.
      stride: pixels between its places.
      axis_name: the mapped axis over which the batch is split, None where it is whole.
      dtype: in which to convolve.
    """

    features: int
    size: int = 3
    stride: int = 1
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, weight: jax.Array | None, *, train: bool) -> jax.Array:
        """Maps `[B, H, W, D_in]` to `[B, H / stride, W / stride, D]`, sides rounded up."""
        kernel = self.param("kernel", he, (self.size, self.size, x.shape[-1], self.features))
        x = conv2d(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.size // 2)
        return BatchNorm(axis_name=self.axis_name, name="norm")(x, weight, train=train)


class BasicBlock(nn.Module):
    """Two convolutions, added to the input, which is mapped where it has another shape.

    Attributes:
      features: D of the result.
      stride: of the first convolution.
      axis_name, dtype: see `ConvNorm`.
    """

    features: int
    stride: int = 1
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, weight: jax.Array | None, *, train: bool) -> jax.Array:
        """Maps `[B, H, W, D_in]` to `[B, H / stride, W / stride, D]`, sides rounded up."""
        conv = functools.partial(
            ConvNorm, self.features, axis_name=self.axis_name, dtype=self.dtype
        )
        y = nn.relu(conv(stride=self.stride, name="first")(x, weight, train=train))
        y = conv(name="second")(y, weight, train=train)
        if x.shape != y.shape:
            x = conv(size=1, stride=self.stride, name="shortcut")(x, weight, train=train)
        return nn.relu(x + y)


class ResNet18(nn.Module):
    """ResNet-18 without the classifier.

    Attributes:
      width: D of the first stage, which every later one doubles; 64 as published.
      axis_name: the mapped axis over which the batch is split, None where it is whole: the batch
        norms are synchronised over it.
      dtype: in which to convolve; the statistics are in float32, as are all parameters.
    """

    width: int = 64
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, weight: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps images to their features.

        Args:
          images: `[B, H, W, 3]` float, normalised as the weights ask, of any size.
          weight: `[B]`, 0 on rows that only pad: these count in no batch norm. None: all count.
          train: whether to normalise by the batch; `batch_stats` must then be mutable.

        Returns:
          `[B, 8 width]` float32, the mean over the pixels of `last` `[B, H / 32, W / 32, 8 width]`
          (sides rounded up).
        """
        if weight is not None:
            # A padded row may hold anything, and its gradient to a kernel would be 0 * NaN.
            images = jnp.where((weight > 0)[:, None, None, None], images, 0.0)
        shared = {"axis_name": self.axis_name, "dtype": self.dtype}
        stem = ConvNorm(self.width, size=7, stride=2, name="stem", **shared)
        x = max_pool(nn.relu(stem(images, weight, train=train)))
        for i in range(STAGES):
            for j in range(BLOCKS):
                stride = 2 if i > 0 and j == 0 else 1
                block = BasicBlock(self.width * 2**i, stride, name=f"stage_{i}_{j}", **shared)
                x = block(x, weight, train=train)
        return x.astype(jnp.float32).mean((1, 2)), {"last": x}
