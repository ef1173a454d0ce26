"""What the page of a run shows besides its tables."""

import json
import shutil

import numpy as np
import pytest
from conftest import CLASSES
from test_report import Page, predicted

from affectjax.errors import InputError
from affectjax.reports import run_figures, run_page, run_report
from affectjax.runtime import workdir
from affectjax.runtime.workdir import write_json
from affectjax.training import baselines


def test_the_page_of_a_finished_run(finished, tmp_path):
    page = Page(run_report.write(shutil.copytree(finished, tmp_path / "run")))
    expected = ["Metrics", "When modalities are missing", "Learning"]
    expected += ["Errors", "Calibration", "Hardest examples", "Where it comes from"]
    assert [h for h in page.headings[1:] if h in expected] == expected
    assert not page.loads
    assert len(page.images) == 4 and all(b"<svg" in image for image in page.images)
    (hardest,) = (t for t in page.tables if t[0][:2] == ["id", "true"])
    sure = [float(row[2]) for row in hardest[1:]]
    assert sure == sorted(sure) and all(row[1] in CLASSES for row in hardest[1:])


def test_hardest_examples(tmp_path):
    rows = [("a", "glad", "glad", 0.9, 0.1), ("b", "sad", "glad", 0.8, 0.2)]
    rows += [("c", "sad", "sad", 0.3, 0.7), ("d", "lost", "sad", 0.4, 0.6)]
    run = predicted(tmp_path, rows)
    result = {"confusion": [[1, 0], [1, 2]], "recall/glad": 1.0, "recall/sad": 0.67}
    page = tmp_path / "page.html"
    page.write_text("\n".join(run_page.errors(run, "test", result)))
    (table,) = Page(page).tables
    assert [row[0] for row in table[1:]] == ["b", "c", "a", "d"]
    assert table[1] == ["b", "sad", "0.200", "glad", "0.800"]


def test_learning_of_stages_follows_on(tmp_path, monkeypatch):
    write_json(tmp_path / "config.json", {"config": {"seed": 0, "seeds": [], "data": {}}})
    lines = [
        {"stage": stage, "epoch": e, "split": split, "seed": s, "loss": e + s, "war": 0.5}
        for stage, count in (("one", 2), ("two", 3))
        for e in range(count)
        for split in ("train", "valid")
        for s in (0, 1)
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    seen = {}
    monkeypatch.setattr(run_page.html, "figure", lambda *_: "figure")
    monkeypatch.setattr(run_figures, "curves", lambda *said: seen.update(p=said[0], s=said[1]))
    assert run_page.curves(tmp_path, "war")[1] == "figure"
    assert seen["s"] == {"one": 0, "two": 2}
    loss = seen["p"]["loss"]
    assert loss["validation"] == [
        ([1, 2, 3, 4, 5], [0.0, 1.0, 0.0, 1.0, 2.0]),
        ([1, 2, 3, 4, 5], [1.0, 2.0, 1.0, 2.0, 3.0]),
    ]
    assert [*seen["p"]["war"]] == ["validation"]  # training has an accuracy where it has one
    (tmp_path / "metrics.jsonl").write_text("{")
    with pytest.raises(InputError, match=r"metrics\.jsonl cannot be read"):
        run_page.curves(tmp_path, "war")


def test_a_pool_of_one_prompt():
    drawn = run_figures.prompts(np.ones((2, 1)), np.ones((1, 4)), ("text", "several"), np.ones(1))
    assert drawn.axes


def test_the_headline():
    rows = {"model": {"war": 0.5}, "majority": {"war": 0.2}, "linear, all": {"war": 0.6}}
    standing = baselines.Standing("", ("war",), rows, {"war": [0.4, 0.61]})
    found = run_page.headline([standing], {"per_seed": {"0": {}, "1": {}}})
    said = "war, mean of 2 seeds, 95 % interval 0.400 to 0.610; majority 0.200; linear, all 0.600"
    assert found[0] == f"<p class=headline><b>0.500</b>{said}</p>"
    assert found[1].startswith("<p>The model is below its best linear baseline: war 0.5000, and")
    assert "one seed" in run_page.headline([], {"uar": 0.25})[0]


def test_the_command_is_kept(monkeypatch):
    main = str(workdir.Path(workdir.__file__).parents[1] / "main.py")
    monkeypatch.setattr("sys.argv", [main, "--config=configs/mcr.py", "--workdir=a b"])
    assert workdir._command() == [
        *("python", "-m", "affectjax.main", "--config=configs/mcr.py", "--workdir=a b")
    ]
    monkeypatch.setattr("sys.argv", ["/elsewhere/script.py"])
    assert workdir._command() is None
