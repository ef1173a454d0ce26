"""The report: folds against folds, the concepts of a run, and the page."""

import base64
import html.parser
import json
import math

import numpy as np
import pytest
from scipy import stats
from test_space import labels, write_space

from affectjax import metrics
from affectjax.emotions import SEVEN, THREE
from affectjax.errors import InputError
from affectjax.reports import embeddings, run_report
from affectjax.runtime.workdir import write_json
from affectjax.tasks.supramodal.concept_bank import ConceptBank
from affectjax.training import evaluator, folds

OURS = {"1": 0.61, "2": 0.64, "3": 0.60, "4": 0.69}
THEIRS = {"1": 0.60, "2": 0.60, "3": 0.61, "4": 0.62}


def claim(folder, seeds=(), names=()):
    """Writes the config.json of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"seed": 0, "seeds": list(seeds), "data": {"folds": list(names)}}
    write_json(folder / "config.json", {"config": config})
    return folder


def fold_run(folder, values, seeds=(0,)):
    """Writes a run of folds as `folds.run_each` leaves it; each seed is 0.01 above the last."""
    claim(folder, seeds if len(seeds) > 1 else (), values)
    for name, value in values.items():
        own = [{"war": value + 0.01 * i, "corr": np.nan, "confusion": [[1]]} for i in seeds]
        result = evaluator.combine_seeds(own, seeds)
        write_json(folder / "folds" / name / "eval" / "test.json", result)
    folds.write_combined(folder, list(values))
    return folder


def seed_run(folder, values):
    """Writes a run of several seeds, or of one."""
    claim(folder, map(int, values) if len(values) > 1 else ())
    per_seed = [{"war": value, "confusion": [[1]], "count": 3} for value in values.values()]
    write_json(
        folder / "eval/test.json", evaluator.combine_seeds(per_seed, [int(s) for s in values])
    )
    return folder


def cells(table, metric):
    """Returns the cells of a row of a Markdown table."""
    row = next(line for line in table.splitlines() if line.startswith(f"| {metric} "))
    return [cell.strip() for cell in row.strip("|").split("|")]


# ---- folds and seeds ----------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)], ids=str)
def test_folds_against_folds(tmp_path, seeds):
    a, b = fold_run(tmp_path / "a", OURS, seeds), fold_run(tmp_path / "b", THEIRS)
    table = run_report.comparison(a, b)
    ours = np.array([*OURS.values()]) + 0.01 * (len(seeds) - 1) / 2  # the mean over seeds
    t, p = stats.ttest_rel(ours, [*THEIRS.values()])
    expected = [f"{np.mean(ours):.4f} ± {np.std(ours, ddof=1):.4f}"]
    assert cells(table, "war")[1::2] == [*expected, f"{t:.4f}"]
    assert cells(table, "war")[-1] == f"{p:.4f}" and cells(table, "corr")[-1] == "-"
    assert table.startswith("test, folds 1, 2, 3, 4; p of a paired")
    assert run_report.table(a).startswith(f"{a}, test, folds 1, 2, 3, 4\n")
    assert cells(run_report.table(a), "war")[1:] == expected[0].split(" ± ")


def test_the_mean_prediction_of_seeds_has_a_column(tmp_path):
    run = seed_run(tmp_path, OURS)
    result = json.loads((run / "eval/test.json").read_text())
    write_json(run / "eval/test.json", result | {"ensemble": {"war": 0.7, "confusion": [[1]]}})
    assert cells(run_report.table(run), "war")[3] == "0.7000"
    assert "Metrics" in Page(run_report.write(run)).headings


def test_a_run_without_pairs_stands_beside_the_others(tmp_path):
    a, b = seed_run(tmp_path / "a", OURS), seed_run(tmp_path / "b", THEIRS)
    alone = seed_run(tmp_path / "c", {"9": 0.5})
    table = run_report.comparison(a, [b, alone])
    assert cells(table, "war")[3] == "0.5000" and table.count("paired t-test") == 1


def test_seeds_against_seeds(tmp_path):
    a, b = seed_run(tmp_path / "a", OURS), seed_run(tmp_path / "b", THEIRS)
    table = run_report.comparison(a, b)
    t, _ = stats.ttest_rel([*OURS.values()], [*THEIRS.values()])
    assert cells(table, "war")[3] == f"{t:.4f}" and "seeds 1, 2, 3, 4" in table
    assert "count" not in table and "confusion" not in table


def test_a_fold_is_no_pair_of_a_seed(tmp_path):
    a, b = seed_run(tmp_path / "a", OURS), fold_run(tmp_path / "b", THEIRS)
    with pytest.raises(InputError, match=r"pairs of .*a, with seeds .* and .*b, with folds"):
        run_report.comparison(a, b)
    c = fold_run(tmp_path / "c", {"9": 0.5, "4": 0.25})
    with pytest.raises(InputError, match="needs two seeds or folds"):
        run_report.comparison(b, c)


def predicted(folder, rows, head=("id", "label", "prediction", "glad", "sad")):
    """Writes the csv of a run of one seed, and its metrics."""
    seed_run(folder, {"0": 0.5})
    text = "\n".join(",".join(map(str, row)) for row in [head, *rows])
    (folder / "eval" / "test.csv").write_text(text + "\n")
    return folder


def answers(right, of=40):
    """Returns rows of which some are right, by number."""
    said = lambda i: "glad" if (i % 2 == 0) == (i in right) else "sad"  # noqa: E731
    return [(f"x{i}", ("glad", "sad")[i % 2], said(i), 0.5, 0.5) for i in range(of)]


def test_one_seed_against_one_seed_over_examples(tmp_path):
    ours, theirs = set(range(30)), {*range(6, 18), *range(30, 34)}
    a, b = predicted(tmp_path / "a", answers(ours)), predicted(tmp_path / "b", answers(theirs))
    table = run_report.comparison(a, b)
    # Only the one is right 18 times, only the other 4 times.
    p = sum(math.comb(22, k) for k in range(5)) * 2 / 2**22
    row = cells(table, "share right")
    assert row[1:4] == ["0.7500", "0.4000", "+0.3500"] and row[5] == f"{p:.4f}"
    low, high = map(float, row[4].split(" to "))
    assert 0.1 < low < 0.35 < high < 0.6
    assert "40 examples that both predicted; p of McNemar's exact test" in table
    assert cells(run_report.comparison(a, a), "share right")[3:] == [
        *("+0.0000", "+0.0000 to +0.0000", "1.0000")
    ]


def test_scores_over_examples(tmp_path):
    head = ("id", "label", "prediction")
    rows = lambda error: [(f"x{i}", i, i + error) for i in range(9)]  # noqa: E731
    a, b = (predicted(tmp_path / str(e), rows(e), head) for e in (0.25, 1.0))
    row = cells(run_report.comparison(a, b), "mean absolute error")
    assert row[1:] == ["0.2500", "1.0000", "-0.7500", "-0.7500 to -0.7500", "-"]


def test_other_examples_make_no_pairs(tmp_path):
    a, b = predicted(tmp_path / "a", answers({1})), predicted(tmp_path / "b", answers({1})[:1])
    with pytest.raises(InputError, match="nothing makes pairs"):
        run_report.comparison(a, b)
    other = [(name, "sad", *rest) for name, _, *rest in answers({1})]
    with pytest.raises(InputError, match="nothing makes pairs"):
        run_report.comparison(a, predicted(tmp_path / "c", other))


def test_several_runs_stand_side_by_side(tmp_path):
    runs = [seed_run(tmp_path / n, v) for n, v in (("a", OURS), ("b", THEIRS), ("c", OURS))]
    table = run_report.comparison(runs[0], runs[1:])
    assert table.startswith("test, side by side")
    spread = lambda v: f"{np.mean([*v.values()]):.4f} ± {np.std([*v.values()], ddof=1):.4f}"  # noqa: E731
    assert cells(table, "war")[1:] == [spread(OURS), spread(THEIRS), spread(OURS)]
    assert table.count("p of a paired t-test") == 2


# ---- the page -----------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """Reads a page: its tables, headings, pictures, and all that it would load."""

    def __init__(self, path):
        super().__init__()
        self.tables, self.headings, self.images, self.loads = [], [], [], []
        self.inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        self.loads += [v for k, v in attrs if k in ("src", "href") and not v.startswith("data:")]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "img":
            self.images.append(base64.b64decode(dict(attrs)["src"].split(",")[1]))

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside in ("td", "th"):
            self.tables[-1][-1][-1] += data
        elif self.inside in ("h1", "h2"):
            self.headings.append(data)


def test_the_page_of_any_run_has_its_table(tmp_path):
    run = seed_run(tmp_path / "<b>&run", {"0": 0.5})
    path = run_report.write(run)
    assert path == run / "report" / "index.html"
    page = Page(path)
    assert page.tables[0] == [["metric", "mean", "std"], ["war", "0.5000", "-"]]
    assert page.tables[1][-1] == ["seeds", "0"]
    assert page.headings == [str(run), "Metrics", "Where it comes from"]
    assert not page.loads + page.images
    assert [f.name for f in path.parent.iterdir()] == ["index.html"]


def test_the_page_compares(tmp_path):
    a, b = fold_run(tmp_path / "a", OURS), fold_run(tmp_path / "b", THEIRS)
    page = Page(run_report.write(a, against=b))
    row = cells(run_report.comparison(a, b), "war")
    assert page.tables[1][:2] == [["metric", str(a), str(b), "t", "p"], row]


def test_unpaired_sets_are_columns(tmp_path):
    run = claim(tmp_path / "run", (0, 1))
    names = ("war", "text/war", "vision/war", "vision/recall/fear")
    per_seed = [dict.fromkeys(names, 0.5) | {"text/war": v} for v in (0.25, 0.75)]
    write_json(run / "eval" / "test.json", evaluator.combine_seeds(per_seed, (0, 1)))
    same = "0.5000 ± 0.0000"
    assert Page(run_report.write(run)).tables[0] == [
        ["metric", "mean of all", "text", "vision"],
        ["war", same, "0.5000 ± 0.3536", same],  # sqrt(2 * 0.25**2)
        ["recall/fear", "", "", same],
    ]


def test_the_page_has_what_missing_modalities_cost(tmp_path):
    seed_run(tmp_path, {3: 0.5, 4: 0.75})
    of = lambda value: dict.fromkeys(metrics.MAIN["class"], value)  # noqa: E731
    own = {"text": of(0.25), "text+audio": {"per_seed": {"3": of(0.5), "4": of(0.6)}}}
    file = tmp_path / "eval" / "missing.json"
    file.write_text(json.dumps({"split": "test", "subsets": own}))
    table = run_report.missing_table(tmp_path)
    assert table.head == ("shown", "war", "uar", "f1_weighted", "f1_macro")
    assert [row[:2] for row in table.rows] == [
        ("text+audio", "0.5500 ± 0.0707"),
        ("text", "0.2500"),
    ]
    assert "When modalities are missing" in run_report.write(tmp_path).read_text()
    assert run_report.missing_table(tmp_path, "valid") is None
    folds_of_one = {"mean": of(0.5), "std": of(0.1), "per_fold": {"1": of(0.4), "2": of(0.6)}}
    file.write_text(json.dumps({"split": "test", "subsets": {"text": folds_of_one}}))
    assert run_report.missing_table(tmp_path).rows[0][1] == "0.5000 ± 0.1414"


def test_what_stands_in_the_way(tmp_path):
    run = seed_run(tmp_path / "run", {"0": 0.5})
    with pytest.raises(InputError, match=r"dev\.json is not there"):
        run_report.write(run, "dev")
    assert not (run / "report").exists()
    (run / "report").write_text("a file")
    with pytest.raises(InputError, match=r"cannot write to .*report"):
        run_report.write(run)


# ---- concepts -----------------------------------------------------------------------------------

POOLS = {"text": (2, 0, 1), "vision": (1, 2, 1, 1, 3, 1, 0)}


def leave_concepts(folder, seed=0):
    """Writes what the stage `concepts` leaves, of a seed's own."""
    rng = np.random.default_rng(seed)
    classes = {"text": THREE, "vision": SEVEN}
    ConceptBank(
        features={m: rng.standard_normal((sum(n), 4)) for m, n in POOLS.items()},
        labels={m: np.repeat(np.arange(len(n)), n) for m, n in POOLS.items()},
        classes=classes,
        thresholds={m: [0.5 + 0.1 * n if n else np.nan for n in own] for m, own in POOLS.items()},
        top=0.3,
    ).save(folder)
    write_space(folder, {m: own for m, own in labels().items() if m in classes}, seed)


