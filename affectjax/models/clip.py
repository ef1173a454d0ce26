"""CLIP's image and text towers, and class prompts that share their prefix.

Source: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
Supervision"; the parameters hold what the published checkpoints hold.
Letters: B examples, T tokens, D width, H heads, P tokens of a prefix, C classes, S tokens of a
class, Tq tokens that ask.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax

from affectjax.errors import InputError
from affectjax.models.layers import check_heads, layer_norm
from affectjax.ops import masking
from affectjax.ops.attention import masked_softmax

normal = nn.initializers.normal

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
}


def activate(name: str, x: jax.Array) -> jax.Array:
    """Returns the activation `name` of `x`; an InputError where there is none of that name."""
    if name not in ACTIVATIONS:
        raise InputError(f"activation {name!r} is none of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name](x)


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, heads: int, allowed: jax.Array | None
) -> jax.Array:
    """Returns what each token gathers, by multi-head attention with a float32 softmax.

    Args:
      query: `[B, Tq, D]`.
      key: `[B, T, D]`.
      value: `[B, T, D]`.
      heads: H.
      allowed: bool, broadcastable to `[B, H, Tq, T]`, or None. A token that may attend to nothing
        gathers zeros.

    Returns:
      `[B, Tq, D]`.
    """
    query, key, value = (rearrange(x, "b t (h d) -> b h t d", h=heads) for x in (query, key, value))
    scores = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32)
    weights = masked_softmax(scores * query.shape[-1] ** -0.5, allowed).astype(value.dtype)
    return rearrange(jnp.einsum("bhqk,bhkd->bhqd", weights, value), "b h t d -> b t (h d)")


def stack_of(block: nn.Module, layers: int) -> Callable[[jax.Array], dict]:
    """Returns an initialiser of `layers` times the parameters of `block`, stacked."""

    def draw(key):
        example = jnp.zeros((1, 1, block.width), block.dtype)
        keys = jax.random.split(key, layers)
        return jax.vmap(lambda k: block.init(k, example, None)["params"])(keys)

    return draw


def run(block: nn.Module, params: dict, x: jax.Array, allowed: jax.Array | None) -> jax.Array:
    """Returns `x` `[B, T, D]` after the layers of `params` `[layers, ...]`, compiled once."""

    def layer(x, params):
        return block.apply({"params": params}, x, allowed), None

    return lax.scan(layer, x, params)[0]


class Block(nn.Module):
    """One pre-norm layer: attention, then an MLP, each added to its input.

    Attributes:
      width: D.
      heads: H, a divisor of D.
      hidden: units of the MLP.
      depth: layers of the tower, for the initialisation.
      activation: of the MLP, a name in `ACTIVATIONS`.
      epsilon: of the layer norms.
      dtype: in which to compute; the norms and the softmax are in float32, as are all parameters.
    """

    width: int
    heads: int
    hidden: int
    depth: int
    activation: str = "quick_gelu"
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, allowed: jax.Array | None, places: jax.Array | None = None
    ) -> jax.Array:
        """Maps `[B, T, D]` to `[B, T, D]`, or to `[B, Tq, D]` for the tokens at `places` alone.

        Args:
          x: `[B, T, D]`.
          allowed: bool, broadcastable to `[B, H, Tq, T]`: who may attend to whom; None for all.
          places: `[Tq]` int, the tokens whose result is wanted; None for all, in order.
        """
        dense = functools.partial(nn.Dense, dtype=self.dtype)
        norm = functools.partial(layer_norm, epsilon=self.epsilon)
        inward = normal(self.width**-0.5)
        # What enters the residual stream is the smaller the more layers add to it.
        outward = normal(self.width**-0.5 * (2 * self.depth) ** -0.5)
        y = norm("attention_norm")(x)
        key = dense(self.width, kernel_init=inward, name="key")(y)
        value = dense(self.width, kernel_init=inward, name="value")(y)
        if places is not None:
            x, y = x[:, places], y[:, places]
        query = dense(self.width, kernel_init=inward, name="query")(y)
        y = attend(query, key, value, self.heads, allowed)
        x = x + dense(self.width, kernel_init=outward, name="out")(y)
        y = norm("feed_norm")(x)
        y = dense(self.hidden, kernel_init=normal((2 * self.width) ** -0.5), name="up")(y)
        y = activate(self.activation, y)
        return x + dense(self.width, kernel_init=outward, name="down")(y)


class ImageTower(nn.Module):
    """The vision transformer of CLIP.

    Attributes:
      image_size: side of an image in pixels, a multiple of `patch`.
      patch: side of a patch in pixels.
      width: D.
      layers: number of layers.
      heads: H.
      hidden: units of the MLPs.
      projection: size of the feature.
      activation, epsilon, dtype: see `Block`.
    """

    image_size: int
    patch: int
    width: int
    layers: int
    heads: int
    hidden: int
    projection: int
    activation: str = "quick_gelu"
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps images to their features.

        Args:
          images: `[B, image_size, image_size, 3]` float, normalised as the weights ask.

        Returns:
          `[B, projection]` float32, and `last` `[B, 1 + patches, D]` and `pooled` `[B, D]`, the
          class token after the last norm.

        Raises:
          InputError: the images have another size, or sizes of the tower do not fit each other.
        """
        check_heads(self.width, self.heads)
        if self.image_size % self.patch:
            raise InputError(
                f"an image size of {self.image_size} is not a multiple of the patch {self.patch}"
            )
        if images.shape[1:] != (self.image_size, self.image_size, 3):
            raise InputError(
                f"images of shape {images.shape[1:]} reach a tower for "
                f"{(self.image_size, self.image_size, 3)}"
            )
        side = self.patch
        patches = rearrange(images, "b (h p) (w q) c -> b (h w) (p q c)", p=side, q=side)
        embed = nn.Dense(
            self.width, use_bias=False, kernel_init=normal(0.02), dtype=self.dtype, name="patches"
        )
        first = self.param("class_token", normal(self.width**-0.5), (self.width,))
        table = self.param("position", normal(0.01), (1 + patches.shape[1], self.width))
        first = jnp.broadcast_to(first, (len(images), 1, self.width))
        x = jnp.concatenate([first, embed(patches)], axis=1) + table
        x = layer_norm("first_norm", self.epsilon)(x).astype(self.dtype)
        block = _block_of(self)
        x = run(block, self.param("blocks", stack_of(block, self.layers)), x, None)
        pooled = layer_norm("last_norm", self.epsilon)(x[:, 0])
        projected = _project(self, "project")(pooled)
        return projected, {"last": x, "pooled": pooled}


