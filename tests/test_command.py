"""The command `affectjax`: its words, configs by name, and what its help says."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from affectjax import __main__ as command
from affectjax import __version__
from affectjax.errors import InputError
from affectjax.runtime import config_files

ROOT = Path(__file__).parents[1]
# Not imported: it would define its flags, and so does the demo.
HELP = ast.get_docstring(ast.parse((ROOT / "affectjax" / "main.py").read_text()))


def call(*arguments, folder):
    """Runs the command in an empty folder, as where the package is installed."""
    return subprocess.run(
        [sys.executable, "-m", "affectjax", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )


def test_says_what_there_is(tmp_path):
    for asked in ([], ["--help"], ["help"]):
        done = call(*asked, folder=tmp_path)
        assert done.returncode == 0
        assert all(f"  {word} " in done.stdout for word in command.WORDS)
    assert call("--version", folder=tmp_path).stdout == f"affectjax {__version__}\n"


def test_refuses_other_words(tmp_path):
    done = call("trian", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: 'trian' is no command; allowed: train, eval")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--config", "umbenet:clips"], "--workdir is missing"),
        (["train", "--workdir=W"], "--config is missing"),
        (["train", "--workdir=W", "--config=nothing"], "mcr, mult, supramodal, umbenet"),
        (["train", "--workdir=W", "--config=mcr:mosu"], "mosu is no variant"),
        (["eval", "--workdir=nowhere"], "nowhere"),
        (["doctor", "--dataset=clips", "--raw_dir=nowhere"], "nowhere"),
        (["predict", "clip.mp4"], "--checkpoint is missing"),
        (["predict", "a.mp4", "b.mp4", "--checkpoint=W"], "2 inputs"),
        (["predict", "a.mp4", "--input=b.mp4", "--checkpoint=W"], "2 inputs"),
        (["report"], "--workdir is missing"),
    ],
)
def test_a_word_is_its_app(arguments, expected, tmp_path):
    done = call(*arguments, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr and "Traceback" not in done.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("word", command.WORDS)
def test_help_of_a_word(word, tmp_path):
    done = call(word, "--help", folder=tmp_path)
    assert done.returncode == 0
    assert "affectjax" in done.stdout and "flags:" in done.stdout


def test_a_config_by_name():
    ours = config_files.names()
    assert sorted(ours) == ["mcr", "mult", "supramodal", "umbenet"]
    for given in ("mcr", "mcr.py", "configs/mcr.py", "configs/mcr"):
        assert config_files.find(given).samefile(ROOT / "configs" / "mcr.py")


def test_a_path_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mcr.py").write_text("")
    assert config_files.find("mcr.py") == Path("mcr.py")
    for given in ("mine/mcr.py", "../configs/mcr.py", "mcrr"):
        with pytest.raises(InputError, match="mcr, mult, supramodal, umbenet"):
            config_files.find(given)


def listed():
    """Returns what the help of `train` lists: variants and options by config."""
    table = re.search(r"commas:\n\n(.*?)\n\n", HELP, re.DOTALL)[1]
    rows = re.sub(r"\n {9,}", " ", table).splitlines()
    found = {}
    for row in rows:
        name, *lists = re.fullmatch(r" +(\w+) +([^;]+); .*?options?:? (.*)", row).groups()
        found[name] = tuple([part.strip() for part in each.split(",")] for each in lists)
    return found


def test_the_help_lists_all_variants():
    found = listed()
    assert sorted(found) == sorted(config_files.names())
    for name, (variants, options) in found.items():
        get_config = runpy.run_path(str(config_files.find(name)))["get_config"]
        for variant in variants:
            get_config(variant)
        # What there is, as its own message has it.
        with pytest.raises(InputError) as refused:
            get_config("nothing")
        said = str(refused.value)
        assert re.search(r"allowed: (.*?), each", said)[1].split(", ") == variants
        assert re.findall(r"',(\w+)'", said) == options


def test_the_help_lists_keys_that_there_are():
    keys = re.findall(r"^    --config\.([a-z_.A-Z]+)=", HELP, re.MULTILINE)
    assert len(keys) >= 20
    umbenet = runpy.run_path(str(ROOT / "configs" / "umbenet.py"))["get_config"]
    known = {"kfold", "class_map"}  # of `config.data`, with a default that no config file repeats
    for key in keys:
        section = umbenet("clips")
        *above, last = key.replace("STAGE", "missing").split(".")
        for part in above:
            section = section[part]
        assert last in section or last in known, key