def test_the_concepts_of_a_run(tmp_path):
    run = seed_run(tmp_path / "run", {"0": 0.5})
    leave_concepts(run / "concepts")
    page = Page(run_report.write(run))
    found = json.loads((run / "report" / "concepts.json").read_text())
    assert found.pop("silhouettes") == embeddings.silhouettes(run / "concepts")
    pools = found.pop("pools")
    assert found == {"top": 0.3, "correct_only": True}
    assert {m: tuple(p["count"] for p in own.values()) for m, own in pools.items()} == POOLS
    assert [list(own) for own in pools.values()] == [[*THREE], [*SEVEN]]
    assert pools["vision"]["surprise"] == {"count": 0, "threshold": None}
    assert pools["vision"]["neutral"] == {"count": 3, "threshold": pytest.approx(0.8)}
    # The page shows the picture that lies beside it, and the same numbers.
    assert page.images == [(run / "report" / "concepts.png").read_bytes()]
    assert page.images[0].startswith(b"\x89PNG") and not page.loads
    _, silhouettes, counts, _ = page.tables
    value = embeddings.silhouettes(run / "concepts")["three"]["emotion"]["modality"]["value"]
    assert silhouettes[2][:1] == ["by modality: text, vision in three classes"]
    assert silhouettes[2][2] == f"{value:.3f}"
    assert silhouettes[4][1:] == ["-"] * 3  # images alone have seven classes
    assert counts[0] == ["class", "text", "vision"]
    assert ["neutral", "0 (-)", "3 (0.80)"] in counts and ["fear", "", "1 (0.60)"] in counts


