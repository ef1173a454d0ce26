"""One small benchmark through `tests.benchmarks.all`, and the sizes of UMBEnet with LoRA."""

import importlib
import json
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_all(*arguments):
    sys.path.insert(0, str(ROOT))
    sys.argv = ["all", "--cores=1", "--rounds=1", "--seconds=0.1", *arguments]
    runpy.run_module("tests.benchmarks.all", run_name="__main__")


def kept(**rows):
    return json.dumps({"cpu, cores: 1": rows, "gpu": {"triplet": {"memory": 0.0}}})


def test_a_table_and_a_sentence_for_what_became_slower(start, tmp_path):
    ratios, table = tmp_path / "ratios.json", tmp_path / "table.md"
    scan = {"memory": 1e6, "time": 1e6}
    text = kept(triplet={"memory": 1.0}, **{"triplet, in a scan": scan}, gone={"time": 0.1})
    ratios.write_text(text)
    arguments = ("--only=triplet", f"--ratios={ratios}", f"--output={table}")
    code, out, err = start(run_all, *arguments, JAX_PLATFORMS="cpu").wait()
    assert code == 1, err
    said = out.partition("Became slower:\n")[2].splitlines()
    assert len(said) == 1 and said[0].startswith("triplet: memory is ")
    assert ", was 1 (+" in said[0]
    assert ratios.read_text() == text
    device, blank, header, rule, *rows = table.read_text().splitlines()
    assert "1 of " in device and "jaxlib" in device and not blank
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in (header, rule, *rows)]
    assert {len(row) for row in cells} == {len(cells[0])}
    names = ["triplet", "triplet, in a scan", "triplet, 3 models in a scan"]
    assert [row[0] for row in cells[2:]] == names
    ours, other, ratio = (float(cells[3][i]) for i in (1, 3, 4))
    assert cells[3][2] == "a step alone" and ours > 0
    # The median of the ratios is not the ratio of the medians where other work disturbs both.
    assert 0.5 < ours / other / ratio < 2


def test_what_lacks_its_data_is_skipped_and_keeps_its_ratios(start, tmp_path):
    ratios, table = tmp_path / "ratios.json", tmp_path / "table.json"
    before = {"ridge": {"time": 1.0}}
    ratios.write_text(kept(**before))
    arguments = ("--only=ridge", f"--data={tmp_path}", "--keep", f"--ratios={ratios}")
    child = start(run_all, *arguments, f"--output={table}", JAX_PLATFORMS="cpu")
    code, out, err = child.wait()
    assert code == 0, err
    assert "ridge is skipped: no mosi_text_audio in the folder of --data" in out
    assert json.loads(ratios.read_text()) == json.loads(kept(**before))
    found = json.loads(table.read_text())
    assert found["rows"] == [] and {"jax", "numpy", "python"} <= found["versions"].keys()


def test_a_benchmark_that_there_is_not_is_refused_with_those_that_there_are(start):
    code, _, err = start(run_all, "--only=riddle", JAX_PLATFORMS="cpu").wait()
    assert code == 2
    assert "no benchmark riddle; allowed: triplet, ridge" in err


def test_the_sizes_of_umbenet_with_lora(monkeypatch):
    """By hand: rank 8 on the four maps and the two feed-forward ones of each layer.

    ViT-L/14 has 24 layers of width 1024, HTSAT 2, 2, 6 and 2 of 96, 192, 384 and 768.
    """
    monkeypatch.syspath_prepend(str(ROOT))
    umbenet_sizes = importlib.import_module("tests.benchmarks.umbenet_sizes")
    found = umbenet_sizes.sizes(umbenet_sizes.task_of("dfew,lora"))
    widths = 24 * 1024 + 2 * 96 + 2 * 192 + 6 * 384 + 2 * 768
    assert found["lora"] == 8 * (4 * 2 + 2 * 5) * widths
    assert found["adapted"] == 4 * 12 * (24 * 1024**2 + 2 * (96**2 + 192**2 + 3 * 384**2 + 768**2))
    # The step count of Adam is one number more.
    assert found["moments"] == 4 * (2 * found["trained"] + 1)
    assert found["state"] == 4 * (found["trained"] + found["frozen"]) + found["moments"]
    plain = umbenet_sizes.sizes(umbenet_sizes.task_of("dfew"))
    # CLIP of ViT-L/14 as published, but for its temperature.
    assert plain["frozen"] == 427_616_512 and plain["lora"] == plain["adapted"] == 0
