"""The predict app: any subset of modalities, and everything that may be wrong with an input."""

import csv
import importlib.util
import json
import os
import shutil
import struct
from pathlib import Path

import av
import cv2
import jax
import numpy as np
import PIL.Image
import pytest
from conftest import DIMS, SIZES, toy_config, write_own
from data import media_files

import affectjax
from affectjax import exporting, inference
from affectjax.data.batches import prediction_input
from affectjax.data.batches.config import DataConfig
from affectjax.data.batches.inputs import Features, Frames, Inputs, Waveform
from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.media import decoding
from affectjax.data.media.codec import encode
from affectjax.data.prepare import prepared
from affectjax.data.prepare.clip_storage import Storage
from affectjax.errors import InputError
from affectjax.inference import Recognizer
from affectjax.inference import recognize as run_on
from affectjax.runtime import manifest, steps
from affectjax.runtime.checkpoints import Checkpoints
from affectjax.tasks.base import MAIN
from affectjax.training import evaluator, loop
from affectjax.training.run_checkpoints import RunCheckpoints

ROOT = Path(__file__).parents[1]
CLASSES = ["glad", "sad"]
SECONDS = 1.0
COLUMNS = ("id", "split", "label", "video", "audio", "text")
TEST = (
    ("all", "test", "sad", "all.mp4", "", "What a day!"),
    ("pair", "test", "glad", "silent.mp4", "voice.wav", ""),
    ("wav", "test", "sad", "", "voice.wav", ""),
    ("words", "test", "glad", "", "", "Only words."),
    ("frames", "test", "glad", "frames", "", ""),
    ("image", "test", "sad", "image.png", "", ""),
    ("long", "test", "sad", "long.mkv", "", "It goes on and on."),
)


