"""The package is built in floors: a module imports only from floors below it, never in a circle."""

import ast
import pathlib

import pytest

import affectjax

ROOT = pathlib.Path(affectjax.__file__).parent
# From the bottom. What shares a line may import each other's modules only within one folder.
FLOORS = (
    ("errors", "modalities", "emotions", "metrics"),
    ("ops",),
    ("runtime",),
    ("data",),
    ("models",),
    ("weights",),
    ("encoders",),
    ("tasks",),
    ("training",),
    ("reports",),
    ("inference",),
    ("recognition", "exporting"),
    ("main", "prepare", "predict", "report", "export"),
    ("__main__",),
)
# The same inside of data, where "" stands for the modules that lie in data itself.
DATA_FLOORS = (("",), ("media",), ("synth",), ("raw",), ("prepare",), ("batches",))
# Single modules of the lowest floor that others of it may import.
SHARED = {"errors", "modalities"}


def modules():
    """Returns by dotted name, without `affectjax.`, the path of each module of the package."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if parts:
            found[".".join(parts)] = path
    return found


MODULES = modules()


def imported(path):
    """Returns the modules of the package that a file imports, also inside its functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            while package == "affectjax" and rest:
                if rest in MODULES:
                    found.add(rest)
                    break
                rest = rest.rpartition(".")[0]
    return found


IMPORTS = {name: imported(path) for name, path in MODULES.items()}


def floor(name, floors, inside=""):
    """Returns the number of the floor of a module, None where it has none, and its folder."""
    rest = name.removeprefix(inside)
    top = rest.partition(".")[0]
    if inside and (name == inside.rstrip(".") or (name not in FOLDERS and "." not in rest)):
        top = ""
    number = next((i for i, those in enumerate(floors) if top in those), None)
    return number, top


FOLDERS = {name for name in MODULES if MODULES[name].name == "__init__.py"}


def rising(floors, inside=""):
    """Returns the imports that go to the same floor in another folder, or up."""
    wrong = set()
    for name, others in IMPORTS.items():
        for other in others:
            if not all(n.startswith(inside) for n in (name, other)):
                continue
            (mine, folder), (its, target) = (
                floor(name, floors, inside),
                floor(other, floors, inside),
            )
            if folder != target and its >= mine and target not in SHARED:
                wrong.add((name, other))
    return wrong


@pytest.mark.parametrize(
    ("floors", "inside"), [(FLOORS, ""), (DATA_FLOORS, "data.")], ids=["package", "data"]
)
def test_every_module_has_a_floor(floors, inside):
    names = [name for name in MODULES if name.startswith(inside)]
    assert [name for name in names if floor(name, floors, inside)[0] is None] == []


def test_no_import_rises():
    assert rising(FLOORS) | rising(DATA_FLOORS, "data.") == set()


def test_no_two_folders_import_each_other():
    pairs = set()
    for name, others in IMPORTS.items():
        mine = name if name in FOLDERS else name.rpartition(".")[0]
        for other in others:
            its = other if other in FOLDERS else other.rpartition(".")[0]
            # A folder and one inside of it are one house.
            nested = f"{mine}.".startswith(f"{its}.") or f"{its}.".startswith(f"{mine}.")
            if mine and its and not nested:
                pairs.add((mine, its))
    assert {tuple(sorted(pair)) for pair in pairs if pair[::-1] in pairs} == set()


def test_ops_know_arrays_alone():
    found = {
        name
        for name in MODULES
        if name.startswith("ops.") and any(not o.startswith("ops") for o in IMPORTS[name])
    }
    assert found == set()


def test_models_and_ops_open_no_file_and_know_no_config():
    for name in MODULES:
        if name.partition(".")[0] == "models":
            assert not IMPORTS[name] & {"runtime.configs", "runtime.workdir"}, name
