"""The workdir: who may go on in it, JSON without NaN, and where metrics.jsonl is cut."""

import json
import os

import numpy as np
import pytest
from conftest import toy_config

from affectjax.errors import InputError
from affectjax.runtime import workdir as workdir_lib
from affectjax.runtime.workdir import MetricWriter, Workdir, write_json

WHERE = {"step": 4, "epoch": 0, "stage": "train", "split": "valid", "seed": 1}


@pytest.fixture
def claimed(tmp_path):
    folder = Workdir(tmp_path / "run")
    folder.claim(toy_config("raw"))
    return folder


def test_claim_makes_folder_and_config(claimed):
    assert claimed.config() == json.loads(json.dumps(toy_config("raw").to_dict()))
    assert {f.name for f in claimed.path.iterdir()} == {"config.json", "checksums.json"}


@pytest.mark.parametrize("plain", [False, True], ids=["as main gives it", "as a dict"])
def test_the_same_config_may_go_on(claimed, plain):
    config = toy_config("raw")
    claimed.claim(config.to_dict() if plain else config)


def test_the_same_config_in_an_order_of_its_own_may_go_on(claimed):
    config = toy_config("raw").to_dict()
    claimed.claim({key: config[key] for key in reversed(config)})


def test_another_config_is_refused_by_key(claimed):
    other = toy_config("raw", optim__learning_rate=0.5, seeds=(1, 2))
    with pytest.raises(InputError) as refused:
        claimed.claim(other)
    message = str(refused.value)
    assert "optim.learning_rate: now 0.5, there 0.02" in message
    assert "seeds: now [1, 2], there []" in message
    for same in ("hidden", "parallel", "task", "data.split"):
        assert same not in message


@pytest.mark.parametrize(
    "changes",
    [{"data__split": "valid"}, {"parallel__coordinator": "a:1"}, {"parallel__process": 1}],
    ids=["what to evaluate", "coordinator", "process"],
)
def test_what_is_no_training_may_differ(claimed, changes):
    claimed.claim(toy_config("raw", **changes))


def test_a_folder_with_other_files_may_be_used(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    Workdir(tmp_path).claim(toy_config())
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_no_workdir(tmp_path):
    with pytest.raises(InputError, match=r"is no workdir: it has no config\.json"):
        Workdir(tmp_path).config()


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "3"])
def test_a_config_json_that_cannot_be_read(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        Workdir(tmp_path).claim(toy_config())


def test_a_workdir_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to the workdir .*file/run"):
        Workdir(tmp_path / "file" / "run").claim(toy_config())


def test_a_workdir_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to the workdir .*file"):
        Workdir(tmp_path / "file").claim(toy_config())


@pytest.mark.parametrize("again", [False, True], ids=["new", "again"])
def test_a_read_only_workdir(tmp_path, monkeypatch, again):
    folder = Workdir(tmp_path / "run")
    if again:
        folder.claim(toy_config())

    def refuse(path, *_args, **_keywords):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(workdir_lib.Path, "touch", refuse)
    with pytest.raises(InputError, match=r"cannot write to the workdir .*Permission denied"):
        folder.claim(toy_config())
        folder.check_writable()
    files = [f.name for f in folder.path.rglob("*")]
    assert sorted(files) == (["checksums.json", "config.json"] if again else [])


def test_json_has_null_for_what_is_no_number(tmp_path):
    value = {"a": float("nan"), "b": [float("inf"), (1.5, {"c": -float("inf")})], "d": "nan"}
    write_json(tmp_path / "deep" / "x.json", value)
    text = (tmp_path / "deep" / "x.json").read_text()
    assert json.loads(text) == {"a": None, "b": [None, [1.5, {"c": None}]], "d": "nan"}
    assert [f.name for f in (tmp_path / "deep").iterdir()] == ["x.json"]


def test_json_is_written_at_once_or_not_at_all(tmp_path, monkeypatch):
    write_json(tmp_path / "x.json", 1)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_json(tmp_path / "x.json", 2)
    assert (tmp_path / "x.json").read_text() == "1\n"


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_line_is_where_and_numbers(tmp_path):
    writer = MetricWriter(Workdir(tmp_path))
    values = {"loss": 0.5, "n": 3, "nan": float("nan"), "confusion": [[1]], "np": np.float64(2.0)}
    writer.write(WHERE, values)
    writer.close()
    assert lines(tmp_path) == [{**WHERE, "loss": 0.5, "n": 3.0, "nan": None, "np": 2.0}]
    assert list(tmp_path.glob("tensorboard/*"))


def test_a_line_is_on_disk_at_once(tmp_path):
    writer = MetricWriter(Workdir(tmp_path))
    writer.write(WHERE, {"loss": 0.5})
    assert len(lines(tmp_path)) == 1
    writer.close()


def test_what_came_after_the_checkpoint_is_cut_off(tmp_path):
    writer = MetricWriter(Workdir(tmp_path))
    writer.write(WHERE, {"loss": 1.0})
    position, crc = writer.position, writer.crc
    writer.write(WHERE, {"loss": 2.0})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"half')
    writer = MetricWriter(Workdir(tmp_path), position, 4, crc)
    assert writer.position == position
    writer.write(WHERE, {"loss": 3.0})
    assert writer.position == 2 * position
    writer.close()
    assert [line["loss"] for line in lines(tmp_path)] == [1.0, 3.0]


@pytest.mark.parametrize("damage", ["NUL bytes", "cut", "changed"])
def test_damaged_metrics_are_refused(tmp_path, damage):
    writer = MetricWriter(Workdir(tmp_path))
    writer.write(WHERE, {"loss": 1.0})
    writer.close()
    file, size = tmp_path / "metrics.jsonl", writer.position
    content = file.read_bytes()
    made = {
        "NUL bytes": bytes(size),
        "cut": content[:-9],
        "changed": content.replace(b"1.0", b"2.0"),
    }
    file.write_bytes(made[damage])
    with pytest.raises(InputError, match=r"metrics\.jsonl is damaged: .* or remove it to go on"):
        MetricWriter(Workdir(tmp_path), size, 4, writer.crc)
    assert file.read_bytes() == made[damage]


def test_removed_metrics_are_begun_anew(tmp_path):
    writer = MetricWriter(Workdir(tmp_path), 100, 4, 7)
    assert (writer.position, writer.crc) == (0, 0)
    writer.write(WHERE, {"loss": 3.0})
    writer.close()
    assert [line["loss"] for line in lines(tmp_path)] == [3.0]
    again = MetricWriter(Workdir(tmp_path), writer.position, 4, writer.crc)
    assert again.position == writer.position
    again.close()


def test_a_config_json_that_was_changed_is_refused(claimed):
    file = claimed.path / "config.json"
    file.write_text(file.read_text().replace("0.02", "0.03"))
    with pytest.raises(InputError, match=r"config\.json is damaged: .* take its line out"):
        claimed.config()
