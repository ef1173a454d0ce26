"""Features of frozen towers in place of clips: what is stored, and that a run says the same."""

import csv
import functools
import importlib.util
import json
import shutil
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import (
    CLIP_SIZE,
    CLIP_WIDTH,
    QUICK,
    Child,
    assert_close_lines,
    lines_of,
    toy_config,
)
from data import media_files
from numpy_mcr import quick

from affectjax import weights
from affectjax.data.batches.dataset import DataConfig, Dataset
from affectjax.data.batches.inputs import Features
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.data.media.codec import decode
from affectjax.data.media.codec import encode as image_file
from affectjax.data.prepare import prepared
from affectjax.data.prepare.clip_storage import Storage
from affectjax.errors import InputError
from affectjax.runtime.checkpoints import Checkpoints
from affectjax.runtime.parallel import Engine
from affectjax.tasks import base
from affectjax.training import loop
from affectjax.training.stage_program import StageProgram
from affectjax.weights.stored_features import Encoding, encode

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "weights"))
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FRAMES = 3
# Frames, seconds of sound and words by clip; the first ten train.
CLIPS = [(5, 0.2, 3), (2, 0.1, 0), (0, 0.3, 5), (9, 0, 2), (3, 0, 0), (0, 0, 4), (0, 0.2, 0),
         (7, 0.2, 1), (1, 0.1, 6), (4, 0.3, 2), (6, 0.2, 3), (0, 0.1, 2), (4, 0, 0), (3, 0.2, 1),
         (8, 0.1, 4), (0, 0, 2), (2, 0.2, 0)]  # fmt: skip
SPLITS = ["train"] * 10 + ["valid"] * 3 + ["test"] * 4