def test_concepts_of_seeds_and_folds(tmp_path):
    both = claim(tmp_path / "both", (5, 6), ("b", "a"))
    for fold in ("a", "b"):
        for seed in (5, 6):
            (both / "folds" / fold / str(seed) / "concepts").mkdir(parents=True)
    found = run_report.concept_folders(both)
    assert list(found) == ["b-5", "b-6", "a-5", "a-6"]
    assert found["a-6"] == both / "folds" / "a" / "6" / "concepts"
    run = seed_run(tmp_path / "run", {"5": 0.5, "6": 0.25})
    for seed in (5, 6):
        leave_concepts(run / str(seed) / "concepts", seed)
    page = Page(run_report.write(run))
    assert page.headings[2:-1] == [
        f"{what}, {seed}" for seed in (5, 6) for what in ("Shared space", "Pools of concepts")
    ]
    pictures = [(run / "report" / f"concepts-{seed}.png").read_bytes() for seed in (5, 6)]
    assert page.images == pictures and pictures[0] != pictures[1]


def test_damaged_concepts_are_named(tmp_path):
    run = seed_run(tmp_path / "run", {"0": 0.5})
    leave_concepts(run / "concepts")
    (run / "concepts" / embeddings.FEATURES).unlink()
    with pytest.raises(InputError, match=r"features\.npz is not there"):
        run_report.write(run)
