"""What README.md, docs/ and the docstrings of configs/ say: commands, examples and links hold."""

import ast
import re
import sys

import pytest
from absl import flags
from documents import PAGES, ROOT, commands, examples, headings, links
from media_files import grey
from ml_collections import config_flags

from affectjax.data.media import codec
from affectjax.data.prepare import prepared
from affectjax.data.prepare.clip_storage import Storage
from affectjax.data.raw import sets
from affectjax.runtime import app
from affectjax.training import run_config

FILES = (*PAGES, *sorted((ROOT / "configs").glob("*.py")))
NAMES = [str(file.relative_to(ROOT)) for file in FILES]


@pytest.fixture
def mypackage(tmp_path, monkeypatch):
    """Puts the modules of docs/architecture.md on the Python path, as the package `mypackage`."""
    package = tmp_path / "mypackage"
    package.mkdir()
    for name, code in {"__init__.py": "", **examples()}.items():
        (package / name).write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package
    for name in [n for n in sys.modules if n.partition(".")[0] == "mypackage"]:
        del sys.modules[name]


def text_of(file):
    said = file.read_text()
    return said if file.suffix == ".md" else ast.get_docstring(ast.parse(said))


def flags_of(module):
    """Returns the names of the flags that a module defines; it is not imported."""
    file = ROOT / (module.replace(".", "/") + ".py")
    assert file.is_file(), f"there is no module {module}"
    text = file.read_text()
    if "timing.main(" in text:  # a benchmark, whose flags are those of all
        text += (ROOT / "tests" / "benchmarks" / "timing.py").read_text()
    return set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', text))


def resolved(words, monkeypatch):
    """Returns the whole config of a training command, as `affectjax.main` makes it."""
    command = app.with_config_found(
        ["main", *(word for word in words if word.startswith("--config"))]
    )
    monkeypatch.setattr(sys, "argv", command)  # the keys of a config are looked for there
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file(
        "config", None, "", values, lock_config=False, accept_new_attributes=True
    )
    values(command)
    given = config_flags.get_override_values(values["config"])
    return run_config.resolve(run_config.choose(config.value, given))


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_the_commands_are_right(file, mypackage, monkeypatch):
    monkeypatch.chdir(ROOT)
    for module, *words in commands(text_of(file)):
        if "--" in words:  # what follows is of another command
            words = words[: words.index("--")]
        if module == "affectjax.predict" and words[0][:2] != "--":
            words = words[1:]  # its input
        names = {word[2:].partition("=")[0]: word.partition("=")[2] for word in words}
        assert all(word.startswith("--") for word in words), (module, words)
        known = flags_of(module) | {"help"}
        for name in names:
            assert name.removeprefix("no") in known or name in known or name[:7] == "config.", name
        if module == "affectjax.main":
            assert "help" in names or names["workdir"]
            if "config" in names:
                resolved(words, monkeypatch)
        if "dataset" in names:
            sets.get(names["dataset"])


def test_every_page_has_commands():
    """Else the test above would say nothing of it."""
    assert {page.name for page in PAGES if not list(commands(page.read_text()))} == set()


def test_a_command_in_several_lines_is_one():
    text = """
    X="--b=1 \\
        --c=2"
    python -m some.module --a="(1, 2)" \\
        --d=3 $X  # said beside
    and `python -m another` in a line

    affectjax eval --workdir=W
    `affectjax train` and `affectjax predict a.mp4 --checkpoint=W`
    """
    assert list(commands(text)) == [
        ["some.module", "--a=(1, 2)", "--d=3", "--b=1", "--c=2"],
        ["another"],
        ["affectjax.main", "--mode=eval", "--workdir=W"],
        ["affectjax.predict", "a.mp4", "--checkpoint=W"],
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_lead_somewhere(page):
    for path, heading in links(page.read_text()):
        target = (page.parent / path) if path else page
        assert target.exists(), path
        if heading:
            assert heading in headings(target.read_text()), (path, heading)


def test_the_files_that_a_page_names_are_there():
    for page in PAGES:
        named = re.findall(
            r"`((?:affectjax|configs|docs|tests|notebooks)/[\w/]+(?:\.\w+)?/?)`", page.read_text()
        )
        assert [name for name in named if not (ROOT / name).exists()] == [], page.name


def test_the_readme_is_short_and_names_its_test_command():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) < 150
    assert any(line.startswith("    make test") for line in lines)


def test_the_data_set_of_the_docs(mypackage, tmp_path):
    for path in (
        "train/happy/mia_1.png",
        "train/sad/mia_2.png",
        "test/sad/tom_1.png",
        "test/x/y.png",
    ):
        file = tmp_path / "raw" / path
        file.parent.mkdir(parents=True)
        file.write_bytes(codec.encode(grey(3), "png"))
    how = {"aligned": False, "view": "clips", "storage": Storage(image_size=8, detector="none")}
    found = prepared.diagnose("mypackage.myset", tmp_path / "raw", **how)
    assert found.skipped == {("test", "y"): "x is no class"}
    assert len(found.problems) == 1 and "y of test: x is no class" in found.problems[0]
    folder = prepared.prepare("mypackage.myset", tmp_path / "raw", tmp_path / "data", **how)
    assert prepared.open_prepared(folder).splits == {"train": 2, "test": 1}
    assert sets.get("mypackage.myset").group_of("mia_1") == "mia"