def words(i):
    return " ".join(f"what a day {i} {w}" for w in range(CLIPS[i][2]))


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A folder of one's own clips: frames, sounds and words, any of them missing."""
    folder = tmp_path_factory.mktemp("raw")
    rng = np.random.default_rng(0)
    rows = []
    for i, (frames, seconds, _) in enumerate(CLIPS):
        row = {"id": f"c{i}", "split": SPLITS[i], "label": ("glad", "sad")[i % 2], "text": words(i)}
        if frames:
            (folder / f"c{i}").mkdir()
            row["video"] = f"c{i}"
        for t in range(frames):
            image = rng.integers(0, 256, (CLIP_SIZE, CLIP_SIZE, 3), dtype=np.uint8)
            (folder / f"c{i}" / f"{t}.png").write_bytes(image_file(image, "png"))
        if seconds:
            row["audio"] = f"c{i}.wav"
            sound = media_files.tone(seconds, 16000, 100 + 40 * i)[None]
            form = {"sound_codec": "pcm_s16le", "form": "s16"}
            media_files.write(folder / row["audio"], sound=sound, **form)
        rows.append(row)
    with (folder / "clips.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["id", "split", "label", "video", "audio", "text"])
        table.writeheader()
        table.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def clips(raw, tmp_path_factory):
    """The clips, prepared."""
    return prepare(raw, tmp_path_factory.mktemp("data"))


def prepare(raw, data, size=CLIP_SIZE):
    storage = Storage(image_size=size, detector="none", image_encoding="png")
    return prepared.prepare("clips", raw, data, aligned=False, view="clips", storage=storage)


@pytest.fixture(scope="module")
def encoded(clips, clip_folder, tmp_path_factory):
    """The clips, encoded by CLIP."""
    encoding = Encoding("clip", str(clip_folder), frames=FRAMES)
    return encode(clips, tmp_path_factory.mktemp("encoded"), encoding)


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    """A local folder with the weights of a tiny BERT and its tokenizer."""
    import torch_towers

    folder = tmp_path_factory.mktemp("bert")
    tokenizer = Tokenizer.train([words(i) for i in range(len(CLIPS))])
    tokenizer.save(folder)
    model = torch_towers.bert_model(vocab_size=tokenizer.vocab, max_position_embeddings=40)
    model.save_pretrained(folder)
    return folder


def examples(folder):
    """Returns the examples of all splits by id."""
    opened = prepared.open_prepared(folder)
    sources = [opened.source(split) for split in opened.splits]
    return {example["id"]: example for source in sources for example in map(source.__getitem__,
            range(len(source)))}  # fmt: skip


def card(folder):
    return json.loads((folder / "affectjax.json").read_text())


def config_of(folder, weights_folder, **changes):
    """Returns the config of a tiny run of one stage with frozen towers."""
    spec = importlib.util.spec_from_file_location("umbenet", ROOT / "configs" / "umbenet.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("clips,single")
    config.data.update(dir=str(folder), frames=FRAMES, seconds=0.2, sampling="middle")
    config.model.update(
        weights=str(weights_folder), vision="clip", text="clip",
        frozen=("text_tower", "image_tower"), heads=2, temporal_heads=2, prompt_tokens=2,
        inherent_tokens=2, pool_size=6, top_k=2, gate_hidden=4, flip=0.0, shift=0.0, contrast=0.0,
        brightness=0.0, token_drop=0.0,
    )  # fmt: skip
    for stage in config.stages.values():
        stage.update(epochs=2, batch_size=4)
    config.train.update(eval_batch_size=4, progress=False, baselines=False)
    changes = {k.replace("__", "."): v for k, v in changes.items()}
    if changes.get("model.audio", "mel") != "mel":
        del config.model.shift_bands
    config.update_from_flattened_dict(changes)
    return config


def task_of(config):
    """Returns the task of a config, as a training makes it before its first step."""
    dataset = Dataset(DataConfig(**config.data.to_dict()))
    return base.find(config).Task(config, dataset.inputs, None)


# ---- what is stored -----------------------------------------------------------------------------


def test_features_are_those_of_the_pytorch_towers(clips, encoded, clip_folder):
    model = transformers.CLIPModel.from_pretrained(clip_folder).eval()
    tokenizer = Tokenizer.load(clip_folder)
    found = weights.clip(clip_folder)
    mean, std = (np.array(x, np.float32) for x in (found.mean, found.std))
    before, after = examples(clips), examples(encoded)
    assert list(after) == [f"c{i}" for i in range(len(CLIPS))]
    for i, (frames, seconds, said) in enumerate(CLIPS):
        ours, theirs = after[f"c{i}"], before[f"c{i}"]
        middles = [(2 * t + 1) * frames // (2 * FRAMES) for t in range(FRAMES)]
        middles = middles if frames > FRAMES else list(range(frames))
        assert ours["vision"].shape == (len(middles), CLIP_WIDTH)
        if middles:
            pixels = np.stack([decode(theirs["vision"][t]) for t in middles]) / np.float32(255)
            pixels = torch.tensor(((pixels - mean) / std).transpose(0, 3, 1, 2))
            with torch.no_grad():
                expected = pixel_features(model, pixels)
            np.testing.assert_allclose(ours["vision"], expected, atol=1e-4)
        assert ours["text"].shape == (min(said, 1), CLIP_WIDTH)
        if said:
            tokens, mask = tokenizer.encode([words(i)], 77)
            with torch.no_grad():
                expected = text_features(model, torch.tensor(tokens), torch.tensor(mask))
            np.testing.assert_allclose(ours["text"], expected, atol=1e-4)
        np.testing.assert_array_equal(ours["audio"], theirs["audio"])
        assert bool(len(ours["audio"])) == bool(seconds)
        assert (ours["transcript"], ours["label"]) == (words(i), theirs["label"])
        assert ours["vision"].dtype == ours["text"].dtype == np.float32


def pixel_features(model, pixels):
    pooled = model.vision_model(pixel_values=pixels).pooler_output
    return model.visual_projection(pooled).numpy()


def text_features(model, tokens, mask):
    tokens = tokens[:, : int(mask.sum())].long()  # nothing is behind the end
    # Its own choice of the end takes 2, which is the end here, for the sign of an old config.
    last = model.text_model(input_ids=tokens).last_hidden_state[:, -1]
    return model.text_projection(last).numpy()


def test_the_card_says_what_made_the_features(encoded, clips, clip_folder):
    said = card(encoded)
    common = {
        "kind": "features",
        "encoder": "clip",
        "weights": clip_folder.name,
        "checksum": weights.checksum(weights.clip(clip_folder)),
        "dtype": "float32",
        "width": CLIP_WIDTH,
    }
    assert said["inputs"] == {
        "text": {**common, "length": 1, "tokens": 77},
        "audio": card(clips)["inputs"]["audio"],
        "vision": {**common, "length": FRAMES, "frames": FRAMES},
    }
    assert encoded.parts[-3:] == ("clips", "encoded-clip", "1.0.0")
    assert str(clip_folder.parent) not in (encoded / "affectjax.json").read_text()
    for name in ("splits", "labels", "skipped", "has"):
        assert said[name] == card(clips)[name]
    ours, theirs = (prepared.open_prepared(folder) for folder in (encoded, clips))
    for split in ours.splits:
        a, b = ours.index(split), theirs.index(split)
        assert (a.ids, a.transcripts) == (b.ids, b.transcripts)
        np.testing.assert_array_equal(a.present, b.present)
        np.testing.assert_array_equal(a.label, b.label)


def test_the_checksum_follows_the_weights_and_not_their_files(clip_folder, tmp_path):
    before = weights.checksum(weights.clip(clip_folder))
    model = transformers.CLIPModel.from_pretrained(clip_folder)
    shutil.copytree(clip_folder, tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").unlink()
    model.save_pretrained(tmp_path / "cut", max_shard_size="20KB")
    assert len(list((tmp_path / "cut").glob("*.safetensors"))) > 1
    assert weights.checksum(weights.clip(tmp_path / "cut")) == before
    assert weights.checksum(weights.clip(other_weights(clip_folder, tmp_path))) != before
    said = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2]}
    (tmp_path / "cut" / "preprocessor_config.json").write_text(json.dumps(said))
    assert weights.checksum(weights.clip(tmp_path / "cut")) != before


def other_weights(folder, to):
    """Returns a copy of a folder of CLIP in which a single number is another."""
    model = transformers.CLIPModel.from_pretrained(folder)
    with torch.no_grad():
        model.text_projection.weight[0, 0] += 0.01
    shutil.copytree(folder, to / folder.name)
    model.save_pretrained(to / folder.name)
    return to / folder.name


def test_bert_reads_the_transcripts_and_leaves_frames_as_they_are(clips, encoded, bert_folder,
                                                                  tmp_path):  # fmt: skip
    model = transformers.BertModel.from_pretrained(bert_folder).eval()
    tokenizer = Tokenizer.load(bert_folder)
    alone = encode(clips, tmp_path, Encoding("bert", str(bert_folder)))
    both = encode(encoded, tmp_path, Encoding("bert", str(bert_folder)))
    assert alone.parts[-2] == "encoded-bert" and both.parts[-2] == "encoded-bert-clip"
    raw, clip = examples(clips), examples(encoded)
    for name, example in examples(alone).items():
        assert example["vision"] == raw[name]["vision"]
        other = examples(both)[name] if name in ("c0", "c1") else None
        if other is not None:
            np.testing.assert_array_equal(other["vision"], clip[name]["vision"])
            np.testing.assert_array_equal(other["text"], example["text"])
        text = raw[name]["transcript"]
        assert len(example["text"]) == bool(text)
        if text:
            # BERT of this size reads 40 tokens; what is longer loses its last words.
            tokens, mask = tokenizer.encode([text], 40)
            tokens = torch.tensor(tokens[:, : int(mask.sum())]).long()
            with torch.no_grad():
                expected = model(input_ids=tokens).last_hidden_state.mean(1).numpy()
            np.testing.assert_allclose(example["text"], expected, atol=1e-4)
    assert card(both)["inputs"]["vision"] == card(encoded)["inputs"]["vision"]


def test_sound_becomes_the_means_of_a_speech_towers_layers(clips, encoded, speech_folder, tmp_path):
    model = transformers.WavLMModel.from_pretrained(speech_folder).eval()
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(speech_folder)
    made = encode(encoded, tmp_path, Encoding("wav2vec2", str(speech_folder), seconds=0.2))
    assert made.parts[-2] == "encoded-clip-wav2vec2"
    assert card(made)["inputs"]["vision"] == card(encoded)["inputs"]["vision"]
    assert card(made)["inputs"]["audio"] == {
        "kind": "features",
        "encoder": "wav2vec2",
        "weights": speech_folder.name,
        "checksum": weights.checksum(weights.wav2vec2(speech_folder)),
        "dtype": "float32",
        "length": 4,
        "width": 16,
        "seconds": 0.2,
    }
    before, after = examples(encoded), examples(made)
    for i, (_, seconds, _) in enumerate(CLIPS):
        ours, theirs = after[f"c{i}"], before[f"c{i}"]
        np.testing.assert_array_equal(ours["vision"], theirs["vision"])
        assert ours["audio"].shape == ((4, 16) if seconds else (0, 16))
        if seconds:
            x = theirs["audio"][:3200].astype(np.float32) / np.float32(32768)
            given = extractor(x, sampling_rate=16000, return_tensors="pt")["input_values"]
            with torch.no_grad():
                seen = model(given, output_hidden_states=True)
            layers = [*seen.hidden_states[:-1], seen.last_hidden_state]
            expected = [layer[0].mean(0).numpy() for layer in layers]
            np.testing.assert_allclose(ours["audio"], expected, atol=1e-4)
    with pytest.raises(InputError, match="its sound is encoded already"):
        encode(made, tmp_path, Encoding("wav2vec2", str(speech_folder)))
    with pytest.raises(InputError, match=r'data\.seconds" is 0\.3, .* other sounds; allowed: 0\.2'):
        Dataset(DataConfig("clips", str(made), view="clips", frames=FRAMES, seconds=0.3))


def test_stored_sound_has_the_numbers_of_sound(encoded, clip_folder, speech_folder, tmp_path):
    """Loss and gradient of a step, and predictions, from the batches of both data sets."""
    made = encode(encoded, tmp_path, Encoding("wav2vec2", str(speech_folder), seconds=0.2))
    own = {"model__audio": "wav2vec2", "model__wav2vec2_weights": str(speech_folder)}
    own |= {"model__frozen": ("text_tower", "audio_wav2vec2"), "model__gain_db": 0.0}
    model, found = None, []
    for folder in (encoded, made):
        config = config_of(folder, clip_folder, **own)
        dataset = Dataset(DataConfig(**config.data.to_dict()))
        task = base.find(config).Task(config, dataset.inputs, None)
        batch = dataset.arrays(dataset.part("train"))
        batch["weight"] = np.ones(len(batch["label"]), np.float32)
        shapes = jax.eval_shape(task.init, jax.random.key(0), batch)[0]
        if model is None:
            new = dict(
                zip(("params", "variables"), task.init(jax.random.key(0), batch), strict=True)
            )
            model = task.load_pretrained(new)
        assert ("audio_wav2vec2" in shapes) == (folder is encoded)
        params = {name: model["params"][name] for name in shapes}
        stage = task.stages[0]
        loss = functools.partial(stage.loss, **stage.settings)
        run = quick(jax.value_and_grad(loss, has_aux=True))
        (loss, _), gradient = run(params, model["variables"], batch, jax.random.key(1))
        logits = quick(task.predict)(params, model["variables"], batch)["logits"]
        found.append((loss, gradient["audio_layers"], logits))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *found)
    assert np.any(found[0][1]["weights"])


def test_bfloat16_computes_the_same_less_exactly(clips, encoded, clip_folder, tmp_path):
    how = Encoding("clip", str(clip_folder), frames=FRAMES, dtype="bfloat16")
    rough, fine = examples(encode(clips, tmp_path, how)), examples(encoded)
    for m in ("text", "vision"):
        a, b = (np.concatenate([e[m] for e in found.values()]) for found in (rough, fine))
        scale = np.abs(b).max()
        assert a.dtype == np.float32 and 1e-5 < np.abs(a - b).max() / scale < 0.1


def test_the_same_again_is_found_and_another_is_refused(clips, encoded, clip_folder, tmp_path):
    data = encoded.parents[2]
    stamp = (encoded / "affectjax.json").stat().st_mtime_ns
    assert encode(clips, data, Encoding("clip", str(clip_folder), frames=FRAMES)) == encoded
    assert (encoded / "affectjax.json").stat().st_mtime_ns == stamp
    for how in (
        Encoding("clip", str(clip_folder), frames=FRAMES - 1),
        Encoding("clip", str(other_weights(clip_folder, tmp_path)), frames=FRAMES),
    ):
        with pytest.raises(InputError, match="of other files or with other options"):
            encode(clips, data, how)


# ---- training on it -----------------------------------------------------------------------------


def train_both(clips, encoded, clip_folder, folder):
    for name, data in (("raw", clips), ("encoded", encoded)):
        loop.train(config_of(data, clip_folder), Path(folder) / name)


@pytest.fixture(scope="module")
def runs(clips, encoded, clip_folder, tmp_path_factory):
    """The workdirs of the same training on frames and words, and on features."""
    folder = tmp_path_factory.mktemp("runs")
    child = Child(train_both, (clips, encoded, clip_folder, folder), folder, {"XLA_FLAGS": QUICK})
    code, _, said = child.wait(280)
    assert code == 0, said
    return folder / "raw", folder / "encoded"


def test_a_training_on_features_has_the_numbers_of_one_on_frames(runs):
    raw, encoded = runs
    lines = lines_of(raw)
    assert len(lines) == 4 and lines[0]["loss"] != lines[2]["loss"]  # it learns something
    assert_close_lines(lines_of(encoded), lines)
    for name in ("valid", "test"):
        ours, theirs = (
            list(csv.reader((run / "eval" / f"{name}.csv").open())) for run in (encoded, raw)
        )
        assert [row[:3] for row in ours] == [row[:3] for row in theirs]
        ours, theirs = (np.array([row[3:] for row in rows[1:]], float) for rows in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    ours, theirs = (json.loads((run / "eval" / "missing.json").read_text()) for run in runs)
    for shown, values in ours["subsets"].items():
        assert values["loss"] == pytest.approx(theirs["subsets"][shown]["loss"], abs=1e-5)


def test_the_image_tower_is_not_in_a_model_on_features(runs):
    towers = []
    for run in runs:
        kept = Checkpoints(run / "checkpoints" / "frozen", 2)
        towers.append({path.split("/")[1] for path in kept.restore()[0]})
        kept.close()
    assert towers == [{"text_tower", "image_tower"}, {"text_tower"}]


def test_features_of_a_tower_are_never_standardised(encoded):
    data = Dataset(DataConfig("clips", str(encoded), view="clips", frames=FRAMES,
                              standardize=("text", "audio", "vision")))  # fmt: skip
    assert data.statistics == {}
    arrays = data.arrays(data.part("train"))
    stored = examples(encoded)
    for row, name in enumerate(data.ids(data.part("train"))):
        for m in ("text", "vision"):
            there = stored[name][m]
            np.testing.assert_array_equal(arrays[m]["x"][row, : len(there)], there)
            assert arrays[m]["mask"][row].sum() == len(there)
    kind = data.inputs.kinds["vision"]
    assert isinstance(kind, Features) and kind.encoder == "clip"
    again = type(data.inputs).from_json(json.loads(json.dumps(data.inputs.to_json())))
    assert again.kinds == data.inputs.kinds


def test_other_weights_than_those_that_made_the_features_are_refused(
    encoded, clip_folder, tmp_path
):
    assert task_of(config_of(encoded, clip_folder)).modalities == ("text", "audio", "vision")
    other = other_weights(clip_folder, tmp_path)
    with pytest.raises(InputError, match=r'config\.model\.weights" is .* but other weights made'):
        loop.train(config_of(encoded, other), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_berts_than_the_one_that_made_the_features_are_refused(
    encoded, clip_folder, bert_folder, tmp_path
):
    both = encode(encoded, tmp_path, Encoding("bert", str(bert_folder)))
    config = config_of(both, clip_folder, model__text="bert", model__bert_weights=str(bert_folder))
    assert task_of(config).model.towers["text"] is None
    import torch_towers

    other = shutil.copytree(bert_folder, tmp_path / "other")
    vocab = Tokenizer.load(bert_folder).vocab
    model = torch_towers.bert_model(vocab_size=vocab, max_position_embeddings=40)
    with torch.no_grad():
        model.embeddings.LayerNorm.bias[0] += 0.01
    model.save_pretrained(other)
    config.model.bert_weights = str(other)
    with pytest.raises(InputError, match=r'config\.model\.bert_weights" is .* other weights made'):
        task_of(config)


WRONG = {
    "another encoder": ({"model__vision": "conv"}, r"'conv', but .* clip made; allowed: clip, fea"),
    "bert for clip": (
        {"model__text": "bert"},
        r"'bert', but .* clip made; allowed: clip, features",
    ),
    "other frames": ({"data__frames": 2}, r'"config\.data\.frames" is 2, .* allowed: 3'),
    "random frames": (
        {"data__sampling": "random"},
        r"sampling\" is 'random', .* allowed: 'middle'",
    ),
    "augmentation": ({"model__flip": 0.5}, r'"config\.model\.flip" is 0\.5, .* allowed: 0'),
    "another width": (
        {"model__weights": "", "model__frozen": (), "model__width": 8, "model__logit_scale": 9.0},
        "width 16, and the model's is 8",
    ),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_a_config_cannot_ask_of_features(encoded, clip_folder, changes, message):
    with pytest.raises(InputError, match=message):
        task_of(config_of(encoded, clip_folder, **changes))


# ---- what cannot be encoded ---------------------------------------------------------------------


def test_weights_of_another_architecture(clips, clip_folder, bert_folder, tmp_path):
    for features, folder in (("clip", bert_folder), ("bert", clip_folder)):
        with pytest.raises(InputError, match=r"config\.json names the architecture"):
            encode(clips, tmp_path / "data", Encoding(features, str(folder)))
    text = shutil.copytree(clip_folder, tmp_path / "text")
    config = transformers.CLIPTextConfig.from_pretrained(clip_folder)
    config.projection_dim = CLIP_WIDTH
    transformers.CLIPTextModelWithProjection(config).save_pretrained(text)
    with pytest.raises(InputError, match="has no image tower; a CLIPModel has both"):
        encode(clips, tmp_path / "data", Encoding("clip", str(text)))
    with pytest.raises(InputError, match="is no Hugging Face folder"):
        encode(clips, tmp_path / "data", Encoding("clip", str(tmp_path)))
    assert not (tmp_path / "data").exists()


def test_clips_that_cannot_be_encoded(raw, clips, encoded, own, clip_folder, bert_folder, tmp_path):
    clip, bert = (Encoding(k, str(f)) for k, f in (("clip", clip_folder), ("bert", bert_folder)))
    large = prepare(raw, tmp_path / "large", 24)
    with pytest.raises(InputError, match=r"frames of 24 pixels, but .* in .* reads 16"):
        encode(large, tmp_path / "data", clip)
    with pytest.raises(InputError, match="its frames are encoded already"):
        encode(encoded, tmp_path / "data", clip)
    sequences = prepared.prepare("own", own, tmp_path / "own", aligned=False)
    with pytest.raises(InputError, match="holds sequences; only clips can be encoded"):
        encode(sequences, tmp_path / "data", clip)
    silent = shutil.copytree(clips, tmp_path / "silent")
    (silent / "checksums.json").unlink()
    said = card(silent)
    del said["inputs"]["text"]
    (silent / "affectjax.json").write_text(json.dumps(said))
    with pytest.raises(InputError, match="has none of text, of which features 'bert' are made"):
        encode(silent, tmp_path / "data", bert)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"features": "vit"}, "features is 'vit'; allowed: clip, bert, wav2vec2"),
        ({"dtype": "int8"}, "dtype is 'int8'; allowed: float32, bfloat16"),
        ({"frames": 0}, "frames is 0; allowed: 1 or more"),
        ({"tokens": 1}, "tokens is 1; allowed: 2 or more"),
        ({"seconds": 0.0}, "seconds is 0.0; allowed: more than 0"),
        ({"weights": ""}, "features 'clip' need weights"),
    ],
)
def test_what_an_encoding_cannot_be(values, message):
    with pytest.raises(InputError, match=message):
        Encoding(**({"features": "clip", "weights": "folder"} | values))


