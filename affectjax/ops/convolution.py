"""Convolution of images and sounds, with PyTorch's padding, that is quick inside a `lax.scan`.

XLA's convolution takes tens of times as long in a scan on a CPU: a ResNet-18 that learns from 64
faces of 48 x 48 takes 10 s a step with it, 0.2 s with matrix products, which are most of that
(tests/benchmarks/resnet_step.py). So a CPU gets products, an accelerator XLA's convolution: one
product of all windows or, where much of these is padding, one for each place in a window, of the
pixels that are there. In that ResNet-18, whose last images have 2 x 2 pixels, this makes 37 G
operations a step 27 G. Over time it is a product everywhere, as in `models.layers.Conv1d`.
Letters: B examples, H height, W width, T steps, D features, F features of the result, G groups.
"""

import functools
import math

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax

# With a smaller share of the windows inside the image, products of places are quicker.
MOSTLY_INSIDE = 0.7
# Places of a long kernel in one product: windows of all of them would be as many copies of `x`.
PLACES = 8


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

    def convolution(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    share = math.prod(
        sum(stop - start for start, stop in spans) / (count * len(spans))
        for count, spans in (_inside(x, kernel, axis, stride, padding) for axis in (1, 2))
    )
    product = _of_windows if share > MOSTLY_INSIDE else _of_places
    product = functools.partial(product, stride=stride, padding=padding)
    # Settled when it is compiled: the program holds one of the two.
    return lax.platform_dependent(x, kernel, cpu=product, default=convolution)


def conv1d(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Returns the convolution over time, as `torch.nn.functional.conv1d` counts without padding.

    Args:
      x: `[B, T, D]`, T at least k.
      kernel: `[k, D, F]`, of the type of `x`.
      stride: steps between windows.

    Returns:
      `[B, (T - k) // stride + 1, F]`.
    """
    windows = jnp.concatenate(_shifts(x, 1, kernel.shape[0], stride), axis=-1)
    return windows @ rearrange(kernel, "k d f -> (k d) f")


def grouped_conv1d(x: jax.Array, kernel: jax.Array, groups: int) -> jax.Array:
    """Returns the convolution over time in groups of features, as long as `x`.

    Equal to the first T steps of `torch.nn.functional.conv1d` with a padding of k // 2.

    Args:
      x: `[B, T, D]`.
      kernel: `[k, D / G, F]`, of the type of `x`.
      groups: G, a divisor of D and of F. Each part of F is made of its own part of D.

    Returns:
      `[B, T, F]`.
    """
    size, steps = len(kernel), x.shape[1]
    places = math.gcd(size, PLACES)
    x = jnp.pad(x, ((0, 0), (size // 2, size - 1 - size // 2), (0, 0)))
    x = rearrange(x, "b t (g d) -> g b t d", g=groups)
    windows = jnp.concatenate(_shifts(x, 2, places, 1), axis=-1)
    kernel = rearrange(kernel, "(n k) d (g f) -> n g (k d) f", k=places, g=groups)
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    y = jnp.zeros((), dtype)
    for i, part in enumerate(kernel):
        there = lax.slice_in_dim(windows, i * places, i * places + steps, axis=2)
        y += jnp.einsum("gbtd,gdf->gbtf", there, part, preferred_element_type=dtype)
    return rearrange(y, "g b t f -> b t (g f)").astype(x.dtype)


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


def _of_windows(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Returns the convolution as one matrix product of all windows, padding and all."""
    rows = _shifts(_padded(x, padding, 0.0), 1, kernel.shape[0], stride)
    windows = [w for row in rows for w in _shifts(row, 2, kernel.shape[1], stride)]
    return jnp.concatenate(windows, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def _of_places(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Returns the convolution as a matrix product for each place in a window, without padding.

    The products are added in float32 at least.
    """
    h, w, d, f = kernel.shape
    height, rows = _inside(x, kernel, 1, stride, padding)
    width, columns = _inside(x, kernel, 2, stride, padding)
    # The gradient of a split is one concatenation; that of slices would be a whole kernel for each.
    parts = iter(lax.split(kernel.reshape(h * w, d, f), [1] * (h * w)))
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    y = jnp.zeros((len(x), height, width, f), dtype)
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            part = next(parts)[0]
            if top == bottom or left == right:
                continue
            there = _strided(x, 1, top * stride + i - padding, bottom - top, stride)
            there = _strided(there, 2, left * stride + j - padding, right - left, stride)
            z = jnp.matmul(there, part, preferred_element_type=dtype)
            around = ((0, 0), (top, height - bottom), (left, width - right), (0, 0))
            y += jnp.pad(z, around)
    return y.astype(x.dtype)


def _inside(
    x: jax.Array, kernel: jax.Array, axis: int, stride: int, padding: int
) -> tuple[int, list[tuple[int, int]]]:
    """Returns how many windows there are along an axis, and which have each place in the image.

    The latter as the first such window and the one after the last, for each place in a window; the
    same where there is none.
    """
    side, size = x.shape[axis], kernel.shape[axis - 1]
    count, spans = (side + 2 * padding - size) // stride + 1, []
    for place in range(size):
        first = place - padding  # the pixel that the first window has there
        start = min(max(-(first // stride), 0), count)
        spans.append((start, max(start, min((side - 1 - first) // stride + 1, count))))
    return count, spans


def _padded(x: jax.Array, padding: int, value: float) -> jax.Array:
    """Returns images `[B, H, W, D]` with `padding` pixels of `value` on each of the four sides."""
    sides = (padding, padding)
    return jnp.pad(x, ((0, 0), sides, sides, (0, 0)), constant_values=value)


def _shifts(x: jax.Array, axis: int, size: int, stride: int) -> list[jax.Array]:
    """Returns, for each of the `size` places in a window, what all windows along `axis` hold."""
    count = (x.shape[axis] - size) // stride + 1
    return [_strided(x, axis, i, count, stride) for i in range(size)]


def _strided(x: jax.Array, axis: int, start: int, count: int, stride: int) -> jax.Array:
    """Returns `count` slices of `x` along `axis`, `stride` apart."""
    return lax.slice_in_dim(x, start, start + (count - 1) * stride + 1, stride, axis)
