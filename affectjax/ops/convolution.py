"""Convolution and pooling of images, with PyTorch's padding, that are quick inside a `lax.scan`.

XLA's convolution takes tens of times as long in a scan on a CPU: a ResNet-18 that learns from 64
faces of 48 x 48 takes 10 s a step with it, 0.2 s with windows and one matrix product, which is
nearly all product (tests/benchmarks/resnet_step.py). So a CPU gets windows, an accelerator XLA's.
Letters: B examples, H height, W width, D features, F features of the result.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax


def conv2d(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 0) -> jax.Array:
    """Returns the convolution of images, as `torch.nn.functional.conv2d` counts.

    Args:
      x: `[B, H, W, D]`.
      kernel: `[h, w, D, F]`, of the type of `x`.
      stride: pixels between windows, in both directions.
      padding: zeros on each of the four sides.

    Returns:
      `[B, (H + 2 padding - h) // stride + 1, (W + 2 padding - w) // stride + 1, F]`.
    """

    def product(x, kernel):
        rows = _shifts(_padded(x, padding, 0.0), 1, kernel.shape[0], stride)
        windows = [w for row in rows for w in _shifts(row, 2, kernel.shape[1], stride)]
        return jnp.concatenate(windows, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])

    def convolution(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    # Settled when it is compiled: the program holds one of the two.
    return lax.platform_dependent(x, kernel, cpu=product, default=convolution)


def max_pool(x: jax.Array, size: int = 3, stride: int = 2, padding: int = 1) -> jax.Array:
    """Returns the largest value of each window, as `torch.nn.functional.max_pool2d` counts.

    Maxima of slices, whose gradient is quick too; of equal values that are the largest, several get
    a part of the gradient, where PyTorch gives all to the first.

    Args:
      x: `[B, H, W, D]` float.
      size: side of a window.
      stride: pixels between windows, in both directions.
      padding: pixels beyond each side, which are never the largest; at most size / 2.

    Returns:
      `[B, (H + 2 padding - size) // stride + 1, (W + 2 padding - size) // stride + 1, D]`.
    """
    x = _padded(x, padding, -jnp.inf)
    for axis in (1, 2):
        x = functools.reduce(jnp.maximum, _shifts(x, axis, size, stride))
    return x


def _padded(x: jax.Array, padding: int, value: float) -> jax.Array:
    """Returns images `[B, H, W, D]` with `padding` pixels of `value` on each of the four sides."""
    sides = (padding, padding)
    return jnp.pad(x, ((0, 0), sides, sides, (0, 0)), constant_values=value)


def _shifts(x: jax.Array, axis: int, size: int, stride: int) -> list[jax.Array]:
    """Returns, for each of the `size` places in a window, what all windows along `axis` hold."""
    last = (x.shape[axis] - size) // stride * stride
    return [lax.slice_in_dim(x, i, i + last + 1, stride, axis) for i in range(size)]
