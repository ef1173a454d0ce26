"""The data sets of a run: sources that are the main set, and frames of another size."""

import dataclasses

import cv2
import numpy as np
import pytest

from affectjax.data.batches.dataset import DataConfig
from affectjax.data.batches.open_datasets import open_all
from affectjax.errors import InputError


def faces(folder, side):
    """Writes 40 faces of two classes as one's own clips."""
    folder.mkdir()
    rows = ["id,split,label,video"]
    for i in range(40):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((side, side, 3), i, np.uint8))
        rows.append(f"p{i}_0,{'train' if i < 30 else 'test'},{'sad' if i % 2 else 'happy'},{i}.png")
    (folder / "clips.csv").write_text("\n".join(rows))


def config(folder, cache, side, **changes):
    how = {"view": "clips", "detector": "none", "image_size": side, "frames": 1}
    own = DataConfig("clips", str(folder), cache_dir=str(cache), class_map="seven", **how)
    return dataclasses.replace(own, **changes)


def ids(dataset, role):
    return set(dataset.ids(dataset.part(role)))


def test_a_source_that_is_the_main_set_trains_on_nothing_that_judges_it(tmp_path):
    faces(tmp_path / "faces", 8)
    source = {
        key: value
        for key, value in dataclasses.asdict(config(tmp_path / "faces", tmp_path, 8)).items()
        if key not in ("max_length", "sources")
    }
    main = config(
        tmp_path / "faces", tmp_path, 8, valid="holdout", holdout=0.4, seed=7,
        sources={"vision": source},
    )  # fmt: skip
    found = open_all(main, ("", "vision"))
    assert len(ids(found[""], "valid")) == 12
    for role in ("train", "valid", "test"):
        assert ids(found["vision"], role) == ids(found[""], role)
    assert not ids(found["vision"], "train") & (ids(found[""], "valid") | ids(found[""], "test"))


def test_a_source_of_that_name_elsewhere_keeps_its_own_parts(tmp_path):
    faces(tmp_path / "faces", 8)
    faces(tmp_path / "others", 8)
    other = dataclasses.asdict(config(tmp_path / "others", tmp_path, 8, valid="train"))
    main = config(tmp_path / "faces", tmp_path, 8, valid="holdout", holdout=0.4)
    main = dataclasses.replace(main, sources={"vision": other | {"max_length": (), "sources": ()}})
    found = open_all(main, ("vision",))
    assert len(ids(found["vision"], "train")) == 30


def test_frames_of_another_size_than_the_run_saw_are_refused(tmp_path):
    faces(tmp_path / "faces", 8)
    seen = open_all(config(tmp_path / "faces", tmp_path, 8, valid="test"), ("",))[""].inputs
    larger = config(tmp_path / "faces", tmp_path, 16, valid="test")
    with pytest.raises(InputError, match="16 pixels, but the run was trained on 8;"):
        open_all(larger, ("",), {"": seen}, ("test",))


def test_a_source_that_is_not_there_is_named(tmp_path):
    faces(tmp_path / "faces", 8)
    with pytest.raises(InputError, match=r'"config\.data\.sources" has no audio'):
        open_all(config(tmp_path / "faces", tmp_path, 8, valid="test"), ("audio",))
