"""A data set and a reader from outside of the package, by their dotted names."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from feature_layouts import plain, steps

from affectjax.data.batches.dataset import DataConfig, Dataset
from affectjax.data.prepare import prepared
from affectjax.data.raw import readers, sets
from affectjax.data.raw.dataset import RawDataset
from affectjax.errors import InputError

MODULES = {
    "myset.py": """
        from affectjax.data.clip import Clip
        from affectjax.data.labels import LabelSpec
        from affectjax.data.raw.dataset import RawDataset

        def clips(raw, skipped):
            lines = (raw / "list.txt").read_text().splitlines()
            return [Clip(*line.split(" ", 2), text="it was " + line) for line in lines]

        DATASET = RawDataset(
            labels=LabelSpec("class", ("sad", "happy")),
            group=r"(.)",
            clip_modalities=("text",),
            sequence_files={True: (".",), False: (".",)},
            clips=clips,
        )
    """,
    "mycode.py": """
        import numpy as np

        from affectjax.data.clip import Clip
        from affectjax.data.labels import LabelSpec
        from affectjax.data.raw.dataset import RawDataset

        def generate(view, seed):
            return {split: [Clip("a", seed, split, text="a")] for split in ("train", "test")}

        DATASET = RawDataset(
            labels=LabelSpec("class", ("sad", "happy")), generate=generate, views=("clips",)
        )
    """,
    "myreader.py": """
        import numpy as np

        from affectjax.data.sequences import FeatureSet, Sequences, Split

        def matches(path):
            return path.is_dir() and (path / "numbers.txt").is_file()

        def read(path, spec, *, aligned, max_length, skipped, limits):
            x = np.loadtxt(path / "numbers.txt", dtype=np.float32)[:, None, None]
            part = Split(("a", "b"), np.int32([0, 1]), {"text": Sequences(x, x[..., 0] > 0)})
            return FeatureSet({"train": part})
    """,
    "notaset.py": "",
}


@pytest.fixture(autouse=True)
def outside(tmp_path, monkeypatch):
    """Writes the package `elsewhere` into a folder on the Python path, and returns that folder."""
    folder = tmp_path / "path"
    (folder / "elsewhere").mkdir(parents=True)
    for name, content in {"__init__.py": "", **MODULES}.items():
        (folder / "elsewhere" / name).write_text(textwrap.dedent(content))
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [n for n in sys.modules if n.partition(".")[0] == "elsewhere"]:
        del sys.modules[name]


@pytest.fixture
def raw(tmp_path):
    """Writes raw files of both views."""
    rows = [("a1", "train", "happy"), ("b1", "train", "sad"), ("c1", "valid", "sad")]
    folder = plain(tmp_path / "raw", [*rows, ("d1", "test", "sad")], text=steps([1, 2, 3, 2], 3, 2))
    lines = ("a1 happy train", "b1 sad train", "c1 sad valid", "d1 happy test")
    (folder / "list.txt").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("view", ["sequences", "clips"])
def test_a_set_is_prepared_and_opened_by_its_dotted_name(raw, tmp_path, view):
    name = "elsewhere.myset"
    folder = prepared.prepare(name, raw, tmp_path / "data", aligned=False, view=view)
    place = "clips" if view == "clips" else "unaligned"
    assert folder == tmp_path / "data" / name / place / "1.0.0"
    for where in (raw, folder):
        config = DataConfig(
            name, dir=str(where), view=view, cache_dir=str(tmp_path / "cache"), valid="holdout",
            holdout=0.5,
        )  # fmt: skip
        data = Dataset(config)
        assert data.spec.classes == ("sad", "happy") and data.modalities == ("text",)
        # The group is the first letter: one of the two training examples is held out.
        assert sorted(data.ids(data.part("train")) + data.ids(data.part("valid"))) == ["a1", "b1"]
        assert data.ids(data.part("test")) == ["d1"]
    assert prepared.prepare(name, tmp_path / "data", tmp_path, aligned=False, view=view) == folder


def test_code_of_ones_own_makes_data(outside, tmp_path):
    def cached():
        sys.modules.pop("elsewhere.mycode", None)
        return prepared.cached("elsewhere.mycode", None, tmp_path, aligned=False, view="clips")

    first = cached()
    assert prepared.open_prepared(first).splits == {"train": 1, "test": 1}
    module = outside / "elsewhere" / "mycode.py"
    code = module.read_text()
    # Only what changes the data makes other data.
    module.write_text('"""It makes clips."""\n' + code + "# That is all.\n")
    assert cached() == first
    module.write_text(code.replace('text="a"', 'text="another"'))
    assert cached() != first


def test_a_reader_by_its_dotted_name(tmp_path):
    np.savetxt(tmp_path / "numbers.txt", [3.0, 4.0])

    def cached():
        how = {"aligned": False, "format": "elsewhere.myreader"}
        return prepared.cached("elsewhere.myset", tmp_path, tmp_path / "cache", **how)

    first = cached()
    assert cached() == first
    source = prepared.open_prepared(first).source("train")
    assert [example["text"].tolist() for example in source] == [[[3.0]], [[4.0]]]
    np.savetxt(tmp_path / "numbers.txt", [3.0, 5.0])
    assert cached() != first
    with pytest.raises(InputError, match=r"format 'elsewhere\.yours' cannot be imported"):
        readers.get("elsewhere.yours")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("elsewhere.notaset", "its module has no DATASET, a RawDataset"),
        ("elsewhere.gone", "there is no module 'elsewhere.gone' on the Python path"),
        ("../elsewhere", "is no dotted name"),
        ("..", "is no dotted name"),
    ],
)
def test_what_is_no_set(name, words):
    with pytest.raises(InputError, match=words):
        sets.get(name)


def test_a_set_has_something_to_prepare():
    with pytest.raises(ValueError, match="sequence_files or clips, or generate and views"):
        RawDataset(labels=sets.get("mosi").labels)


def test_what_the_clips_of_a_set_can_have():
    faces = ("fer2013", "rafdb", "affectnet", "fedro", "imagen")
    assert {sets.get(name).clip_modalities for name in faces} == {("vision",)}
    assert sets.get("goemotions").clip_modalities == ("text",)
    assert sets.get("dfew").clip_modalities == ("audio", "vision")
    assert sets.get("iemocap").clip_modalities == ("text", "audio")
    assert sets.get("meld").clip_modalities == ("text", "audio", "vision")


def test_the_app_prepares_it(raw, outside, tmp_path):
    command = (
        f"{sys.executable} -m affectjax.prepare --dataset=elsewhere.myset --raw_dir={raw}"
        f" --data_dir={tmp_path / 'data'} --view=clips"
    )
    path = os.pathsep.join((str(outside), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        command.split(),
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("data/elsewhere.myset/clips/1.0.0")
