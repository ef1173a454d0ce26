"""Class prompts with a shared prefix against every text in full.

    python -m tests.benchmarks.class_prompts

The text tower of CLIP ViT-B/32, batch 16, 11 classes, prompts of 1 + 64 + 4 tokens (SOS, prompt
tokens, a class name of up to two, a full stop, EOS); features and the gradient to the prefix,
the tower frozen.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from affectjax.models.clip import TextTower
from tests.benchmarks import timing

BATCH, CLASSES, PROMPT, SUFFIX = 16, 11, 64, 4


def inputs(tower: TextTower):
    """Returns parameters, prefix `[B, 1 + 64, D]`, suffixes `[C, 4]`, their mask and a cotangent.

    Every third class name is a token longer than the others.
    """
    tokens = jnp.zeros((1, 1), jnp.int32)
    variables = jax.jit(tower.init)(jax.random.key(0), tokens, tokens == 0)
    rng = np.random.default_rng(0)
    prefix = 0.02 * rng.standard_normal((BATCH, 1 + PROMPT, tower.width)).astype(np.float32)
    suffix = rng.integers(0, tower.vocab, (CLASSES, SUFFIX)).astype(np.int32)
    mask = np.arange(SUFFIX) < np.where(np.arange(CLASSES) % 3, SUFFIX - 1, SUFFIX)[:, None]
    towards = rng.standard_normal((BATCH, CLASSES, tower.projection)).astype(np.float32)
    return variables, prefix, suffix, mask, towards


def normed(features: jax.Array) -> jax.Array:
    """Returns features of length one, which is how prompts are compared with clips."""
    return features / jnp.linalg.norm(features, axis=-1, keepdims=True)


def shared(tower, variables, prefix, suffix, mask):
    """Returns `[B, C, projection]`."""
    return normed(tower.apply(variables, prefix, suffix, mask, method="class_prompts"))


def plain(tower, variables, prefix, suffix, mask):
    """Returns the same through the tower's own forward, on B * C texts.

    Embeddings reach the tower as the rows of a vocabulary of their own.
    """
    (b, p, d), (c, s) = prefix.shape, suffix.shape
    table = jnp.concatenate(
        [variables["params"]["token"][suffix.reshape(-1)], prefix.reshape(-1, d)]
    )
    tails = jnp.broadcast_to(jnp.arange(c * s).reshape(c, s), (b, c, s))
    heads = jnp.broadcast_to(c * s + jnp.arange(b * p).reshape(b, 1, p), (b, c, p))
    valid = [jnp.ones((b, c, p), bool), jnp.broadcast_to(mask, (b, c, s))]
    tokens, valid = (jnp.concatenate(x, -1).reshape(b * c, -1) for x in ([heads, tails], valid))
    variables = {"params": variables["params"] | {"token": table}}
    features, _ = tower.clone(vocab=len(table)).apply(variables, tokens, valid)
    return normed(features.reshape(b, c, -1))


def program(forward, tower, *given) -> timing.Program:
    """Returns what gives the features and the gradient to the prefix."""

    def step(variables, prefix, suffix, mask, towards):
        features, back = jax.vjp(lambda x: forward(tower, variables, x, suffix, mask), prefix)
        return features, back(towards)[0]

    return timing.compiled(jax.jit(step), *given)


def rows(setting: timing.Setting) -> Iterator[timing.Row]:
    """Times both, forward and backward."""
    tower = TextTower(49408, 77, 512, 12, 8, 2048, 512)
    given = jax.device_put(inputs(tower))
    ours, full = program(shared, tower, *given), program(plain, tower, *given)
    note = timing.difference(*([np.asarray(x) for x in p.run(*given)] for p in (ours, full)))
    yield timing.row(
        "class_prompts", lambda: ours.run(*given), setting, "every text in full",
        lambda: full.run(*given), program=ours, note=note,
    )  # fmt: skip


if __name__ == "__main__":
    timing.main(rows)
