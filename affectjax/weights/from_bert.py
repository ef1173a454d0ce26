"""BERT from a local Hugging Face folder.

Letters: D width.
"""

import dataclasses
from pathlib import Path
from typing import Any

from affectjax.errors import InputError
from affectjax.runtime import hub
from affectjax.weights.folder import Tensors, Tree, architecture, read_config, stacked

# Heads are left out: they are listed as unused.
ARCHITECTURES = (
    "BertModel",
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertForSequenceClassification",
)


@dataclasses.dataclass(frozen=True)
class BertWeights:
    """What a folder with BERT's weights holds.

    Attributes:
      args: arguments of `models.bert.Bert`.
      params: its parameters, float32 arrays of NumPy.
      unused: names of the tensors that no parameter was made of: the pooler, heads.
      missing: always empty, for none of BERT's tensors may lack.
    """

    args: dict[str, Any]
    params: Tree
    unused: tuple[str, ...]
    missing: tuple[str, ...] = ()


def bert(folder: str | Path) -> BertWeights:
    """Returns BERT without pooler and heads, from a local Hugging Face folder.

    Args:
      folder: config.json and safetensors of one of `ARCHITECTURES`.

    Raises:
      InputError: it is another architecture, or a file or a tensor is missing or damaged.
    """
    from transformers import BertConfig  # Here, because it takes seconds.

    folder = hub.local(folder)
    architecture(folder, ARCHITECTURES)
    config = read_config(folder, BertConfig)
    kind = getattr(config, "position_embedding_type", "absolute")
    if kind != "absolute":
        raise InputError(
            f"{folder / 'config.json'}: position_embedding_type is {kind!r}; allowed: 'absolute'"
        )
    args = {
        "vocab": config.vocab_size,
        "length": config.max_position_embeddings,
        "types": config.type_vocab_size,
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "hidden": config.intermediate_size,
        "epsilon": config.layer_norm_eps,
        "activation": config.hidden_act,
    }
    tensors = Tensors(folder, prefix="bert.")
    params = _params(tensors, args)
    return BertWeights(args, params, tensors.close())


def _params(tensors: Tensors, args: dict[str, Any]) -> Tree:
    """Returns the parameters of `models.bert.Bert`."""
    width, hidden = args["width"], args["hidden"]

    def layer(i: int) -> Tree:
        at = f"encoder.layer.{i}"
        return {
            **{
                name: tensors.linear(f"{at}.attention.self.{name}", width, width)
                for name in ("query", "key", "value")
            },
            "out": tensors.linear(f"{at}.attention.output.dense", width, width),
            "attention_norm": tensors.norm(f"{at}.attention.output.LayerNorm", width),
            "up": tensors.linear(f"{at}.intermediate.dense", width, hidden),
            "down": tensors.linear(f"{at}.output.dense", hidden, width),
            "feed_norm": tensors.norm(f"{at}.output.LayerNorm", width),
        }

    def table(name: str, rows: int):
        return tensors.take(f"embeddings.{name}_embeddings.weight", rows, width)

    return {
        "token": table("word", args["vocab"]),
        "position": table("position", args["length"]),
        "type": table("token_type", args["types"]),
        "first_norm": tensors.norm("embeddings.LayerNorm", width),
        "blocks": stacked([layer(i) for i in range(args["layers"])]),
    }
