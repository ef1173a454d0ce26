"""Bad input on the command line: one clear sentence, exit code 2, nothing half written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import CONFIG_FILE, lines_of, write_own

from affectjax.reports import run_report

ROOT = Path(__file__).parents[1]


def refused(child, *words):
    """Checks exit code 2 and one sentence with these words; returns the sentence."""
    code, out, said = child.wait(20)
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert code == 2, said
    assert len(errors) == 1 and "Traceback" not in said, said
    # Nothing but what the log says comes with it.
    rest = [line for line in said.splitlines() if line != errors[0] and line[:1] not in "IW"]
    assert rest == [] and out == ""
    for word in words:
        assert word in errors[0]
    return errors[0]


@pytest.fixture
def main(start, own, tmp_path):
    """Starts `main` on the toy with flags of the test's own; nothing may be left behind."""
    workdir = tmp_path / "run"

    def run(*flags, config=f"{CONFIG_FILE}:{own}"):
        return start("main", f"--config={config}", f"--workdir={workdir}", *flags)

    yield run
    left = [str(f) for f in workdir.rglob("*")] if workdir.exists() else []
    assert left == []


BAD = {
    "wrong engine": (["--config.parallel.engine=tpu"], ["engine is 'tpu'", "pmap, shard_map"]),
    "seeds twice": (["--config.seeds=(1,2,1)"], ["config.seeds", "twice"]),
    "negative seed": (["--config.seed=-1"], ["config.seed", "-1"]),
    "no such metric": (
        ["--config.stages.train.select=accuracy"],
        ["config.stages.train.select", "accuracy", "war", "loss"],
    ),
    "no number": (
        ["--config.stages.train.select=confusion"],
        ["config.stages.train.select", "war"],
    ),
    "no dir": (["--config.data.dir="], ["config.data.dir", "own"]),
    "a key of other data": (["--config.data.detector=nonsense"], ["config.data.detector"]),
    "a key of other data at its default": (
        ["--config.data.detector=cascade"],
        ['"config.data.detector" is', 'does not read it: it belongs to "How frames are cropped'],
    ),
    "no such dir": (["--config.data.dir=nowhere/at/all"], ["nowhere/at/all"]),
    "no such set": (["--config.data.name=mosii"], ["mosii", "mosi"]),
    "no such split": (
        ["--config.data.valid=dev"],
        ["config.data.valid", "dev", "train, valid, test"],
    ),
    "no such view": (["--config.data.view=videos"], ["view is 'videos'", "sequences, clips"]),
    "a view that the set lacks": (
        ["--config.data.view=clips"],
        ["data set own has no view 'clips'", "sequences"],
    ),
    "no folds": (["--config.data.fold=3"], ["config.data.fold", "'3'", "no folds"]),
    "a threshold of classes": (
        ["--config.data.threshold=0.5"],
        ["config.data.threshold", "of kind 'class'"],
    ),
    "no such class": (
        ["--config.data.without=('angy',)"],
        ["config.data.without", "angy", "angry, glad, sad"],
    ),
    "no such modality": (["--config.data.modalities=('smell',)"], ["'smell' is no modality"]),
    "no such pattern": (
        ["--config.data.missing_pattern=smell", "--config.data.missing_rate=0.5"],
        ["'smell'", "random, text", "text+audio+vision"],
    ),
    "half a protocol": (["--config.data.missing_rate=0.5"], ["missing_pattern", "missing_rate"]),
    "no such task": (["--config.task=mrc"], ["config.task", "mrc", "mcr"]),
    "no processes": (["--config.parallel.processes=2"], ["coordinator"]),
    "unknown key": (["--config.optim.lerning_rate=1"], ["lerning_rate", "learning_rate"]),
    "unknown section": (["--config.optm.learning_rate=1"], ["optm", "optim"]),
    "wrong type": (["--config.stages.train.epochs=many"], ["epochs", "many"]),
    "unknown flag": (["--worksdir=a"], ["worksdir", "workdir"]),
    "no flag": (["train"], ["train"]),
    "negative heads": (
        ["--config.model.hidden=-1"],
        ["config.model.hidden", "-1", "whole numbers from 1 to 1000000"],
    ),
    "far too many frames": (
        [
            "--config.data.name=affect_synth",
            "--config.data.view=clips",
            "--config.data.frames=1000000000000",
        ],
        ["config.data.frames", "1000000000000", "to 10000000"],
    ),
    "negative epochs": (["--config.stages.train.epochs=-1"], ["config.stages.train", "epochs"]),
    "empty batch": (["--config.stages.train.batch_size=0"], ["config.stages.train", "batch_size"]),
}