# ---- what the loop asks of the data -------------------------------------------------------------


def test_random_frames_are_new_in_every_epoch_of_a_run(clips):
    data = Dataset(DataConfig("clips", str(clips), view="clips", sampling="random", frames=2))
    part = data.part("train")
    rows = np.arange(len(part), dtype=np.int32).reshape(1, 1, -1).repeat(2, axis=0)
    feed = types.SimpleNamespace(resident=False)
    feed.stream = lambda mine, epoch, seeds: data.stream(
        part, [mine[:, c, None] for c in range(mine.shape[1])], epoch=epoch, seed=seeds
    )
    program = types.SimpleNamespace(
        data=feed, engine=Engine("pmap", jax.devices()[:1]), seeds=(3, 5)
    )
    rules = types.SimpleNamespace(epochs=2)
    task = types.SimpleNamespace(stages=[types.SimpleNamespace(rules=rules)] * 2)

    def frames(stage, epoch):
        progress = types.SimpleNamespace(stage=stage, epoch=epoch)
        trainer = types.SimpleNamespace(task=task, progress=progress)
        epoch = loop.Trainer._epoch_of_run(trainer)
        _, inputs = StageProgram.inputs(program, rows, epoch, None)
        (batch,) = jax.device_get(list(inputs))
        return batch["vision"]["x"].reshape(2, len(part), -1)

    drawn = [frames(stage, epoch) for stage in (0, 1) for epoch in (0, 1)]
    differ = [(a != b).any() for i, a in enumerate(drawn) for b in drawn[:i]]
    assert len(differ) == 6 and all(differ)
    np.testing.assert_array_equal(frames(1, 0), drawn[2])
    assert (drawn[0][0] != drawn[0][1]).any()  # each of several models draws its own


