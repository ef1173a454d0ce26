"""Tokenizers: trained on the spot, saved, loaded, and those of pretrained folders."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
import transformers

from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.errors import InputError

TEXTS = [
    "I am so happy today", "this is awful, really awful", "happy people are happy",
    "мне очень грустно сегодня", "我今天很高兴", "أنا سعيد جدا اليوم", None, "", "  ",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained():
    return Tokenizer.train(TEXTS, vocab=320)


def decoded(tokenizer, ids):
    """Returns the text of byte-level tokens, through the table of bytes of GPT-2's paper."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(b): b for b in shown}
    letters |= {chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in shown)}
    content = json.loads(tokenizer._backend.to_str())["model"]["vocab"]
    names = {number: name for name, number in content.items()}
    return bytes(letters[c] for i in ids for c in names[i]).decode()


def test_special_tokens_and_size(trained):
    assert (trained.pad, trained.sos, trained.eos) == (0, 1, 2)
    assert 259 < trained.vocab <= 320
    assert Tokenizer.train([], vocab=259).vocab == 259
    with pytest.raises(InputError, match="tokenizer of 258 tokens is too small: at least 259"):
        Tokenizer.train(TEXTS, vocab=258)


@pytest.mark.parametrize(
    "text", ["happy", "unseen words!", "грустно", "很好", "سعيد", "🙂\t\n z̧", "<eos> <pad> <sos>"]
)
def test_any_script_is_read_without_unknowns(trained, text):
    ids = trained.words(text)
    assert decoded(trained, ids).strip() == text.strip()
    assert min(ids) > 2 and max(ids) < trained.vocab  # what a person writes is no special token


def test_case_and_place_of_a_word_do_not_matter(trained):
    (happy,) = trained.words("happy")  # seen often enough to be one token
    assert trained.words("HAPPY") == [happy]
    assert trained.words("z happy z").count(happy) == 1


def test_rows_are_framed_cut_and_padded(trained):
    words = trained.words("happy unseen")
    assert len(words) > 3
    ids, mask = trained.encode(["happy", "happy unseen", None, "", " \n"], 4)
    assert (ids.dtype, mask.dtype, ids.shape) == (np.int32, np.bool_, (5, 4))
    expected = [[1, words[0], 2, 0], [1, words[0], words[1], 2], *[[0, 0, 0, 0]] * 3]
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_array_equal(mask, np.array(expected) > 0)
    ids, mask = trained.encode([], 4)
    assert ids.shape == mask.shape == (0, 4)
    np.testing.assert_array_equal(trained.encode(["happy"], 2)[0], [[1, 2]])
    with pytest.raises(InputError, match="texts of 1 tokens have no room for SOS and EOS"):
        trained.encode(["happy"], 1)


def test_ten_thousand_words(trained):
    ids, mask = trained.encode(["happy " * 10_000, "happy"], 77)
    assert mask[0].all() and ids[0, 0] == 1 and ids[0, -1] == 2
    assert mask[1].sum() == 3
    assert len(trained.words("happy " * 10_000)) >= 10_000


def test_training_does_not_depend_on_the_order(trained):
    shuffled = random.Random(0).sample(TEXTS, len(TEXTS))
    other = Tokenizer.train(iter(shuffled), vocab=320)
    assert other._backend.to_str() == trained._backend.to_str()


def test_saved_and_loaded(trained, tmp_path):
    trained.save(tmp_path / "tokenizer")
    loaded = Tokenizer.load(tmp_path / "tokenizer")
    for name in ("vocab", "sos", "eos", "pad"):
        assert getattr(loaded, name) == getattr(trained, name)
    for a, b in zip(loaded.encode(TEXTS, 9), trained.encode(TEXTS, 9), strict=True):
        np.testing.assert_array_equal(a, b)
    text = "a person wrote <eos> here"
    assert loaded.words(text) == trained.words(text)


def test_folder_of_clip(tmp_path):
    """The layout of the published folders: vocab.json and merges.txt; padding is EOS."""
    words = ["<|startoftext|>", "<|endoftext|>", "a", "sad", "sad</w>", "a</w>", "s", "ad", "d</w>"]
    words += ["ad</w>", "s</w>", "d", "!", "!</w>"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na d</w>\ns ad</w>\n")
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "CLIPTokenizer",
                "bos_token": "<|startoftext|>",
                "eos_token": "<|endoftext|>",
                "unk_token": "<|endoftext|>",
                "pad_token": "<|endoftext|>",
            }
        )
    )
    clip = Tokenizer.load(tmp_path)
    assert (clip.sos, clip.eos, clip.pad, clip.vocab) == (0, 1, 1, 14)
    ids, mask = clip.encode(["A SAD", None], 5)
    np.testing.assert_array_equal(ids, [[0, 5, 4, 1, 1], [1] * 5])
    np.testing.assert_array_equal(mask, [[1, 1, 1, 1, 0], [0] * 5])


def test_folder_of_bert(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "so", "sad", "##der", "[", "]"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer"})
    )
    bert = Tokenizer.load(tmp_path)
    assert (bert.sos, bert.eos, bert.pad, bert.vocab) == (2, 3, 0, 10)
    np.testing.assert_array_equal(bert.encode(["So sadder"], 6)[0], [[2, 5, 6, 7, 3, 0]])
    assert 3 not in bert.words("so [SEP] sad")


def test_folders_without_a_tokenizer(tmp_path):
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match=r"holds no tokenizer: none of tokenizer.json, vocab"):
            Tokenizer.load(folder)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"the tokenizer in .* cannot be read: "):
        Tokenizer.load(tmp_path)


def test_tokenizer_without_an_end(tmp_path):
    Tokenizer.train(TEXTS, vocab=259).save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in config.items() if k != "eos_token"}))
    with pytest.raises(InputError, match="names no token that begins or none that ends a text"):
        Tokenizer.load(tmp_path)


def test_transformers_reads_what_is_saved(trained, tmp_path):
    trained.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id) == (0, 1, 2)
    for text in TEXTS[:6]:
        assert theirs(text, add_special_tokens=False)["input_ids"] == trained.words(text)


def test_special_tokens_that_the_vocabulary_lacks_are_refused(trained, tmp_path):
    trained.save(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token": "<end>"}))
    with pytest.raises(InputError, match="no number for its token '<end>'"):
        Tokenizer.load(tmp_path)


def test_what_a_run_has_saved_is_read_without_transformers(trained, tmp_path):
    trained.save(tmp_path)
    code = (
        "import sys; from affectjax.data.batches.tokenizer import Tokenizer;"
        "Tokenizer.load(sys.argv[1]); print({'torch', 'transformers'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"
