"""The demo: its configs are whole, its film can be read, its tables say what the runs say."""

import json

import numpy as np
import pytest

from affectjax.data.media import decoding
from affectjax.modalities import SAMPLE_RATE
from affectjax.training import run_config
from launch import demo, film


def test_its_configs_are_those_of_runs():
    shown = run_config.resolve(demo.umbenet_config())
    alone = run_config.resolve(demo.alone_config())
    assert alone["data"]["modalities"] == alone["model"]["modalities"] == ("text",)
    assert shown["data"]["tokens"] == alone["data"]["tokens"]
    epochs = [sum(s["epochs"] for s in c["stages"].values()) for c in (shown, alone)]
    assert epochs[0] == epochs[1], "it may train as long"
    for config in demo.other_configs().values():
        run_config.resolve(config)


def test_the_film_is_read_as_it_was_written(tmp_path):
    frames, sound = film.acted(("happy", "angry"))
    assert frames.shape[1:] == (64, 64, 3) and len(frames) == 32
    assert len(sound) == 3 * SAMPLE_RATE
    path = tmp_path / "film.mp4"
    film.write(path, frames, sound)
    assert decoding.duration(path) == pytest.approx(3.0, abs=0.1)
    seen = decoding.video(path, 32).astype(float)
    assert np.abs(seen - frames).mean() < 6
    heard = decoding.audio(path)
    assert heard.shape[0] == pytest.approx(len(sound), rel=0.03)


def test_no_person_acts_what_is_no_emotion():
    with pytest.raises(LookupError, match=r"no person .* acts bored"):
        film.acted(("bored",))


def test_the_table_has_every_subset_and_the_other_model_beside_its_modality(tmp_path):
    names = ["text", "audio", "vision", "text+audio", "text+audio+vision"]
    subsets = {name: {"war": i / 10} for i, name in enumerate(names)}
    folder = tmp_path / "umbenet" / "eval"
    folder.mkdir(parents=True)
    (folder / "missing.json").write_text(json.dumps({"split": "test", "subsets": subsets}))
    linear = {f"linear, {name}": {"test": {"war": 0.3}} for name in ("text", "all")}
    content = {"metrics": ["war"], "baselines": {"majority": {"test": {"war": 0.1}}, **linear}}
    (folder / "baselines.json").write_text(json.dumps(content))
    (folder / "test.json").write_text(json.dumps({"war": 0.4}))
    head, *rows = demo.missing_table(tmp_path, {"war": 0.5}).splitlines()
    assert head.split() == ["shown", "UMBEnet", "text", "alone", "linear", "model"]
    assert [row.split() for row in rows] == [
        ["text+audio+vision", "40.0", "30.0"],
        ["text+audio", "30.0"],
        ["text", "0.0", "50.0", "30.0"],
        ["audio", "10.0"],
        ["vision", "20.0"],
    ]


def test_the_timeline_names_the_most_probable_emotion_of_each_window():
    windows = [{"start": 0.0, "end": 1.5, "probability": {"happy": 0.75, "angry": 0.25}}]
    assert demo.timeline({"timeline": windows}) == (
        "  0.00 to 1.50 s  happy      75% ###############"
    )