def test_the_metric_to_select_by_is_checked_without_a_whole_split(own, tmp_path, monkeypatch):
    asked, zeros = [], Dataset.zeros
    monkeypatch.setattr(Dataset, "zeros", lambda self, n: asked.append(n) or zeros(self, n))
    with pytest.raises(InputError, match=r"config\.stages\.train\.select"):
        loop.train(toy_config(own, stages__train__select="accuracy"), tmp_path / "run")
    assert not asked, "the names are known without a batch"


def test_what_is_taken_away_is_saved_with_the_run(own, tmp_path):
    changes = {"data__missing_pattern": "random", "data__missing_rate": 0.6}
    config = toy_config(own, stages__train__epochs=1, **changes)
    loop.train(config, tmp_path / "run")
    dataset = Dataset(DataConfig(**config.data.to_dict()))
    said = json.loads((tmp_path / "run" / "missing.json").read_text())
    assert said["modalities"] == ["text", "audio", "vision"]
    parts = {role: dataset.part(role) for role in ("train", "valid", "test")}
    expected = {
        f"{role}/{name}": "".join(str(int(bit)) for bit in kept)
        for role, part in parts.items()
        for name, kept in zip(dataset.ids(part), dataset.kept(part), strict=True)
    }
    assert said["kept"] == expected and "0" in "".join(expected.values())