@pytest.mark.parametrize(("flags", "words"), BAD.values(), ids=BAD.keys())
def test_bad_flags(main, flags, words):
    refused(main(*flags), *words)


def test_a_modality_that_the_data_lacks(start, scores, tmp_path):
    workdir = tmp_path / "run"
    config = f"--config={ROOT / 'configs' / 'mcr.py'}:own"
    child = start(
        "main",
        config,
        f"--config.data.dir={scores}",
        "--config.model.modalities=('text','vision')",
        f"--workdir={workdir}",
    )
    refused(child, "config.model.modalities", "vision", "text, audio")
    assert not workdir.exists()


@pytest.mark.parametrize("name", ["dfew", "mafw", "ferv39k", "clips"])
def test_clips_that_are_not_there(main, name, tmp_path):
    (tmp_path / "raw").mkdir()
    flags = [f"--config.data.name={name}", "--config.data.view=clips"]
    refused(main(*flags, f"--config.data.dir={tmp_path / 'raw'}"), str(tmp_path / "raw"), name)


def test_an_empty_split(main, tmp_path):
    raw = write_own(tmp_path / "raw", sizes={"train": 6, "test": 4})
    refused(main(config=f"{CONFIG_FILE}:{raw}"), "config.data.valid", "valid", "train, test")


def test_a_split_that_preparation_empties(main, tmp_path):
    raw = write_own(tmp_path / "raw", "score")
    table = (raw / "labels.csv").read_text().splitlines()
    table = [row.rsplit(",", 1)[0] + ",x" if ",valid," in row else row for row in table]
    (raw / "labels.csv").write_text("\n".join(table) + "\n")
    (raw / "labels.json").write_text('{"kind": "score"}')
    refused(main(config=f"{CONFIG_FILE}:{raw}"), "valid")


CONFIGS = {
    "unknown key": (
        "config.optim",
        "lerning_rate = 1.0",
        ["config.optim.lerning_rate", "learning_rate"],
    ),
    "unknown stage key": (
        "config.stages.train",
        "epoch = 1",
        ["config.stages.train.epoch", "epochs"],
    ),
    "unknown section": ("config", "optm = {}", ["config.optm", "config.optim"]),
}


@pytest.mark.parametrize(("where", "line", "words"), CONFIGS.values(), ids=CONFIGS.keys())
def test_a_key_in_the_file_that_nobody_reads(main, own, tmp_path, where, line, words):
    file = tmp_path / "wrong.py"
    file.write_text(
        "from conftest import toy_config\n\n\ndef get_config():\n"
        f"    config = toy_config({str(own)!r})\n"
        f"    with {where}.unlocked():\n        {where}.{line}\n    return config\n"
    )
    refused(main(config=file), *words)


def test_a_config_file_that_is_not_there(main):
    refused(main(config="nowhere.py"), "nowhere.py")


def test_a_variant_that_is_not_there(main):
    refused(main(config=f"{ROOT / 'configs' / 'mcr.py'}:mosy"), "mosy", "mosi")


def test_no_workdir(start, own):
    refused(start("main", f"--config={CONFIG_FILE}:{own}"), "--workdir is missing")


def test_no_config(start, tmp_path):
    refused(start("main", f"--workdir={tmp_path / 'run'}"), "--config is missing")
    assert not (tmp_path / "run").exists()


def test_a_workdir_below_a_file(start, own, tmp_path):
    (tmp_path / "file").write_text("mine")
    flags = [f"--config={CONFIG_FILE}:{own}", f"--workdir={tmp_path / 'file' / 'run'}"]
    refused(start("main", *flags), "cannot write", "file/run")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_workdir_of_another_config(start, own, finished):
    before = {f: f.read_bytes() for f in finished.rglob("*") if f.is_file()}
    flags = [f"--config={CONFIG_FILE}:{own}", f"--workdir={finished}"]
    sentence = refused(
        start("main", *flags, "--config.optim.learning_rate=0.5", "--config.model.hidden=9"),
        *("optim.learning_rate: now 0.5, there 0.02", "model.hidden: now 9, there 8"),
    )
    assert "data.split" not in sentence and "epochs" not in sentence
    assert {f: f.read_bytes() for f in finished.rglob("*") if f.is_file()} == before


