"""A run as a folder of its own: the same predictions, the card, and the program without us."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, DIMS

import affectjax
from affectjax import exporting
from affectjax.errors import InputError
from affectjax.inference import recognize

# What a process without this package does with the program.
STRANGER = """
import json, sys
import numpy as np
from jax import export
folder, arrays = sys.argv[1:]
with open(f"{folder}/network.stablehlo", "rb") as file:
    network = export.deserialize(bytearray(file.read()))
given = np.load(arrays)
said = json.load(open(f"{folder}/network.json"))
parts = {}
for m, own in said["inputs"].items():
    assert given[m].shape[1:] == tuple(own["x"]["shape"][1:])
    parts[m] = {"x": given[m], "mask": given[f"{m}_mask"]}
assert "affectjax" not in sys.modules
print(json.dumps(np.asarray(network.call(parts)).tolist()))
"""


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    return exporting.export(finished, tmp_path_factory.mktemp("exported") / "model")


def raw_of(run):
    return Path(json.loads((run / "config.json").read_text())["config"]["data"]["dir"])


def test_the_folder_predicts_as_the_run(finished, exported, tmp_path):
    ours, theirs = (
        recognize(place, raw_of(finished), output=tmp_path) for place in (finished, exported)
    )
    assert ours["predictions"] == theirs["predictions"] and len(ours["predictions"]) > 20
    assert repr(affectjax.load(exported)) == repr(affectjax.load(finished))
    # Nothing of the data is needed, and nothing of where it was.
    said = json.loads((exported / "config.json").read_text())
    assert said["config"]["data"]["dir"] == "" and not (exported / "checkpoints").exists()


def test_the_program_needs_only_jax(finished, exported, tmp_path):
    rng = np.random.default_rng(0)
    arrays, each = {}, []
    for m, (steps, width) in DIMS.items():
        x = rng.normal(2, 3, (5, steps, width)).astype(np.float32)
        length = rng.integers(1, steps + 1, 5)
        length[0] = 0 if m == "audio" else length[0]
        mask = np.arange(steps) < length[:, None]
        arrays |= {m: np.where(mask[..., None], x, 7), f"{m}_mask": mask}
    for i in range(5):
        each.append({m: arrays[m][i][arrays[f"{m}_mask"][i]] for m in DIMS})
    np.savez(tmp_path / "arrays.npz", **arrays)
    script = tmp_path / "stranger.py"
    script.write_text(STRANGER)
    done = subprocess.run(
        [sys.executable, str(script), str(exported), str(tmp_path / "arrays.npz")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    model = affectjax.load(exported)
    expected = [[*model(one).probability.values()] for one in each]
    np.testing.assert_allclose(json.loads(done.stdout), expected, atol=1e-5)


def test_the_card(exported):
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: affectjax\n")
    result = json.loads((exported / "eval" / "test.json").read_text())
    assert "| war " in card and f"{result['war']:.4f}" in card
    assert all(name in card for name in (*CLASSES, *DIMS)) and "## Limits" in card
    assert "generated data" not in card  # this set was not made by code


def test_a_damaged_export_is_named(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "copy")
    file = tmp_path / "copy" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"model\.safetensors.*export the run again"):
        affectjax.load(tmp_path / "copy")


def test_what_cannot_be_exported(finished, exported, tmp_path):
    with pytest.raises(InputError, match="holds something already"):
        exporting.export(finished, exported)
    with pytest.raises(InputError, match="no workdir"):
        exporting.export(tmp_path, tmp_path / "to")
    untrained = tmp_path / "untrained"
    shutil.copytree(finished, untrained)
    shutil.rmtree(untrained / "checkpoints")
    with pytest.raises(InputError, match="has no trained model"):
        exporting.export(untrained, tmp_path / "to")
    unevaluated = tmp_path / "unevaluated"
    shutil.copytree(finished, unevaluated)
    shutil.rmtree(unevaluated / "eval")
    with pytest.raises(InputError, match=r"no eval/test\.json: is the run finished"):
        exporting.export(unevaluated, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_what_a_model_is_built_from_comes_along(tmp_path):
    weights = tmp_path / "clip"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    (weights / "pytorch_model.bin").write_text("a pickle")
    config = {"model": {"weights": str(weights), "guided": {"bank": str(weights)}, "text": "clip"}}
    found = exporting.with_folders(config, tmp_path / "to")["model"]
    assert found["weights"] == "weights/weights" and found["text"] == "clip"
    bank = tmp_path / "to" / found["guided"]["bank"]
    assert [file.name for file in bank.iterdir()] == ["config.json"]
    assert exporting.with_folders({"model": {"weights": ""}}, tmp_path)["model"] == {"weights": ""}
