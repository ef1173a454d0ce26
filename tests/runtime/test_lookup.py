"""What a config names is found by its bare name in a package, by its dotted name anywhere."""

import sys

import pytest

from affectjax.errors import InputError
from affectjax.runtime import lookup

SETS = "affectjax.data.raw.sets"


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder on the Python path with a package `elsewhere`."""
    package = tmp_path / "elsewhere"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "good.py").write_text("VALUE = 7\n")
    (package / "lacking.py").write_text("import not_installed_anywhere\n")
    (package / "faulty.py").write_text("raise RuntimeError('out of paint')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package
    for name in [n for n in sys.modules if n.partition(".")[0] == "elsewhere"]:
        del sys.modules[name]


def test_a_bare_name_is_a_module_of_the_package():
    assert lookup.find(SETS, "mosi", "data set").__name__ == f"{SETS}.mosi"
    assert "mosi" in lookup.names(SETS)


def test_a_dotted_name_is_a_module_anywhere(outside):
    assert lookup.find(SETS, "elsewhere.good", "data set").VALUE == 7


def test_an_unknown_name_comes_with_the_nearest():
    with pytest.raises(InputError, match=r"data set 'mosy' is unknown.*did you mean 'mosi'\?"):
        lookup.find(SETS, "mosy", "data set")


@pytest.mark.parametrize("name", [3, None, 0.5, ("mosi",)])
def test_what_is_no_name(name):
    with pytest.raises(InputError, match=r"data set is .*; allowed: .*mosi.*, or a dotted name"):
        lookup.find(SETS, name, "data set")


def test_what_is_left_out_is_not_found():
    with pytest.raises(InputError, match="'mosi' is unknown"):
        lookup.find(SETS, "mosi", "data set", without=("mosi",))


@pytest.mark.parametrize("name", ["nowhere.atall", "elsewhere.nothing", "elsewhere.good.deeper"])
def test_a_module_that_is_not_there(outside, name):
    with pytest.raises(InputError, match="cannot be imported: there is no module"):
        lookup.find(SETS, name, "data set")


@pytest.mark.parametrize(
    ("name", "cause"),
    [("elsewhere.lacking", "not_installed_anywhere"), ("elsewhere.faulty", "out of paint")],
)
def test_an_error_in_the_module_is_shown_with_its_cause(outside, name, cause):
    with pytest.raises(InputError, match=f"raises .*{cause}") as caught:
        lookup.find(SETS, name, "data set")
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("name", ["a..b", ".relative", "a/b.c", "a.b-c"])
def test_a_name_that_is_no_dotted_name(name):
    with pytest.raises(InputError, match="is no dotted name"):
        lookup.find(SETS, name, "data set")
