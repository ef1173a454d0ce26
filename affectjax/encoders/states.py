"""Sentences to the states of their tokens, in place of features of text, for models of sequences.

BERT makes them, and LoRA adapts it while the model above trains; its own weights stay.

Letters: B examples, T tokens, D features.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from affectjax import weights
from affectjax.data.batches.inputs import Inputs, Text
from affectjax.encoders import adaptation, check_words
from affectjax.encoders.adaptation import Adaptation
from affectjax.errors import InputError
from affectjax.models.bert import Bert

Tree = Any
# Among the parameters of a model.
TOWER = "text_tower"


@dataclasses.dataclass(frozen=True)
class States:
    """BERT below a model of feature sequences, `text` "bert".

    Attributes:
      bert_weights: a folder with its weights, or its name on the hub, which is the data's
        `tokenizer` too.
      tuned_layers: how many of its highest layers LoRA adapts, 0 for all. Those below get no
        gradient, which saves the time of it.
    """

    bert_weights: str = ""
    tuned_layers: int = 0

    def __post_init__(self):
        if not self.bert_weights:
            raise ValueError("bert_weights is empty; give a local folder with BERT's weights")
        if self.tuned_layers < 0:
            raise ValueError(f"tuned_layers is {self.tuned_layers}; allowed: 0 or more")


def parts(section: Mapping[str, Any]) -> tuple[type, ...]:
    """Returns the parts of `config.model` where BERT reads its text.

    Args:
      section: its keys and values; of a `lora_rank` of 0 the other keys of LoRA are not read.
    """
    adapted = section.get("lora_rank", adaptation.Rank.lora_rank)
    return States, Adaptation if adapted else adaptation.Rank


class StateTower:
    """BERT with the weights of a folder, and what LoRA adds to it.

    Attributes:
      pretrained: its parameters, under the name that they have in a model.
    """

    frozen: ClassVar[str] = f"{TOWER}/"

    def __init__(self, settings: States, rank: adaptation.Rank, inputs: Inputs):
        """Reads the weights.

        Args:
          settings: of the tower.
          rank: `Adaptation`, or a rank of 0 for a tower that stays as it is.
          inputs: what the batches hold: text in words.

        Raises:
          InputError: the data has no text in words or other tokens, or no such weights.
        """
        if not isinstance(inputs.kinds.get("text"), Text):
            raise InputError(
                '"config.model.text" is "bert", which reads sentences; set "config.data.words" to '
                "True for data that has them"
            )
        found = weights.bert(settings.bert_weights)
        check_words(inputs.tokenizer, settings.bert_weights, "config.data")
        layers = found.args["layers"]
        if settings.tuned_layers > layers:
            raise InputError(
                f'"config.model.tuned_layers" is {settings.tuned_layers}, but '
                f"{settings.bert_weights} has {layers} layers; allowed: at most so many"
            )
        self._adaptation = rank if isinstance(rank, Adaptation) else None
        tuned = (settings.tuned_layers or layers) if self._adaptation else 0
        self._still = layers - tuned
        self._width = found.args["width"]
        self._module = Bert(**found.args, still=self._still)
        self.pretrained = {TOWER: found.params}

    def init(self, key: jax.Array, batch: Mapping[str, Any]) -> tuple[Tree, Mapping[str, Any]]:
        """Returns new parameters, and the batch as the model above sees it.

        Args:
          key: of the draw.
          batch: with text in tokens.
        """
        tokens, mask = batch["text"]["x"], batch["text"]["mask"]
        params = {TOWER: self._module.init(key, tokens, mask)["params"]}
        if self._adaptation:
            params[Adaptation.name] = self._adaptation.init(key, self._tuned(params))
        states = jnp.zeros((*tokens.shape, self._width))
        return params, {**batch, "text": {"x": states, "mask": mask}}

    def read(
        self, params: Tree, batch: Mapping[str, Any], key: jax.Array | None
    ) -> tuple[Tree, Mapping[str, Any]]:
        """Returns the parameters of the model above, and the batch as it sees it.

        Args:
          params: of both.
          batch: with text in tokens `[B, T]`, of which come states `[B, T, D]`.
          key: of a training step, the same on every device; None in evaluation.
        """
        params = dict(params)
        tower = params.pop(TOWER)
        if self._adaptation:
            added = params.pop(Adaptation.name)
            tuned = self._adaptation.adapt(self._tuned({TOWER: tower}), added, key)[TOWER]
            join = lambda own, high: jnp.concatenate([own[: self._still], high])  # noqa: E731
            tower = tower | {"blocks": jax.tree.map(join, tower["blocks"], tuned["blocks"])}
        text = batch["text"]
        _, out = self._module.apply({"params": tower}, text["x"], text["mask"])
        return params, {**batch, "text": {"x": out["last"], "mask": text["mask"]}}

    def _tuned(self, params: Tree) -> dict[str, Tree]:
        """Returns by name the layers that LoRA adapts."""
        blocks = jax.tree.map(lambda x: x[self._still :], params[TOWER]["blocks"])
        return {TOWER: {"blocks": blocks}}