class TextTower(nn.Module):
    """The causal transformer of CLIP.

    Attributes:
      vocab: number of tokens.
      length: the most tokens in a text.
      width: D.
      layers: number of layers.
      heads: H.
      hidden: units of the MLPs.
      projection: size of the feature.
      activation, epsilon, dtype: see `Block`.
    """

    vocab: int
    length: int
    width: int
    layers: int
    heads: int
    hidden: int
    projection: int
    activation: str = "quick_gelu"
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        """Makes the parameters, the same ones whichever method comes first."""
        check_heads(self.width, self.heads)
        self.token = self.param("token", normal(0.02), (self.vocab, self.width))
        self.position = self.param("position", normal(0.01), (self.length, self.width))
        self.blocks = self.param("blocks", stack_of(_block_of(self), self.layers))
        self.last_norm = layer_norm(epsilon=self.epsilon)
        self.project = _project(self)

    def __call__(
        self, tokens: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps texts to their features, taken at the last valid token.

        Args:
          tokens: `[B, T]` int32.
          mask: `[B, T]` bool, true at valid tokens.

        Returns:
          `[B, projection]` float32, and `last` `[B, T, D]` and `pooled` `[B, D]`; zeros for
          masked tokens and for a text without any.

        Raises:
          InputError: T is greater than `length`.
        """
        steps = tokens.shape[1]
        if steps > self.length:
            raise InputError(f"texts of {steps} tokens reach a tower for at most {self.length}")
        # What stands at a masked place need not be a token.
        x = self.embed(jnp.where(mask, tokens, 0)) + self.position[:steps]
        allowed = jnp.tril(jnp.ones((steps, steps), bool)) & mask[:, None, None, :]
        x = run(_block_of(self), self.blocks, x.astype(self.dtype), allowed)
        last = masking.zero_masked(self.last_norm(x), mask)
        pooled = masking.last_valid(last, mask)
        return self.project(pooled), {"last": last, "pooled": pooled}

    def embed(self, tokens: jax.Array) -> jax.Array:
        """Returns the embeddings `[..., D]` float32 of `tokens` `[...]`, without positions."""
        return self.token[tokens]

    def class_prompts(
        self, prefix: jax.Array, suffix: jax.Array, suffix_mask: jax.Array
    ) -> jax.Array:
        """Returns the features of the texts `[prefix of an example][suffix of a class]`.

        The tower is causal, so a prefix is the same whatever follows it: each is run once, with
        the suffixes of all classes side by side after it. A suffix attends to the prefix and to
        itself and stands at the positions P, P + 1, ..., as if it were alone. Equal to
        `__call__` on all B * C texts. In the last layer only the last token of a class asks.

        Args:
          prefix: `[B, P, D]` token embeddings, as `embed` gives them, all valid.
          suffix: `[C, S]` int32.
          suffix_mask: `[C, S]` bool, true at valid tokens.

        Returns:
          `[B, C, projection]` float32, taken at the last valid token of each suffix; zeros for a
          suffix without any.

        Raises:
          InputError: P + S is greater than `length`.
        """
        p, (c, s) = prefix.shape[1], suffix.shape
        if p + s > self.length:
            raise InputError(
                f"a prefix of {p} and a suffix of {s} tokens reach a tower for at most "
                f"{self.length} tokens"
            )
        tails = self.embed(jnp.where(suffix_mask, suffix, 0)) + self.position[p : p + s]
        tails = jnp.broadcast_to(tails.reshape(c * s, -1), (len(prefix), c * s, self.width))
        x = jnp.concatenate([prefix + self.position[:p], tails], axis=1).astype(self.dtype)

        # [P + C S, P + C S]: to the prefix, or within the same class, and never ahead.
        owner = jnp.concatenate([jnp.full(p, -1), jnp.repeat(jnp.arange(c), s)])
        valid = jnp.concatenate([jnp.ones(p, bool), suffix_mask.reshape(-1)])
        kin = (owner == -1) | (owner[:, None] == owner)
        allowed = jnp.tril(kin & valid)

        block = _block_of(self)
        earlier, last = (jax.tree.map(lambda a, i=i: a[i], self.blocks) for i in (slice(-1), -1))
        x = run(block, earlier, x, allowed)
        ends = p + jnp.arange(c) * s + s - 1 - jnp.argmax(suffix_mask[:, ::-1], axis=-1)
        x = block.apply({"params": last}, x, allowed[ends], ends)
        pooled = masking.zero_masked(self.last_norm(x), suffix_mask.any(-1))
        return self.project(pooled)


def _block_of(tower: ImageTower | TextTower) -> Block:
    """Returns the layer of a tower, outside of any module: its parameters are stacked."""
    return Block(
        tower.width,
        tower.heads,
        tower.hidden,
        tower.layers,
        tower.activation,
        tower.epsilon,
        tower.dtype,
        parent=None,
    )


def _project(tower: ImageTower | TextTower, name: str | None = None) -> nn.Dense:
    """Returns the map from D to the feature, in float32 as what follows it."""
    return nn.Dense(
        tower.projection, use_bias=False, kernel_init=normal(tower.width**-0.5), name=name
    )