def noise(seed, count=6, size=40):
    """Returns frames `[T, H, W, 3]` uint8 of coarse squares, another colour each."""
    coarse = np.random.default_rng(seed).integers(0, 255, (count, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(size // 4, 1).repeat(size // 4, 2)


def sound(seconds, hertz=440.0):
    return media_files.tone(seconds, 16000, hertz)[None]


def table(path, rows, header=COLUMNS):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A folder of one's own clips, with files that no table names too."""
    folder = tmp_path_factory.mktemp("raw")
    rows = []
    for i in range(8):
        media_files.write(folder / f"{i}.mp4", noise(i), sound(0.6, 200 + 50 * i))
        split = "train" if i < 6 else "valid"
        rows.append((f"v{i}", split, CLASSES[i % 2], f"{i}.mp4", "", f"Sentence number {i}."))
    media_files.write(folder / "all.mp4", noise(20, 30), sound(0.9))
    media_files.write(folder / "silent.mp4", noise(21))
    media_files.write(folder / "long.mkv", noise(22, 34), sound(3.4))
    wav = {"sound_codec": "pcm_s16le", "form": "s16"}
    media_files.write(folder / "voice.wav", sound=sound(0.5), **wav)
    media_files.write(folder / "talk.mp4", sound=sound(0.5))
    (folder / "frames").mkdir()
    for i, image in enumerate(noise(23, 3)):
        (folder / "frames" / f"{i}.png").write_bytes(encode(image, "png"))
    (folder / "image.png").write_bytes(encode(noise(24, 1)[0], "png"))
    table(folder / "clips.csv", [*rows, *TEST])
    return folder


def trained(raw, workdir, **changes):
    """Returns the workdir of a tiny UMBEnet, trained on `raw`."""
    spec = importlib.util.spec_from_file_location("umbenet_config", ROOT / "configs/umbenet.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("clips,single")
    config.data.dir, config.data.image_size, config.data.detector = str(raw), 32, "none"
    config.data.seconds, config.data.frames, config.data.tokens = SECONDS, 4, 12
    tiny = {"width": 16, "text_width": 16, "text_layers": 1, "text_heads": 2, "heads": 2}
    tiny |= {"temporal_heads": 2, "temporal_layers": 1, "image_channels": (4, 8, 8, 8)}
    tiny |= {"prompt_tokens": 2, "inherent_tokens": 2, "pool_size": 6, "top_k": 2}
    config.model.update(tiny)
    for stage in config.stages.values():
        stage.epochs, stage.batch_size = 1, 4
    config.train.update(progress=False, baselines=False)
    config.update(changes)
    loop.train(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def run(raw, tmp_path_factory):
    """The workdir of one model."""
    return trained(raw, tmp_path_factory.mktemp("runs") / "one")


@pytest.fixture(scope="module")
def recognizer(run):
    return Recognizer(run)


@pytest.fixture(scope="module")
def table_result(run, raw, tmp_path_factory):
    """All clips of the training's own table, predicted."""
    return run_on(run, raw / "clips.csv", output=tmp_path_factory.mktemp("table"))


@pytest.fixture
def alone(run, tmp_path):
    """Predicts one input and returns its prediction."""

    def alone(source=None, **options):
        result = run_on(run, source, output=tmp_path / "out", **options)
        (prediction,) = result["predictions"]
        assert result["failed"] == []
        return prediction

    return alone


def changed(run, folder, **data):
    """Returns a copy of a workdir with other values in config.data."""
    shutil.copytree(run, folder)
    content = json.loads((folder / "config.json").read_text())
    content["config"]["data"].update(data)
    manifest.write(folder, {"config.json": json.dumps(content).encode()})
    return folder


def best(run):
    store = RunCheckpoints(run)
    found = store.restore_best()
    store.close()
    return found


def with_models(run, folder, factors, seeds):
    """Returns a copy of a workdir whose models are its own, the parameters times each factor."""
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoints"))
    content = json.loads((folder / "config.json").read_text())
    content["config"]["seeds"] = seeds
    manifest.write(folder, {"config.json": json.dumps(content).encode()})
    model, meta = best(run)
    stack = lambda f: lambda x: np.concatenate([(x * k).astype(x.dtype) for k in f])  # noqa: E731
    tree = {
        "params": jax.tree.map(stack(factors), model["params"]),
        "variables": jax.tree.map(stack([1] * len(factors)), model["variables"]),
    }
    checkpoints = Checkpoints(folder / "checkpoints" / "best", 2)
    checkpoints.save(1, tree, meta)
    checkpoints.close()
    return folder


def values(prediction):
    return np.array([prediction["probability"][name] for name in CLASSES])


def evaluated(run):
    """Returns the rows of eval/test.csv by id."""
    with (run / "eval" / "test.csv").open(newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


# ---- the same numbers as evaluation -------------------------------------------------------------


def test_files_of_the_test_split_give_the_predictions_of_the_evaluation(run, table_result):
    rows = evaluated(run)
    found = {p["id"]: p for p in table_result["predictions"]}
    assert set(rows) == {row[0] for row in TEST} and table_result["failed"] == []
    for name, row in rows.items():
        expected = [float(row[c]) for c in CLASSES]
        np.testing.assert_allclose(values(found[name]), expected, rtol=0, atol=1e-5)
        assert found[name]["prediction"] == row["prediction"]


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("all", "all.mp4", "What a day!"),
        ("wav", "voice.wav", None),
        ("words", None, "Only words."),
        ("image", "image.png", None),
        ("long", "long.mkv", "It goes on and on."),
    ],
)
def test_one_file_gives_what_its_row_of_a_table_gives(name, file, text, run, raw, alone):
    prediction = alone(file and raw / file, text=text)
    expected = [float(evaluated(run)[name][c]) for c in CLASSES]
    np.testing.assert_allclose(values(prediction), expected, rtol=0, atol=1e-5)
    assert prediction["id"] == (file or "text")


def test_used_and_missing_modalities(table_result):
    has = {
        "all": ["text", "audio", "vision"],
        "pair": ["audio", "vision"],
        "wav": ["audio"],
        "words": ["text"],
        "frames": ["vision"],
    }
    found = {p["id"]: p for p in table_result["predictions"]}
    for name, used in has.items():
        assert found[name]["modalities"] == used == list(found[name]["contribution"])
        missing = [m for m in ("text", "audio", "vision") if m not in used]
        assert found[name]["missing"] == missing


def test_contributions_and_prompts(run, table_result):
    """Against the task on the prepared data, restricted as evaluation restricts it."""
    workdir, _, datasets, task, _ = evaluator.open_run(run, {})
    dataset = datasets[MAIN]
    model = evaluator.load_best(workdir, task, {MAIN: dataset.inputs}, (0,))
    one = jax.tree.map(lambda x: x[0], (model["params"], model["variables"]))
    params, variables = jax.device_put(one)
    part = dataset.part("test")
    batch = dataset.arrays(part) | {"weight": np.ones(len(part), np.float32)}
    predict = jax.jit(lambda keep: task.predict(params, variables, steps.restrict(batch, keep)))
    with_all = predict(dict.fromkeys(task.modalities, True))
    without = {
        m: predict({other: other != m for other in task.modalities})["logits"]
        for m in task.modalities
    }
    pool = variables["pool"]["pool"]
    counts = pool["served"] if pool["served"].any() else pool["epoch"]
    assert counts.any()
    found = {p["id"]: p for p in table_result["predictions"]}
    for row, name in enumerate(dataset.ids(part)):
        logits = with_all["logits"][row]
        winner = int(logits.argmax())
        for m, contribution in found[name]["contribution"].items():
            lost = logits[winner] - without[m][row, winner]
            assert contribution == pytest.approx(float(lost), abs=1e-4)
        if len(found[name]["contribution"]) == 1:  # without any modality the logits are 0
            (only,) = found[name]["contribution"].values()
            assert only == pytest.approx(float(logits[winner]), abs=1e-4)
        for place, prompt in enumerate(found[name]["prompts"]):
            index = int(with_all["prompts"][row, place])
            assert (prompt["model"], prompt["index"]) == ("seed 0", index)
            similarity = float(with_all["prompt_similarity"][row, place])
            assert prompt["similarity"] == pytest.approx(similarity, abs=1e-5)
            total = sum(float(counts[m, index]) for m in range(4))
            for m, who in enumerate(("text", "audio", "vision", "several")):
                share = float(counts[m, index]) / total if total else 0.0
                assert prompt["share"][who] == pytest.approx(share, abs=1e-5)
        assert len(found[name]["prompts"]) == 2


def test_shares_are_of_the_stage_before_where_there_was_one(recognizer, raw):
    (models,) = recognizer._models
    before = models._pool
    served = np.zeros((1, 4, 6), np.float32)
    served[0, :, :] = np.array([1, 0, 3, 0])[:, None]
    models._pool = {"served": served, "epoch": np.ones((1, 4, 6), np.float32)}
    try:
        (first, _) = recognizer(Clip("x", None, "", video=raw / "all.mp4"))["prompts"]
        assert first["share"] == {"text": 0.25, "audio": 0, "vision": 0.75, "several": 0}
        models._pool["served"] = np.zeros((1, 4, 6), np.float32)
        (first, _) = recognizer(Clip("x", None, "", video=raw / "all.mp4"))["prompts"]
        assert set(first["share"].values()) == {0.25}
    finally:
        models._pool = before


@pytest.mark.slow
def test_several_seeds_and_folds_are_averaged(run, raw, tmp_path):
    other = with_models(run, tmp_path / "other", [1.2], [])
    seeds = with_models(run, tmp_path / "seeds", [1.0, 1.2], [0, 7])
    fold = changed(run, tmp_path / "folds", folds=["a", "b"])
    shutil.copytree(other, fold / "folds" / "a")
    shutil.copytree(seeds, fold / "folds" / "b")
    clip = Clip("x", None, "", video=raw / "all.mp4", text="What a day!")
    one, two, both, all_three = (Recognizer(w)(clip) for w in (run, other, seeds, fold))
    assert np.abs(values(one) - values(two)).max() > 1e-3
    mean = (values(one) + values(two)) / 2
    np.testing.assert_allclose(values(both), mean, atol=2e-6)
    np.testing.assert_allclose(values(all_three), (values(one) + 2 * values(two)) / 3, atol=2e-6)
    if one["prediction"] == two["prediction"] == both["prediction"]:
        for m, contribution in both["contribution"].items():
            mean = (one["contribution"][m] + two["contribution"][m]) / 2
            assert contribution == pytest.approx(mean, abs=1e-4)
    names = ["fold a, seed 0", "fold b, seed 0", "fold b, seed 7"]
    assert [p["model"] for p in all_three["prompts"]] == [n for n in names for _ in range(2)]


def test_compiled_once_for_all_inputs(recognizer, raw):
    for file in ("all.mp4", "silent.mp4", "long.mkv"):
        recognizer(Clip(file, None, "", video=raw / file))
    recognizer(Clip("words", None, "", text="Only words."))
    assert [models._run._cache_size() for models in recognizer._models] == [1]


# ---- the timeline -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duration", "window", "hop", "expected"),
    [
        (0.0, 1.0, 0.5, []),
        (1.0, 1.0, 0.5, []),
        (1.2, 1.0, 0.5, [(0, 1), (0.5, 1.2)]),
        (2.0, 1.0, 0.5, [(0, 1), (0.5, 1.5), (1, 2)]),
        (2.0, 1.0, 1.0, [(0, 1), (1, 2)]),
        (2.1, 1.0, 1.0, [(0, 1), (1, 2), (2, 2.1)]),
        (0.3, 0.2, 0.1, [(0, 0.2), (0.1, 0.3)]),
    ],
)
def test_windows(duration, window, hop, expected):
    found = prediction_input.windows(duration, window, hop)
    assert [x for pair in found for x in pair] == pytest.approx([x for p in expected for x in p])


def test_the_timeline_of_a_video(raw, recognizer):
    clip = Clip("long", None, "", video=raw / "long.mkv", text="On and on.")
    entries = recognizer(clip)["timeline"]
    length = decoding.duration(clip.video)
    starts = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert 3.4 < length < 3.5 and [e["start"] for e in entries] == starts
    assert [e["end"] for e in entries] == pytest.approx([1, 1.5, 2, 2.5, 3, length])
    for entry in (entries[0], entries[4]):
        part = decoding.timeline(clip.video, 64, entry["start"], entry["end"])
        cut = Clip("x", None, "", frames=part.frames, waveform=part.audio, text=clip.text)
        np.testing.assert_allclose(values(entry), values(recognizer(cut)), rtol=0, atol=1e-5)
    assert np.ptp([values(e)[0] for e in entries]) > 1e-4


def test_what_a_window_has_beyond_what_the_model_hears_is_said(alone, tmp_path):
    file = media_files.write(tmp_path / "a.mkv", noise(2, 30), sound(3.0))
    said = "each window lasts 2.0 s: the first 1.0 s of its sound are heard"
    assert said in alone(file, window=2.0)["warnings"]
    assert said not in alone(file, window=1.0)["warnings"]
    assert said not in alone(file, window=9.0)["warnings"]  # there is one window, the clip itself


def test_a_sound_has_a_timeline_too_and_an_image_none(alone, raw, tmp_path):
    wav = {"sound_codec": "pcm_s16le", "form": "s16"}
    file = media_files.write(tmp_path / "long.wav", sound=sound(2.2), **wav)
    entries = alone(file, window=1.0, hop=1.0)["timeline"]
    assert [(e["start"], e["end"]) for e in entries] == [(0, 1), (1, 2), (2, 2.2)]
    assert "timeline" not in alone(raw / "image.png")
    assert "timeline" not in alone(raw / "silent.mp4")


def test_a_window_in_which_nothing_is_seen_or_heard(recognizer, tmp_path):
    pictures = noise(1, 5)
    file = media_files.write(tmp_path / "gap.mkv", pictures, sound(0.3), times=range(30, 35))
    entries = recognizer(Clip("gap", None, "", video=file))["timeline"]
    by_start = {e["start"]: e["probability"] for e in entries}
    assert by_start[1.5] is None and by_start[0.0] is not None and by_start[2.5] is not None
    said = recognizer(Clip("gap", None, "", video=file, text="hm"))["timeline"]
    assert all(e["probability"] for e in said)


def test_the_figure_of_a_timeline(run, raw, tmp_path):
    result = run_on(run, raw / "long.mkv", output=tmp_path)
    (prediction,) = result["predictions"]
    image = cv2.imread(str(tmp_path / prediction["figure"]))[..., ::-1]
    assert prediction["figure"] == "long.mkv.png" and image.shape[1] > 1000
    # The band at the bottom has the winner's colour; Matplotlib's first two are blue and orange.
    colour = {"glad": (31, 119, 180), "sad": (255, 127, 14)}
    wins = {max(e["probability"], key=e["probability"].get) for e in prediction["timeline"]}
    for name, rgb in colour.items():
        band = (np.abs(image.astype(int) - rgb).max(-1) < 3)[int(0.8 * len(image)) :]
        assert (band.sum() > 1000) == (name in wins)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.mp4"], ["a.mp4.png"]),
        (["../../x", "a/b", "a%2Fb"], ["..%2F..%2Fx.png", "a%2Fb.png", "a%252Fb.png"]),
        (["你好\n"], ["你好%0A.png"]),
    ],
)
def test_names_of_figures(names, expected):
    assert [inference.file_name(name) for name in names] == expected
    assert inference.file_name(os.fsdecode(b"\xff.mp4")) == os.fsdecode(b"\xff.mp4.png")
    long, longer = (inference.file_name("x" * n) for n in (300, 301))
    assert long != longer and len(long) < 100


# ---- inputs of every kind -----------------------------------------------------------------------


def test_a_sentence_alone_and_a_wav_alone_on_the_command_line(start, run, raw, tmp_path):
    said = start("predict", f"--checkpoint={run}", "--text=Only words.", f"--output={tmp_path}/a")
    heard = start(
        "predict",
        f"--checkpoint={run}",
        f"--input={raw / 'voice.wav'}",
        f"--output={tmp_path}/b",
    )
    for child, name, used in ((said, "a", "text"), (heard, "b", "audio")):
        code, out, err = child.wait()
        assert code == 0, err
        result = json.loads(out)
        assert result == json.loads((tmp_path / name / "predictions.json").read_text())
        assert list(result) == ["checkpoint", "classes", "not_readable", "predictions", "failed"]
        assert (result["checkpoint"], result["classes"]) == (str(run), CLASSES)
        (prediction,) = result["predictions"]
        assert prediction["modalities"] == [used]
        assert sum(prediction["probability"].values()) == pytest.approx(1, abs=1e-5)
        assert prediction["prediction"] == CLASSES[int(values(prediction).argmax())]


def test_a_file_whose_name_is_no_text(run, raw, tmp_path):
    file = tmp_path / os.fsdecode(b"$a\xff$.mkv")
    shutil.copy(raw / "long.mkv", file)
    result = run_on(run, file, output=tmp_path / "out")
    assert (tmp_path / "out" / result["predictions"][0]["figure"]).stat().st_size > 10_000
    saved = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert saved["predictions"][0]["id"] == file.name


def test_the_output_goes_to_the_workdir_by_default(run, raw, tmp_path):
    workdir = changed(run, tmp_path / "run")
    run_on(workdir, text="Only words.")
    assert [f.name for f in (workdir / "predict").iterdir()] == ["predictions.json"]


def test_text_in_another_script_and_of_ten_thousand_words(alone):
    other = alone(text="今天真是美好的一天，我很高兴！")
    assert other["modalities"] == ["text"] and np.isfinite(values(other)).all()
    many = alone(text="day " * 10_000)
    assert many["warnings"] == [w for w in many["warnings"] if "its first 10 are read" in w]
    assert len(many["warnings"]) == 1
    np.testing.assert_allclose(values(many), values(alone(text="day " * 40)))


def test_sound_without_a_picture_in_a_container_of_videos(alone, raw):
    prediction = alone(raw / "talk.mp4")
    assert prediction["modalities"] == ["audio"]


def test_a_clip_of_one_frame(alone, tmp_path):
    file = media_files.write(tmp_path / "one.mp4", noise(3, 1))
    prediction = alone(file)
    assert prediction["modalities"] == ["vision"] and prediction["warnings"] == []


def test_faces(run, tmp_path):
    astronaut = pytest.importorskip("skimage.data").astronaut()[40:200, 140:300]
    workdir = changed(run, tmp_path / "run", detector="cascade")
    folder = tmp_path / "clips"
    folder.mkdir()
    three = np.concatenate([astronaut] * 3, axis=1)
    for name, image in (("none", noise(1, 1, 160)[0]), ("one", astronaut), ("three", three)):
        media_files.write(folder / f"{name}.mp4", [image] * 2)
    found = run_on(workdir, folder, output=tmp_path / "out")["predictions"]
    none, one, three = (p["warnings"] for p in found)
    assert none == ["no face was found in 2 frames: whole frames are seen"]
    assert one == []
    assert three == ["there are up to 3 faces in a frame: the largest is followed"]


# ---- bad inputs ---------------------------------------------------------------------------------


def front_index(source, target):
    """Writes an mp4 again with its index in front, so that it can be opened when it is cut."""
    with (
        av.open(str(source)) as read,
        av.open(str(target), "w", options={"movflags": "faststart"}) as write,
    ):
        streams = {s.index: write.add_stream_from_template(s) for s in read.streams}
        for packet in read.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                write.mux(packet)
    return target


def cut(path, share=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def test_a_file_that_was_cut_says_so(alone, raw, tmp_path):
    source = media_files.write(tmp_path / "whole.mp4", noise(2, 40), sound(4.0))
    whole = front_index(source, tmp_path / "front.mp4")
    options = {"window": 9.0}
    heard = ["the sound lasts 4.0 s: its first 1.0 s are used"]
    assert alone(whole, **options)["warnings"] == heard
    (said, *_) = alone(cut(whole), **options)["warnings"]
    assert said.startswith("front.mp4 ends after ") and said.endswith(
        "of 4.0 s: it seems to be cut"
    )
    wav = {"sound_codec": "pcm_s16le", "form": "s16"}
    file = media_files.write(tmp_path / "voice.wav", sound=sound(0.5), **wav)
    (said,) = alone(cut(file))["warnings"]
    (size,) = struct.unpack("<I", file.read_bytes()[4:8])
    missing = size + 8 - file.stat().st_size
    assert said == f"voice.wav lacks its last {missing} bytes: it seems to be cut"


def test_files_that_cannot_be_read(run, raw, tmp_path):
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    source = media_files.write(tmp_path / "cut.mp4", noise(2))
    blank = media_files.packets(tmp_path / "blank.mkv", "mpeg4", [bytes(50)] * 3)
    text = tmp_path / "notes.txt"
    text.write_text("Nothing to see.")
    for file, words in (
        (empty, "empty.mp4: the file is empty"),
        (cut(source), "cut.mp4: cannot be read as video or sound"),
        (blank, "blank.mkv: no frame of its video stream can be decoded"),
        (text, "notes.txt: cannot be read as video or sound"),
        (tmp_path / "none.mp4", "none.mp4: no such file or folder"),
    ):
        with pytest.raises(InputError, match=words):
            run_on(run, file, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_broken_file_among_others(run, raw, tmp_path):
    folder = tmp_path / "many"
    (folder / "inner").mkdir(parents=True)
    shutil.copy(raw / "voice.wav", folder / "a.wav")
    shutil.copy(raw / "all.mp4", folder / "b.mp4")
    (folder / "broken.mp4").write_bytes(b"")
    (folder / "c.png").write_bytes(b"no image")
    (folder / ".hidden").write_bytes(b"")
    result = run_on(run, folder, output=tmp_path / "out")
    assert [p["id"] for p in result["predictions"]] == ["a.wav", "b.mp4"]
    failed = {entry["input"]: entry["reason"] for entry in result["failed"]}
    assert set(failed) == {"broken.mp4", "c.png", "inner"}
    assert "0 bytes" in failed["broken.mp4"] and "image" in failed["c.png"]
    for name in ("a.wav", "b.mp4"):
        (folder / name).unlink()
    with pytest.raises(InputError, match=r"many: none of 3 can be predicted; the first: .*0 bytes"):
        run_on(run, folder, output=tmp_path / "out")


def test_a_table_with_wrong_rows(run, raw, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    shutil.copy(raw / "voice.wav", folder / "a.wav")
    rows = [
        ("good", "a.wav", ""),
        ("gone", "none.mp4", ""),
        ("nothing", "", " "),
        ("out", str(raw / "voice.wav"), ""),
        ("good", "", "Again."),
        ("", "a.wav", ""),
        ("comma", "", "Well", " well."),
    ]
    path = table(folder / "x.csv", rows, ("id", "audio", "text"))
    result = run_on(run, path, output=tmp_path / "out")
    assert [p["id"] for p in result["predictions"]] == ["good"]
    reasons = [
        ("gone", "line 3: audio none.mp4 is not there"),
        ("nothing", "line 4: has no video, no audio and no text"),
        ("out", "leads out of"),
        ("good", "line 6: stands twice"),
        ("line 7", "has no id"),
        ("comma", "line 8: has too many values"),
    ]
    for entry, (name, words) in zip(result["failed"], reasons, strict=True):
        assert entry["input"] == name and words in entry["reason"]
    allowed = run_on(run, path, output=tmp_path / "out", allow_outside=True)
    assert [p["id"] for p in allowed["predictions"]] == ["good", "out"]
    with pytest.raises(
        InputError, match="column 'mood' is unknown; allowed: id, split, label, vid"
    ):
        run_on(run, table(folder / "y.csv", [("a", "b")], ("id", "mood")))
    with pytest.raises(InputError, match="none of the columns video, audio, text; found id, label"):
        run_on(run, table(folder / "y.csv", [("a", "b")], ("id", "label")))


def test_arguments_that_are_wrong(run, raw, tmp_path):
    (tmp_path / "empty").mkdir()
    for source, options, words in (
        (None, {}, "--input and --text are both missing"),
        (None, {"text": " "}, "--text is blank"),
        (raw, {"text": "hm"}, "--text goes with one file"),
        (raw / "clips.csv", {"text": "hm"}, "--text goes with one file"),
        (tmp_path / "empty", {}, "holds no file"),
        (raw / "voice.wav", {"window": 0.0}, "a window of 0 s"),
        (raw / "voice.wav", {"window": float("nan")}, "a window of nan s"),
        (raw / "voice.wav", {"hop": 2.0}, "a window of 1 s with a hop of 2 s; allowed"),
        (raw / "voice.wav", {"output": raw / "voice.wav"}, "cannot write to .*voice.wav"),
    ):
        with pytest.raises(InputError, match=words):
            run_on(run, source, **{"output": tmp_path / "out"} | options)


def test_a_text_that_is_no_utf8():
    said = b"d\xe9j\xe0".decode("utf-8", "surrogateescape")  # as Python hands arguments over
    with pytest.raises(InputError, match="--text has bytes that are no UTF-8"):
        prediction_input.listed(None, said)


def test_workdirs_without_a_model(start, run, tmp_path):
    child = start("predict", f"--checkpoint={tmp_path / 'none'}", "--text=hm")
    code, out, err = child.wait()
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, out, len(errors)) == (2, "", 1) and "none is no workdir" in errors[0]
    child = start("predict", "--text=hm")
    assert child.wait()[0] == 2
    untrained = changed(run, tmp_path / "untrained")
    shutil.rmtree(untrained / "checkpoints")
    with pytest.raises(InputError, match="has no trained model"):
        run_on(untrained, text="hm")


def test_a_model_of_features_alone(finished):
    with pytest.raises(InputError, match="reads features of text, audio, vision, which cannot"):
        run_on(finished, text="hm")


def features_of(folder, arrays, ids=None):
    """Writes a folder of features without labels."""
    folder.mkdir()
    np.savez(folder / "features.npz", **arrays)
    if ids:
        (folder / "labels.csv").write_text("id\n" + "\n".join(ids) + "\n")
    return folder


def arrays(count, seed=5):
    rng = np.random.default_rng(seed)
    return {m: rng.normal(2, 3, (count, *d)).astype("f4") for m, d in DIMS.items()}


@pytest.mark.parametrize("kind", ["class", "score"])
def test_a_model_of_features_reads_a_folder_of_them(kind, finished, tmp_path):
    """The numbers are those of the evaluation, which reads the same arrays with labels."""
    workdir = finished
    if kind == "score":
        raw = write_own(tmp_path / "raw", "score")
        workdir = tmp_path / "run"
        loop.train(toy_config(raw), workdir)
    else:
        raw = Path(json.loads((finished / "config.json").read_text())["config"]["data"]["dir"])
    rows = evaluated(workdir)
    result = run_on(workdir, raw, output=tmp_path / "out")
    found = {p["id"]: p for p in result["predictions"]}
    assert len(found) == sum(SIZES.values()) and result["failed"] == []
    for name, row in rows.items():
        if kind == "class":
            assert found[name]["prediction"] == row["prediction"]
            expected = [float(row[c]) for c in result["classes"]]
            np.testing.assert_allclose([*found[name]["probability"].values()], expected, atol=1e-5)
        else:
            assert found[name]["prediction"] == pytest.approx(float(row["prediction"]), abs=1e-4)
            assert "probability" not in found[name]


def test_features_need_no_table(finished, tmp_path):
    given = arrays(3)
    plain = features_of(tmp_path / "plain", given)
    named = features_of(tmp_path / "named", given, ["a", "b", "c"])
    one, other = (run_on(finished, f, output=tmp_path)["predictions"] for f in (plain, named))
    assert [p["id"] for p in one] == ["0", "1", "2"] and [p["id"] for p in other] == [*"abc"]
    assert [p["probability"] for p in one] == [p["probability"] for p in other]
    model = affectjax.load(finished)
    each = [model({m: x[i] for m, x in given.items()}) for i in range(3)]
    assert [r.probability for r in each] == [p["probability"] for p in one]
    assert list(model.many(plain, progress=False)["label"]) == [r.label for r in each]
    alone = model({"text": given["text"][0]})
    assert alone.modalities == ["text"] and alone.missing == ["audio", "vision"]


def test_features_without_a_number(finished, tmp_path):
    """What is NaN or infinite counts as 0, as in a preparation."""
    given = {m: x[0] for m, x in arrays(1).items()}
    model = affectjax.load(finished)
    broken = given["audio"].copy()
    broken[2, 1], broken[3, 0] = np.nan, np.inf
    mended = np.where(np.isfinite(broken), broken, 0)
    result = model(given | {"audio": broken})
    assert result.probability == model(given | {"audio": mended}).probability
    assert result.warnings == ["audio has 2 values that are NaN or infinite: 0 there"]
    for wrong in (["a", "b"], [[1.0], [1.0, 2.0]]):
        with pytest.raises(InputError, match="audio is no array of numbers"):
            model(given | {"audio": wrong})
    with pytest.raises(InputError, match="'video' is no input"):
        model(given | {"video": "a.mp4"})
    empty = features_of(tmp_path / "empty", {m: x[:0] for m, x in arrays(1).items()})
    with pytest.raises(InputError, match=r"arrays of \[0\] examples"):
        run_on(finished, empty, output=tmp_path)


def test_a_model_of_clips_reads_no_features(run, tmp_path):
    folder = features_of(tmp_path / "features", arrays(2))
    with pytest.raises(InputError, match="the model reads clips, and no features"):
        run_on(run, folder, output=tmp_path)


def test_features_of_another_shape(finished, tmp_path):
    given = arrays(2)
    wide = features_of(tmp_path / "wide", given | {"audio": given["audio"][..., :2]})
    with pytest.raises(InputError, match=r"audio has the shape \[7, 2\]; expected \[steps, 3\]"):
        run_on(finished, wide, output=tmp_path)
    uneven = features_of(tmp_path / "uneven", given | {"audio": given["audio"][:1]})
    with pytest.raises(InputError, match=r"arrays of \[1, 2\] examples"):
        run_on(finished, uneven, output=tmp_path)
    with pytest.raises(InputError, match="'txt' is no input; allowed: text, audio, vision"):
        affectjax.load(finished)({"text": given["text"][0], "txt": given["text"][0]})


def test_some_features_are_left_out(raw):
    kinds = {"text": Features(5, 4), "audio": Waveform(8000), "vision": Frames(4, 32)}
    inputs = Inputs(kinds, LabelSpec("class", tuple(CLASSES)))
    data = DataConfig("clips", dir=str(raw), view="clips", detector="none")
    clip = Clip("x", None, "", video=raw / "all.mp4", text="What a day!")
    reader = prediction_input.Reader(data, inputs, ("text", "audio", "vision"))
    record, warnings = reader.read(clip)
    assert reader.readable == ("audio", "vision")
    assert record["transcript"] == "" and len(record["vision"]) and len(record["audio"])
    assert "the model reads no text: what is said does not count" in warnings
    assert inputs.collate([record])["present"]["text"].tolist() == [False]
    deaf = prediction_input.Reader(
        data, Inputs({"vision": kinds["vision"]}, inputs.spec), ("vision",)
    )
    assert "audio" not in deaf.read(clip)[0]
    blind = prediction_input.Reader(
        data, Inputs({"audio": kinds["audio"]}, inputs.spec), ("audio",)
    )
    record, _ = blind.read(clip)
    assert "vision" not in record and len(record["audio"])


# ---- how the training's clips were stored -------------------------------------------------------


def test_how_clips_were_stored(raw, tmp_path):
    spec = LabelSpec("class", tuple(CLASSES))
    inputs = Inputs({"vision": Frames(4, 32)}, spec)
    own = DataConfig("clips", dir=str(raw), view="clips", keep_frames=9)
    assert prediction_input.storage(own, inputs) == Storage(32, 9, "cascade", "jpeg", False)
    made = DataConfig("affect_synth", view="clips")
    assert prediction_input.storage(made, inputs) == Storage(32, 64, "none", "png", False)
    storage = Storage(image_size=32, keep_frames=3, detector="none", image_encoding="png")
    folder = prepared.prepare(
        "clips", raw, tmp_path / "data", aligned=False, view="clips", storage=storage
    )
    for place in (folder, tmp_path / "data"):
        ready = DataConfig("clips", dir=str(place), view="clips", keep_frames=9)
        assert prediction_input.storage(ready, inputs) == storage


# ---- as an object -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(run):
    return affectjax.load(run)


def test_the_object_says_what_the_app_says(model, raw, alone):
    said = alone(raw / "long.mkv", text="What a day!")
    result = model(raw / "long.mkv", text="What a day!")
    assert (result.id, result.label) == ("long.mkv", said["prediction"])
    for name in ("probability", "contribution", "timeline", "prompts", "modalities", "missing"):
        assert getattr(result, name) == said[name]
    assert result.warnings == said["warnings"] and result.label in str(result)
    frame = result.frame()
    assert list(frame.columns) == ["start", "end", "label", *CLASSES]
    assert len(frame) == len(said["timeline"]) > 1
    np.testing.assert_allclose(frame["end"], [w["end"] for w in said["timeline"]])


def test_whatever_stands_for_a_clip(model, raw):
    """A file, its bytes, its decoded frames and sound: the same model sees the same."""
    files = [raw / "image.png", str(raw / "image.png"), (raw / "image.png").read_bytes()]
    picture = noise(24, 1)
    arrays = [picture, picture[0], PIL.Image.fromarray(picture[0]), {"video": picture}]
    found = [values(vars(model(source))) for source in (*files, *arrays)]
    np.testing.assert_allclose(found, np.broadcast_to(found[0], np.shape(found)), atol=1e-6)
    wave = sound(0.5)[0]
    pcm = decoding.audio(raw / "voice.wav", 1.0) * 32768
    assert np.abs(pcm - wave * 32768).max() < 1
    pcm = pcm.astype(np.int16)
    stereo = np.stack([pcm, pcm], axis=1)
    heard = [raw / "voice.wav", (pcm, 16000), (pcm / 32768, 16000), (stereo, 16000)]
    heard += [{"audio": raw / "voice.wav"}, {"audio": (raw / "voice.wav").read_bytes()}]
    found = [values(vars(model(source))) for source in heard]
    np.testing.assert_allclose(found, np.broadcast_to(found[0], np.shape(found)), atol=1e-4)
    both = model({"video": raw / "silent.mp4", "audio": raw / "voice.wav", "id": "pair"})
    assert both.id == "pair" and both.modalities == ["audio", "vision"]
    assert model(text="Only words.").modalities == ["text"]


def test_another_rate(model, raw):
    """A tone at 48 kHz is heard as the one at 16 kHz."""
    fast = media_files.tone(0.5, 48000, 440.0)
    np.testing.assert_allclose(
        values(vars(model((fast, 48000)))), values(vars(model(raw / "voice.wav"))), atol=0.02
    )


@pytest.mark.parametrize(
    ("source", "text", "expected"),
    [
        (None, None, "neither a source nor a text"),
        (None, "  ", "blank"),
        ("nowhere.mp4", None, "no such file"),
        (b"no media at all", None, "source"),
        (np.zeros((4, 8, 8, 3), np.float32), None, "float32 [4, 8, 8, 3]; expected frames uint8"),
        (np.zeros(16000, np.float32), None, "(waveform, samples a second)"),
        ((np.zeros(0, np.float32), 16000), None, "expected [samples]"),
        ((np.zeros(100, np.float32), 1), None, "samples a second; allowed"),
        ((np.zeros(100, np.float32), "16000"), None, "both numbers"),
        ((np.array(["a"]), 16000), None, "both numbers"),
        ({"text": 5}, None, "a text is int"),
        ((np.full(100, np.nan), 16000), None, "NaN"),
        ({"vidoe": "a.mp4"}, None, "'vidoe' is no input; allowed: video, audio, text, id"),
        ({"text": "a"}, "b", "twice"),
    ],
)
def test_what_is_no_clip(model, source, text, expected):
    with pytest.raises(InputError) as refused:
        model(source, text=text)
    assert expected in str(refused.value)


def test_many(model, raw, tmp_path, table_result):
    frame = model.many(raw / "clips.csv", progress=False).set_index("id")
    found = {p["id"]: p for p in table_result["predictions"]}
    assert set(frame.index) == set(found)
    for name, row in frame.iterrows():
        assert row["label"] == found[name]["prediction"]
        assert row["modalities"] == "+".join(found[name]["modalities"])
        np.testing.assert_allclose([row[c] for c in CLASSES], values(found[name]), atol=1e-6)
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    frame = model.many([raw / "all.mp4", tmp_path / "bad.mp4"], progress=False)
    assert list(frame["id"]) == [str(raw / "all.mp4"), str(tmp_path / "bad.mp4")]
    assert frame["label"].isna().tolist() == [False, True]
    assert "bad.mp4" in frame["error"][1] and frame["error"].isna()[0]


def test_pictures_of_a_result(model, raw, tmp_path):
    image = model(raw / "image.png")
    image.plot(tmp_path / "bars.png")
    model(raw / "long.mkv").plot(tmp_path / "timeline.png")
    for name in ("bars", "timeline"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    page = image._repr_html_()
    assert all(f"<td>{name}</td>" in page for name in CLASSES) and page.count("<tr>") == 2
    (row,) = image.frame().to_dict("records")
    assert row["label"] == image.label and np.isnan(row["start"])


def test_an_exported_model_reads_files_as_the_run_does(run, raw, tmp_path):
    exported = exporting.export(run, tmp_path / "model")
    assert (exported / "tokenizer").is_dir()
    said = {"text": "What a day!", "output": tmp_path}
    ours, theirs = (run_on(place, raw / "long.mkv", **said) for place in (run, exported))
    assert ours["predictions"] == theirs["predictions"]
    card = (exported / "README.md").read_text()
    assert 'model("clip.mp4", text="what was said")' in card and "vision (frames)" in card
