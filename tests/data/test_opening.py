"""The data sets of a run: sources that are the main set, and frames of another size."""

import cv2
import numpy as np
import pytest

from affectjax.data.batches import config as data_config
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
    """Returns a section of `config.data`."""
    how = {"view": "clips", "detector": "none", "image_size": side, "frames": 1}
    where = {"name": "clips", "dir": str(folder), "cache_dir": str(cache)}
    return {**where, "class_map": "seven", **how, **changes}


def opened(section, names, *more):
    return open_all(data_config.read(section, names), *more)


def ids(dataset, role):
    return set(dataset.ids(dataset.part(role)))


def test_a_source_that_is_the_main_set_trains_on_nothing_that_judges_it(tmp_path):
    faces(tmp_path / "faces", 8)
    source = config(tmp_path / "faces", tmp_path, 8)
    main = config(
        tmp_path / "faces", tmp_path, 8, valid="holdout", holdout=0.4, seed=7,
        sources={"vision": source},
    )  # fmt: skip
    found = opened(main, ("", "vision"))
    assert len(ids(found[""], "valid")) == 12
    for role in ("train", "valid", "test"):
        assert ids(found["vision"], role) == ids(found[""], role)
    assert not ids(found["vision"], "train") & (ids(found[""], "valid") | ids(found[""], "test"))
    whole = data_config.resolve(main, ("", "vision"))["sources"]["vision"]
    assert (whole["valid"], whole["holdout"], whole["seed"]) == ("holdout", 0.4, 7)


@pytest.mark.parametrize(
    ("key", "value"),
    [("test", "train"), ("valid", "test"), ("holdout", 0.3), ("seed", 1), ("kfold", 3)],
)
def test_a_source_that_is_the_main_set_has_no_splits_of_its_own(key, value, tmp_path):
    """Its part would not be what the config says: that was once overruled in silence."""
    faces(tmp_path / "faces", 8)
    source = config(tmp_path / "faces", tmp_path, 8, **{key: value})
    how = {"valid": "holdout", "holdout": 0.4} if key != "kfold" else {}
    main = config(tmp_path / "faces", tmp_path, 8, sources={"vision": source}, **how)
    message = rf'"config\.data\.sources\.vision\.{key}" is .* and "config\.data\.{key}" is .*same'
    with pytest.raises(InputError, match=message):
        data_config.read(main, ("", "vision"))


def test_a_source_of_that_name_elsewhere_keeps_its_own_parts(tmp_path):
    faces(tmp_path / "faces", 8)
    faces(tmp_path / "others", 8)
    other = config(tmp_path / "others", tmp_path, 8, valid="train")
    main = config(tmp_path / "faces", tmp_path, 8, valid="holdout", holdout=0.4)
    found = opened(main | {"sources": {"vision": other}}, ("", "vision"))
    assert len(ids(found["vision"], "train")) == 30


def test_a_run_of_sources_alone_describes_no_data_set_of_its_own(tmp_path):
    faces(tmp_path / "faces", 8)
    source = config(tmp_path / "faces", tmp_path, 8, valid="test")
    found = opened({"sources": {"vision": source}}, ("vision",))
    assert found["vision"].modalities == ("vision",)
    with pytest.raises(InputError, match=r'config\.data\.valid" is .test., but this run does not'):
        data_config.read({"valid": "test", "sources": {"vision": source}}, ("vision",))


def test_a_root_is_that_of_sources_without_one(tmp_path):
    vision, text = config("faces", tmp_path, 8), config("faces", tmp_path, 8, root="there")
    sources = {"vision": vision, "text": own_text(text)}
    read = data_config.read({"root": "here", "sources": sources}, ("vision", "text"))
    assert [read[m].path for m in ("vision", "text")] == ["here/faces", "there/faces"]


def own_text(section):
    return {k: v for k, v in section.items() if k not in ("detector", "image_size", "frames")}


def test_frames_of_another_size_than_the_run_saw_are_refused(tmp_path):
    faces(tmp_path / "faces", 8)
    seen = opened(config(tmp_path / "faces", tmp_path, 8, valid="test"), ("",))[""].inputs
    larger = config(tmp_path / "faces", tmp_path, 16, valid="test")
    with pytest.raises(InputError, match="16 pixels, but the run was trained on 8;"):
        opened(larger, ("",), {"": seen}, ("test",))


def test_a_source_that_is_not_there_is_named(tmp_path):
    faces(tmp_path / "faces", 8)
    with pytest.raises(InputError, match=r'"config\.data\.sources" has no audio'):
        opened(config(tmp_path / "faces", tmp_path, 8, valid="test"), ("", "audio"))
    with pytest.raises(InputError, match=r'"config\.data\.sources\.audio" is not read by this run'):
        opened({"name": "clips", "sources": {"audio": {"name": "clips"}}}, ("",))
