"""What one modality does at the moment at which another one stands out.

The stressed word of a sentence is told by the voice, and at which word a face moves may say which
of two emotions is meant. No mean over time within a modality has that, and attention between
sequences without a common clock finds it only with many examples. Here the clock is given: moments
of two modalities are as near as their shares of the whole length.

Letters: B examples, T steps (Tt of the target, Ts of a source), D width, D_m features, H heads.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from affectjax.models.layers import Conv1d, Dropout
from affectjax.ops import attention, masking

# The deviation of the nearness of two moments at first, as a share of the whole length.
SPREAD = 0.14
# Of the scores at first: moments that stand out a little already count for more.
SCALE = 3.0


class Coincidence(nn.Module):
    """A target's steps, averaged by how near they are to the moments of each source that count.

    Which moments these are is a softmax over the source's steps; each head has its own.

    Attributes:
      width: D.
      heads: H.
      dropout: rate of what the moments are told by.
      axis_name: see `models.layers.Dropout`.
    """

    width: int
    heads: int
    dropout: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        target: jax.Array,
        target_mask: jax.Array,
        sources: dict[str, jax.Array],
        source_masks: dict[str, jax.Array],
        *,
        train: bool,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps target `[B, Tt, D_m]` and sources `[B, Ts, D_m]` to `[B, S H D]` of S sources.

        Returns also `moments/<source>` `[B, H, Ts]`, which add to one where the source is there.
        """
        found, out = [], {}
        for s, x in sources.items():
            mask = source_masks[s]
            # Relative to the whole clip: how somebody looks and sounds tells no moment.
            around = masking.centred(x, mask)
            seen = nn.relu(Conv1d(self.width, 3, name=f"see_{s}")(around))
            seen = Dropout(self.dropout, self.axis_name)(seen, train=train)
            scores = SCALE * nn.Dense(self.heads, name=f"score_{s}")(seen)
            moments = attention.masked_softmax(scores.swapaxes(1, 2), mask[:, None])
            rate = self.param(
                f"rate_{s}", nn.initializers.constant(-jnp.log(SPREAD)), (self.heads,)
            )
            apart = masking.shares(target_mask)[:, :, None] - masking.shares(mask)[:, None]
            near = jnp.exp(-0.5 * jnp.square(apart[:, None] * jnp.exp(rate)[:, None, None]))
            weights = jnp.einsum("bhqk,bhk->bhq", near, moments) * target_mask[:, None]
            total = weights.sum(-1, keepdims=True)
            # The floor decides nothing but that a source or target that is absent gives zeros.
            weights = weights / (total + 1e-3)
            value = nn.Dense(self.width, name=f"value_{s}")(target)
            found.append(jnp.einsum("bhq,bqd->bhd", weights, value).reshape(len(x), -1))
            out[f"moments/{s}"] = moments
        return jnp.concatenate(found, axis=-1), out