def test_a_changed_model_is_not_evaluated(start, own, finished):
    flags = [f"--config={CONFIG_FILE}:{own}", f"--workdir={finished}", "--mode=eval"]
    child = start("main", *flags, "--config.model.hidden=9")
    refused(child, "config.model.hidden", "is 8 in the run")


def test_nothing_to_evaluate(start, tmp_path):
    refused(start("main", "--mode=eval", f"--workdir={tmp_path / 'run'}"), "is no workdir")
    assert not (tmp_path / "run").exists()


def test_evaluation_with_and_without_the_config(start, own, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    flags = [f"--workdir={tmp_path / 'run'}", "--mode=eval"]
    code, out, said = start("main", *flags).wait()
    assert code == 0, said
    result = json.loads((finished / "eval" / "test.json").read_text())
    where, title, *rows = out.splitlines()
    assert where == f"results: {tmp_path / 'run'}/eval"
    assert title == f"{tmp_path / 'run'}, test, seeds 0"
    assert any(r.startswith("| war ") and f" {result['war']:.4f} " in r for r in rows)
    config = [f"--config={CONFIG_FILE}:{own}", "--config.data.split=valid"]
    code, _, said = start("main", *flags, *config).wait()
    assert code == 0 and "Traceback" not in said, said
    for name in ("test.json", "test.csv", "valid.json", "valid.csv", "missing.json"):
        ours, theirs = (tmp_path / "run" / "eval" / name, finished / "eval" / name)
        assert ours.read_bytes() == theirs.read_bytes()


TOWERS = {
    "no weights": (["--features=clip"], ["--weights is needed with --features"]),
    "no features": (["--frames=4"], ["--frames is of --features, which is not there"]),
    "no such features": (["--features=vit", "--weights=x"], ["features", "vit", "clip|bert"]),
    "no frames": (["--features=clip", "--weights=x", "--frames=0"], ["frames is 0"]),
    "of sequences": (
        ["--features=clip", "--weights=x", "--view=sequences"],
        ["--features is of clips"],
    ),
    "only a look": (["--features=clip", "--weights=x", "--doctor"], ["--features is of clips"]),
    "no folder": (
        ["--features=clip", "--weights=nowhere/at/all"],
        ["nowhere/at/all is no Hugging Face folder"],
    ),
    "another architecture": (
        ["--features=bert", "--weights={clip}"],
        ["architecture CLIPModel", "BertModel"],
    ),
}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A table of one's own clips that have words alone, some rows of no use."""
    folder = tmp_path_factory.mktemp("words")
    rows = [f"c{i},{split},glad,,hm {i}" for i, split in enumerate(("train", "valid", "test"))]
    rows += ["file,train,glad,none.mp4,", "label,train,angry,,hm", "nothing,train,glad,,"]
    (folder / "clips.csv").write_text("\n".join(["id,split,label,video,text", *rows]) + "\n")
    said = {"kind": "class", "classes": ["glad", "sad"]}
    (folder / "labels.json").write_text(json.dumps(said))
    return folder


@pytest.mark.parametrize(("flags", "parts"), TOWERS.values(), ids=TOWERS.keys())
def test_bad_flags_of_towers(start, words, clip_folder, tmp_path, flags, parts):
    flags = [flag.format(clip=clip_folder) for flag in flags]
    common = ["--dataset=clips", f"--raw_dir={words}", f"--data_dir={tmp_path / 'data'}"]
    refused(start("prepare", *common, *flags), *parts)
    # The clips themselves may stand there; of features there is nothing.
    assert list((tmp_path / "data").glob("clips/encoded*")) == []


def test_towers_on_the_command_line(start, words, clip_folder, tmp_path):
    flags = [f"--data_dir={tmp_path}", "--features=clip", f"--weights={clip_folder}", "--tokens=9"]
    child = start("prepare", "--dataset=clips", f"--raw_dir={words}", *flags)
    code, out, said = child.wait()
    assert code == 0, said
    folder = tmp_path / "clips" / "encoded-clip" / "1.0.0"
    assert out.strip() == str(folder) and "Traceback" not in said
    card = json.loads((folder / "affectjax.json").read_text())
    assert card["inputs"]["text"]["tokens"] == 9 and card["splits"]["train"] == 1
    # What was of no use was left out before, and is counted and listed.
    reasons = {skipped["id"]: skipped["reason"] for skipped in card["skipped"]}
    assert reasons == {
        "file": "video none.mp4 is not there",
        "label": "label 'angry' is not one of glad, sad or its number 0 to 1",
        "nothing": "has no video, no audio and no text",
    }
    # Prepared clips will do for raw ones, and what is there is found.
    child = start(
        "prepare", "--dataset=clips", f"--raw_dir={folder.parents[1] / 'clips'}/1.0.0", *flags
    )
    assert child.wait()[:2] == (0, out)


def test_report_says_the_same_as_the_function(start, finished, tmp_path):
    workdir = tmp_path / "run"  # a copy: the command leaves a page there
    shutil.copytree(finished, workdir)
    code, out, said = start("report", f"--workdir={workdir}").wait()
    assert (code, out.strip()) == (0, run_report.table(workdir).strip()), said
    refused(start("report", f"--workdir={tmp_path}"), "test.json is not there")


@pytest.mark.parametrize("app", ["main", "prepare", "predict", "report"])
def test_help_is_no_error(start, app):
    code, out, said = start(app, "--help").wait()
    assert (code, said) == (0, "") and "--[no]help" not in said and f"affectjax/{app}.py" in out


def test_ctrl_c_is_one_sentence(start, own, tmp_path):
    flags = [f"--config={CONFIG_FILE}:{own}", f"--workdir={tmp_path / 'run'}"]
    child = start("main", *flags, "--config.stages.train.epochs=400")
    file = tmp_path / "run" / "metrics.jsonl"
    while not file.exists() or not file.stat().st_size:
        assert child.process.is_alive(), child.wait()
        time.sleep(0.01)
    os.kill(child.process.pid, signal.SIGINT)
    code, _, said = child.wait(10)
    assert code == 130 and "Traceback" not in said
    assert said.splitlines()[-1].startswith("error: interrupted; the same command goes on")


def test_an_infinite_loss_is_no_bad_input_but_stops_the_run(start, own, tmp_path):
    flags = [f"--config={CONFIG_FILE}:{own}", f"--workdir={tmp_path / 'run'}"]
    code, _, said = start("main", *flags, "--config.model.fault=5").wait()
    assert code == 1 and "Traceback" not in said
    assert said.splitlines()[-1].startswith("error: stage 'train', step 6, seed 0")
    assert len(lines_of(tmp_path / "run")) == 2


@pytest.mark.parametrize("app", ["main", "prepare", "predict", "report"])
@pytest.mark.parametrize("flag", ["--help", "-h", "--helpfull"])
def test_help_is_no_failure(start, app, flag):
    code, out, said = start(app, flag).wait()
    assert code == 0 and "Traceback" not in said and f"affectjax/{app}.py" in out


def import_all_apps():
    from affectjax import prepare
    from affectjax.reports import run_report
    from affectjax.training import evaluator, loop

    assert all((evaluator.evaluate, prepare, run_report.table, loop.train))


def test_a_notebook_may_import_every_function(start):
    code, _, said = start(import_all_apps).wait()
    assert code == 0, said


def test_the_real_command(own, tmp_path):
    """The others start the same module in a process that has imported most already."""
    command = [sys.executable, "-m", "affectjax.main", "--config=configs/mcr.py:own"]
    command += [
        f"--config.data.dir={own}",
        "--config.optim.name=sgd",
        f"--workdir={tmp_path / 'a'}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and not (tmp_path / "a").exists()
    assert done.stderr.splitlines()[-1].startswith(
        "error: \"config.optim\": name is 'sgd'; allowed"
    )


def test_scores_are_read_as_numbers(start, scores, tmp_path):
    flags = [f"--config={CONFIG_FILE}:{scores}", f"--workdir={tmp_path / 'run'}"]
    code, _, said = start("main", *flags, "--config.stages.train.epochs=1").wait()
    assert code == 0, said
    assert np.isfinite(lines_of(tmp_path / "run")[1]["mae"])
