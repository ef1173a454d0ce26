"""Convolution and pooling against PyTorch, forward and backward, under every transform.

Letters: B examples, H height, W width, T steps, D features, F features of the result, G groups.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from affectjax.ops.convolution import conv1d, conv2d, grouped_conv1d, max_pool

torch = pytest.importorskip("torch")

# Images [B, H, W, D], kernel [h, w, F], stride and padding: those of ResNet, and awkward ones.
CASES = {
    "stem": ((2, 13, 12, 3), (7, 7, 4), 2, 3),
    "same": ((2, 6, 5, 4), (3, 3, 5), 1, 1),
    "halving": ((2, 7, 6, 4), (3, 3, 5), 2, 1),
    "shortcut": ((2, 7, 6, 4), (1, 1, 5), 2, 0),
    "one pixel": ((3, 1, 1, 4), (3, 3, 5), 1, 1),
    "four pixels": ((3, 2, 2, 4), (3, 3, 5), 1, 1),
    "nine pixels": ((2, 3, 3, 4), (3, 3, 5), 1, 1),
    "nine pixels halved": ((2, 3, 3, 4), (3, 3, 5), 2, 1),
    "much padding": ((2, 3, 5, 4), (5, 3, 5), 3, 4),
    "a window beside the image": ((2, 1, 2, 4), (2, 2, 5), 3, 2),
    "oblong kernel": ((2, 9, 8, 2), (2, 5, 3), 3, 2),
    "stride beyond the kernel": ((1, 11, 10, 2), (2, 2, 3), 4, 0),
}


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def both(ours, theirs, *inputs):
    """Checks value and gradients of two functions of `[B, H, W, D]`, by a sum without symmetry."""

    def loss(*inputs):
        y = ours(*inputs)
        return jnp.sum(jnp.sin(y) * jnp.arange(y.size).reshape(y.shape)), y

    (_, y), gradients = jax.jit(jax.value_and_grad(loss, tuple(range(len(inputs))), has_aux=True))(
        *inputs
    )
    given = [torch.from_numpy(x).requires_grad_() for x in inputs]
    expected = theirs(*given)
    (torch.sin(expected) * torch.arange(expected.numel()).reshape(expected.shape)).sum().backward()
    np.testing.assert_allclose(y, expected.detach().numpy(), atol=1e-5, rtol=1e-5)
    for gradient, x in zip(gradients, given, strict=True):
        largest = x.grad.abs().max().item()
        np.testing.assert_allclose(gradient, x.grad.numpy(), atol=1e-5 * largest)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_convolution_is_that_of_torch(case):
    shape, (h, w, f), stride, padding = case
    kernel = drawn(h, w, shape[-1], f, seed=1)

    def theirs(x, kernel):
        x, kernel = x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1)
        y = torch.nn.functional.conv2d(x, kernel, stride=stride, padding=padding)
        return y.permute(0, 2, 3, 1)

    both(lambda x, k: conv2d(x, k, stride, padding), theirs, drawn(*shape), kernel)


@pytest.mark.parametrize("steps, size, stride", [(23, 10, 5), (8, 3, 2), (2, 2, 2), (9, 2, 4)])
def test_convolution_over_time_is_that_of_torch(steps, size, stride):
    def theirs(x, kernel):
        x, kernel = x.permute(0, 2, 1), kernel.permute(2, 1, 0)
        return torch.nn.functional.conv1d(x, kernel, stride=stride).permute(0, 2, 1)

    kernel = drawn(size, 3, 4, seed=1)
    both(lambda x, k: conv1d(x, k, stride), theirs, drawn(2, steps, 3), kernel)


@pytest.mark.parametrize("size", [1, 6, 7, 16, 24])
def test_convolution_in_groups_is_that_of_torch(size):
    """Of 6 features in 3 groups to 9; even kernels give a step more than there was, cut off."""

    def theirs(x, kernel):
        x, kernel = x.permute(0, 2, 1), kernel.permute(2, 1, 0)
        y = torch.nn.functional.conv1d(x, kernel, padding=size // 2, groups=3)
        return y[:, :, : x.shape[2]].permute(0, 2, 1)

    kernel = drawn(size, 2, 9, seed=1)
    both(lambda x, k: grouped_conv1d(x, k, 3), theirs, drawn(2, 11, 6), kernel)


@pytest.mark.parametrize("size, stride, padding", [(3, 2, 1), (2, 2, 0), (3, 1, 1), (4, 3, 2)])
@pytest.mark.parametrize("sides", [(12, 12), (7, 10)])
def test_pooling_is_that_of_torch(sides, size, stride, padding):
    # All below zero: the padding must never be the largest.
    x = drawn(2, *sides, 3) - 10

    def theirs(x):
        y = torch.nn.functional.max_pool2d(x.permute(0, 3, 1, 2), size, stride, padding)
        return y.permute(0, 2, 3, 1)

    both(lambda x: max_pool(x, size, stride, padding), theirs, x)


def test_equal_values_share_the_gradient_of_their_maximum():
    to_x = jax.grad(lambda x: max_pool(x, 2, 2, 0).sum())(jnp.ones((1, 2, 2, 1)))
    np.testing.assert_array_equal(to_x[0, ..., 0], np.full((2, 2), 0.25))


def steps(images, kernels):
    """Returns a kernel `[3, 3, D, D]` after a step of gradient descent on each of the images."""

    def step(kernel, x):
        loss = lambda kernel: jnp.sum(jnp.square(max_pool(conv2d(x, kernel, 1, 1))))  # noqa: E731
        return kernel - 1e-3 * jax.grad(loss)(kernel), None

    return lax.scan(step, kernels, images)[0]


def test_transforms_agree():
    """A scan of gradients under jit, vmap and pmap, against the loop without any of them."""
    images, kernels = drawn(2, 3, 4, 5, 4, 2), 0.3 * drawn(2, 3, 3, 2, 2, seed=1)
    alone = np.stack([steps(x, k) for x, k in zip(images, kernels, strict=True)])
    np.testing.assert_allclose(jax.jit(jax.vmap(steps))(images, kernels), alone, atol=1e-6)
    mapped = jax.pmap(steps)(images[:1], kernels[:1])
    np.testing.assert_allclose(mapped, alone[:1], atol=1e-6)
    by_hand = kernels[0]
    for x in images[0]:
        given, kernel = torch.from_numpy(x), torch.from_numpy(by_hand).requires_grad_()
        y = torch.nn.functional.conv2d(
            given.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1), padding=1
        )
        torch.nn.functional.max_pool2d(y, 3, 2, 1).square().sum().backward()
        by_hand = by_hand - 1e-3 * kernel.grad.numpy()
    np.testing.assert_allclose(alone[0], by_hand, atol=1e-5)


def test_program_holds_one_of_the_two():
    """A CPU never convolves, forward or backward; an accelerator never makes windows."""
    x, kernel = drawn(2, 6, 6, 3), drawn(3, 3, 3, 4, seed=1)
    step = jax.jit(jax.grad(lambda k: jnp.square(conv2d(x, k, 1, 1)).sum()))
    program = {
        platform: step.trace(kernel).lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda")
    }
    assert "stablehlo.convolution" not in program["cpu"] and "dot_general" in program["cpu"]
    assert "stablehlo.convolution" in program["cuda"] and "dot_general" not in program["cuda"]
