"""What a run remembers of its data: as it was, and what is damaged is refused by name."""

import json
import shutil

import chex
import numpy as np
import pytest

from affectjax.data.batches import saved_inputs
from affectjax.data.batches.inputs import Features, Frames, Inputs, Text, Waveform
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.data.labels import LabelSpec
from affectjax.errors import InputError

SPEC = LabelSpec("class", ("calm", "glad", "sad"))
SENTENCES = ("What a day!", "Only words.")
STATISTICS = {"audio": {"mean": np.float32([1, 2, 3]), "std": np.float32([1, 0.5, 2])}}


def clips():
    """Returns the inputs of raw clips."""
    kinds = {"text": Text(6), "audio": Waveform(5), "vision": Frames(2, 4)}
    return Inputs(kinds, SPEC, tokenizer=Tokenizer.train(SENTENCES))


def sequences(spec=SPEC):
    """Returns the inputs of features, some standardised, some made by a tower."""
    kinds = {"audio": Features(4, 3), "vision": Features(2, 5, "clip", "0123abcd")}
    return Inputs(kinds, spec, statistics=STATISTICS)


def records():
    rng = np.random.default_rng(0)
    return [
        {"id": "a", "label": 1, "transcript": "Only a day"},
        {"id": "b", "label": 2, "audio": rng.normal(size=4).astype("f4")},
        {"id": "c", "label": 0, "vision": rng.integers(0, 255, (2, 4, 4, 3), np.uint8)},
        None,
    ]


def again(inputs, folder):
    saved_inputs.save(inputs, folder)
    return saved_inputs.load(folder)


def test_clips_come_back(tmp_path):
    inputs = clips()
    loaded = again(inputs, tmp_path)
    assert loaded.kinds == inputs.kinds and list(loaded.kinds) == ["text", "audio", "vision"]
    assert loaded.spec == SPEC and loaded.statistics == {}
    batch = inputs.collate(records())
    assert batch["present"]["text"].tolist() == [True, False, False, False]
    chex.assert_trees_all_equal(loaded.collate(records()), batch)
    files = {f.name for f in tmp_path.iterdir()}
    assert files == {"checksums.json", "inputs.json", "standardization.npz", "tokenizer"}


def test_sequences_come_back_standardised(tmp_path):
    inputs = sequences()
    loaded = again(inputs, tmp_path)
    assert loaded.kinds == inputs.kinds and loaded.tokenizer is None
    chex.assert_trees_all_equal(loaded.statistics, STATISTICS)
    x = np.float32([[3, 2, 7], [1, 3, 1]])
    batch = loaded.collate([{"id": "a", "audio": x}])
    # (x - mean) / std by hand, and zeros where there is nothing.
    expected = [[2, 0, 2], [0, 2, -1], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(batch["audio"]["x"][0], expected)
    assert not (tmp_path / "tokenizer").exists()


@pytest.mark.parametrize(
    "spec",
    [LabelSpec("score", low=-3.0, high=3.0), LabelSpec("binary", ("yes", "no")), SPEC],
    ids=lambda spec: spec.kind,
)
def test_labels_come_back(spec, tmp_path):
    assert again(sequences(spec), tmp_path).spec == spec


def test_a_second_save_is_what_counts(tmp_path):
    saved_inputs.save(sequences(LabelSpec("score")), tmp_path)
    assert again(sequences(), tmp_path).spec == SPEC


def change(**values):
    """Returns a damage that sets keys of inputs.json."""

    def changed(folder):
        path = folder / "inputs.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return changed


def cut(name):
    def halved(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return halved


DAMAGE = {
    "no description": lambda folder: (folder / "inputs.json").unlink(),
    "no statistics": lambda folder: (folder / "standardization.npz").unlink(),
    "no tokenizer": lambda folder: shutil.rmtree(folder / "tokenizer"),
    "an empty tokenizer": lambda folder: (folder / "tokenizer" / "tokenizer.json").unlink(),
    "half a description": cut("inputs.json"),
    "half of the statistics": cut("standardization.npz"),
    "half a tokenizer": cut("tokenizer/tokenizer.json"),
    "a list": lambda folder: (folder / "inputs.json").write_text("[]"),
    "an unknown kind": change(inputs={"text": {"kind": "smell", "tokens": 3}}),
    "a kind without its size": change(inputs={"vision": {"kind": "frames"}}),
    "no labels": change(labels={}),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_what_is_damaged_is_refused(damage, tmp_path):
    saved_inputs.save(clips(), tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError) as error:
        saved_inputs.load(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_no_workdir(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: inputs\.json, .* is missing or damaged"):
        saved_inputs.load(tmp_path / "nowhere")
