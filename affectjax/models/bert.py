"""BERT: a sentence's tokens, each told by its whole sentence, and their mean.

Source: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding"; the mean as in Reimers and Gurevych 2019, "Sentence-BERT".
Letters: B examples, T tokens, D width, H heads.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from affectjax.errors import InputError
from affectjax.models.clip import activate, attend, run, stack_of
from affectjax.models.layers import check_heads, layer_norm
from affectjax.ops import masking

init = nn.initializers.normal(0.02)


class PostNormBlock(nn.Module):
    """One layer: attention, then an MLP, each added to its input and normalised after.

    Attributes:
      width: D.
      heads: H, a divisor of D.
      hidden: units of the MLP.
      activation: of the MLP, a name in `models.clip.ACTIVATIONS`.
      epsilon: of the layer norms.
      dtype: in which to compute; the norms and the softmax are in float32, as are all parameters.
    """

    width: int
    heads: int
    hidden: int
    activation: str
    epsilon: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, allowed: jax.Array | None) -> jax.Array:
        """Maps `[B, T, D]` to `[B, T, D]`; `allowed` says who may attend to whom, None for all."""
        dense = functools.partial(nn.Dense, kernel_init=init, dtype=self.dtype)
        norm = functools.partial(layer_norm, epsilon=self.epsilon)
        query, key, value = (dense(self.width, name=n)(x) for n in ("query", "key", "value"))
        y = dense(self.width, name="out")(attend(query, key, value, self.heads, allowed))
        x = norm("attention_norm")(x + y).astype(self.dtype)
        y = activate(self.activation, dense(self.hidden, name="up")(x))
        y = dense(self.width, name="down")(y)
        return norm("feed_norm")(x + y).astype(self.dtype)


class Bert(nn.Module):
    """BERT without pooler and heads, for one sentence at a time (type 0).

    Attributes:
      vocab: number of tokens.
      length: the most tokens in a sentence.
      types: sentences that a pair has, for the parameters' sake.
      width: D.
      layers: number of layers.
      heads: H.
      hidden: units of the MLPs.
      epsilon, activation, dtype: see `PostNormBlock`.
      still: how many of the lowest layers, and the embeddings below them, get no gradient; with 0
        everything gets one.
    """

    vocab: int
    length: int
    types: int
    width: int
    layers: int
    heads: int
    hidden: int
    epsilon: float = 1e-12
    activation: str = "gelu"
    dtype: jnp.dtype = jnp.float32
    still: int = 0

    @nn.compact
    def __call__(
        self, tokens: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps sentences to the mean of their tokens.

        Args:
          tokens: `[B, T]` int32.
          mask: `[B, T]` bool, true at valid tokens.

        Returns:
          `[B, D]` float32, and `last` `[B, T, D]`; zeros for masked tokens and for a sentence
          without any.

        Raises:
          InputError: T is greater than `length`, or the heads do not divide D.
        """
        check_heads(self.width, self.heads)
        steps = tokens.shape[1]
        if steps > self.length:
            raise InputError(f"texts of {steps} tokens reach a tower for at most {self.length}")
        token = self.param("token", init, (self.vocab, self.width))
        position = self.param("position", init, (self.length, self.width))
        kind = self.param("type", init, (self.types, self.width))
        # What stands at a masked place need not be a token.
        x = token[jnp.where(mask, tokens, 0)] + kind[0] + position[:steps]
        x = layer_norm("first_norm", self.epsilon)(x).astype(self.dtype)
        block = PostNormBlock(
            self.width,
            self.heads,
            self.hidden,
            self.activation,
            self.epsilon,
            self.dtype,
            parent=None,
        )
        params = self.param("blocks", stack_of(block, self.layers))
        allowed = mask[:, None, None, :]
        if self.still:
            low = jax.tree.map(lambda leaf: leaf[: self.still], params)
            x = lax.stop_gradient(run(block, lax.stop_gradient(low), lax.stop_gradient(x), allowed))
            params = jax.tree.map(lambda leaf: leaf[self.still :], params)
        x = run(block, params, x, allowed)
        last = masking.zero_masked(x.astype(jnp.float32), mask)
        return masking.masked_mean(last, mask), {"last": last}
