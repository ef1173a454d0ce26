"""Class prompts with a shared prefix against every text in full, in turn, in one process.

    python -m tests.benchmarks.class_prompts --steps=5

The text tower of CLIP ViT-B/32, batch 16, 11 classes, prompts of 1 + 64 + 4 tokens (SOS, prompt
tokens, a class name of up to two, a full stop, EOS); features and the gradient to the prefix,
the tower frozen. Prints medians, the ratio (median of the pairs' ratios) and the differences.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from affectjax.models.clip import TextTower

_STEPS = flags.DEFINE_integer("steps", 5, "Pairs of steps that are timed, after one that is not.")
_CHUNK = flags.DEFINE_integer(
    "chunk", 16, "Examples a piece of the plain forward; fewer take less memory."
)

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


def stepper(forward, tower, variables, prefix, suffix, mask, towards, chunk):
    """Returns a function that gives the features and the gradient to the prefix, and waits."""

    @jax.jit
    def piece(variables, prefix, suffix, mask, towards):
        features, back = jax.vjp(lambda x: forward(tower, variables, x, suffix, mask), prefix)
        return features, back(towards)[0]

    def step():
        parts = [
            piece(variables, prefix[i : i + chunk], suffix, mask, towards[i : i + chunk])
            for i in range(0, len(prefix), chunk)
        ]
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    return step


def timed(step) -> float:
    """Returns the seconds that a call takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main(argv):
    """Times both in turn and prints what came out."""
    del argv
    tower = TextTower(49408, 77, 512, 12, 8, 2048, 512)
    given = inputs(tower)
    ours = stepper(shared, tower, *given, BATCH)
    theirs = stepper(plain, tower, *given, _CHUNK.value)
    pairs = zip(ours(), theirs(), strict=True)
    feature, gradient = (np.abs(a - b).max() / np.abs(b).max() for a, b in pairs)
    times = np.array([(timed(ours), timed(theirs)) for _ in range(_STEPS.value)])
    a, b = np.median(times, axis=0)
    ratio = np.median(times[:, 1] / times[:, 0])
    print(f"shared prefix {1000 * a:.0f} ms, in full {1000 * b:.0f} ms, medians of {len(times)}")
    print(f"in full / shared prefix: {ratio:.2f}")
    print(
        f"largest difference over the largest value: features {feature:.1e}, "
        f"gradients {gradient:.1e}"
    )


if __name__ == "__main__":
    app.run(main)
