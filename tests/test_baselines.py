"""Simple baselines: what is pooled, which penalty is chosen, and what a run says of them."""

import json
import math

import numpy as np
import pytest
from clip_media import raw_files
from conftest import CLASSES, CONFIG_FILE, SIZES, toy_config
from scipy import sparse
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge, RidgeCV
from sklearn.model_selection import PredefinedSplit, StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler
from test_report import Page

from affectjax import metrics
from affectjax.data.batches.dataset import DataConfig, Dataset
from affectjax.data.batches.inputs import Features, Frames
from affectjax.data.batches.splits import assign_folds, share
from affectjax.data.labels import LabelSpec
from affectjax.modalities import MODALITIES
from affectjax.reports import run_report
from affectjax.training import baselines, folds, linear, loop, pooling

SCORE = LabelSpec("score")
CLASS = LabelSpec("class", CLASSES)
BINARY = LabelSpec("binary", ("a", "b"))


# ---- what is pooled -----------------------------------------------------------------------------


def test_a_sequence_is_the_mean_and_deviation_of_its_valid_steps():
    rng = np.random.default_rng(0)
    x, mask = rng.normal(size=(4, 6, 3)).astype("f4"), rng.random((4, 6)) < 0.6
    mask[1], x[~mask] = False, np.nan
    found = pooling.sequence(x, mask)
    for row in (0, 2, 3):
        own = x[row][mask[row]]
        np.testing.assert_allclose(found[row], [*own.mean(0), *own.std(0)], rtol=1e-5, atol=1e-6)
    assert not found[1].any()


def test_a_tone_is_loud_in_its_band_whatever_pads_it():
    samples, hertz = np.arange(8000) / 16000, 1000.0
    x = np.zeros((3, 12000), np.float32)
    x[0, :8000] = 0.5 * np.sin(2 * np.pi * hertz * samples)
    mask = np.zeros(x.shape, bool)
    mask[:2, :8000] = True
    found = pooling.sound(x, mask)
    assert found.shape == (3, 128)
    # Band m of 64 on Slaney's scale up to 8 kHz, where 1 kHz is 15 mel of 45.245.
    assert found[0, :64].argmax() == pytest.approx(15 / 45.245 * 65 - 1, abs=1)
    np.testing.assert_allclose(found[1, :64], -100, atol=1e-3)  # silence
    assert not found[2].any()  # no sound at all
    np.testing.assert_allclose(found[0], pooling.sound(x[:1, :8000], mask[:1, :8000])[0], rtol=1e-3)


def test_pictures_are_a_mean_over_some_frames():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (3, 6, 32, 32, 3)).astype(np.uint8)
    mask = np.arange(6) < np.array([6, 1, 0])[:, None]
    found = pooling.pictures(x, mask)
    each = [pooling.picture(x[0, i]) for i in (0, 2, 3, 5)]
    np.testing.assert_allclose(found[0], np.mean(each, 0), rtol=1e-5)
    np.testing.assert_allclose(found[1], pooling.picture(x[1, 0]), rtol=1e-5)
    assert not found[2].any()
    grey = np.full((32, 32, 3), 51, np.uint8)
    assert (
        pooling.picture(grey)[:256] == pytest.approx(0.2) and not pooling.picture(grey)[256:].any()
    )


def test_tokens_weighted_are_scikit_learns_tf_idf():
    texts = ["1 2 2 5 9", "1 3 9", "1 2 7 9", "1 3 3 3 9", "1 9"]
    rows = [np.array(text.split(), int) for text in texts]
    x = np.zeros((5, 5), np.int32)
    for i, row in enumerate(rows):
        x[i, : len(row)] = row
    counts = pooling.tokens(x, x > 0, vocab=12)
    assert counts[3].toarray()[0].tolist() == [0, 1, 0, 3, 0, 0, 0, 0, 0, 1, 0, 0]
    scaler = linear.Scaler(counts)
    # Tokens 2 and 3 alone stand in more than one text and not in all of them.
    theirs = (
        TfidfVectorizer(vocabulary=["2", "3"], token_pattern=r"\d", sublinear_tf=True)
        .fit_transform(texts)
        .toarray()
    )
    theirs -= theirs.mean(0)
    np.testing.assert_allclose(scaler(counts), theirs / np.sqrt(theirs.var(0).sum()), atol=1e-6)
    assert linear.Scaler(counts[:1])(counts).shape == (5, 1)  # nothing tells texts apart


def test_modalities_vary_alike_however_wide_they_are():
    rng = np.random.default_rng(0)
    x = rng.normal(5, [1.0, 20.0, 0.01, 0.0], (50, 4)).astype("f4")
    found = linear.Scaler(x)(x)
    theirs = StandardScaler().fit_transform(x)
    np.testing.assert_allclose(found[:, :3], theirs[:, :3] / math.sqrt(3), atol=1e-3)
    assert not found[:, 3].any() and found.var(0).sum() == pytest.approx(1)


# ---- which penalty ------------------------------------------------------------------------------


def made(kind, n=117, seed=0):
    """Returns features, labels and groups; the first features say the label, most say nothing."""
    rng = np.random.default_rng(seed)
    x, groups = rng.normal(size=(n, 30)) / math.sqrt(30), [f"v{i // 3}" for i in range(n)]
    signal = 10 * x[:, 0] + rng.normal(0, 1, n)
    if kind == "score":
        return x, signal.astype("f4"), groups
    if kind == "class":
        return x, np.digitize(signal, [-1, 1]).astype(np.int32), groups
    return x, np.stack([signal > 0, 10 * x[:, 1] > 1], 1).astype(np.int32), groups


def test_the_penalty_of_scores_is_scikit_learns_over_the_same_folds():
    x, label, groups = made("score")
    penalty, loss = linear.choose(SCORE, x, label, groups)
    split = PredefinedSplit(assign_folds(groups, linear.FOLDS, linear.SEED))
    theirs = RidgeCV(linear.PENALTIES, cv=split, scoring="neg_mean_squared_error").fit(x, label)
    assert penalty == theirs.alpha_ and min(linear.PENALTIES) < penalty < max(linear.PENALTIES)
    assert loss == pytest.approx(-theirs.best_score_, rel=1e-6)
    found = linear.predict(SCORE, x, label, penalty, {"a": x[:7], "b": x[7:]})
    expected = Ridge(alpha=penalty).fit(x, label).predict(x)
    np.testing.assert_allclose(np.concatenate([found["a"], found["b"]]), expected, rtol=1e-5)
    assert len(found["a"]) == 7


def test_the_penalty_of_classes_is_scikit_learns_over_the_same_folds():
    x, label, groups = made("class")
    penalty, _ = linear.choose(CLASS, x, label, groups)
    split = StratifiedGroupKFold(linear.FOLDS, shuffle=True, random_state=linear.SEED)
    theirs = LogisticRegressionCV(
        Cs=[1 / p for p in linear.PENALTIES], cv=list(split.split(x, label, groups)),
        scoring="neg_log_loss", max_iter=500, use_legacy_attributes=True, l1_ratios=(0,),
    ).fit(x, label)  # fmt: skip
    assert penalty == pytest.approx(1 / theirs.C_[0])
    found = linear.predict(CLASS, x, label, penalty, {"a": x})["a"]
    expected = LogisticRegression(C=1 / penalty, tol=1e-6).fit(x, label).predict_proba(x)
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_binary_tasks_are_a_model_each():
    x, label, groups = made("binary")
    penalty, _ = linear.choose(BINARY, x, label, groups)
    found = linear.predict(BINARY, x, label, penalty, {"a": x})["a"]
    for k in range(2):
        theirs = LogisticRegression(C=1 / penalty, tol=1e-6).fit(x, label[:, k])
        np.testing.assert_allclose(found[:, k], theirs.predict_proba(x)[:, 1], atol=0.01)


@pytest.mark.parametrize("kind", ["score", "class", "binary"])
def test_no_fold_divides_a_group(kind):
    x, label, groups = made(kind)
    groups = np.array(groups)
    spec = {"score": SCORE, "class": CLASS, "binary": BINARY}[kind]
    held = []
    for train, out in linear.folds(spec, label, groups):
        assert not set(groups[train]) & set(groups[out])
        held += out.tolist()
    assert sorted(held) == list(range(len(x)))


def test_a_class_or_task_that_nobody_shows_is_never_said():
    x, label, groups = made("class")
    label = np.where(label == 2, 0, label)
    found = linear.predict(CLASS, x, label, 1.0, {"a": x})["a"]
    assert not found[:, 2].any() and found.sum(1) == pytest.approx(1)
    only = np.ones((len(x), 2), np.int32)
    assert (linear.predict(BINARY, x, only, 1.0, {"a": x})["a"] == 1).all()
    assert np.isfinite(linear.choose(CLASS, x, np.zeros_like(label), groups)[1])
    assert math.isnan(linear.choose(CLASS, x, label, ["one"] * len(x))[1])


def test_the_most_frequent_and_the_mean():
    label = np.array([1, 1, 0, 2, 1], np.int32)
    found = linear.constant(CLASS, label, 4)
    theirs = DummyClassifier(strategy="prior").fit(np.zeros((5, 1)), label)
    np.testing.assert_allclose(found, theirs.predict_proba(np.zeros((4, 1))))
    np.testing.assert_allclose(linear.constant(SCORE, np.array([1.0, -2.0, 4.0]), 2), [1, 1])
    tasks = np.array([[1, 0], [1, 1], [1, 0]], np.int32)
    np.testing.assert_allclose(linear.constant(BINARY, tasks, 2), [[1, 1 / 3]] * 2)


# ---- a data set ---------------------------------------------------------------------------------


class Scorer:
    """Sees some modalities of a data set."""

    def __init__(self, dataset, modalities):
        self.spec, self.modalities = dataset.spec, modalities


@pytest.fixture(scope="module")
def synth():
    return Dataset(DataConfig("affect_synth", view="sequences"))


def test_the_embedded_set_is_what_scikit_learn_makes_of_its_batches(synth, monkeypatch):
    monkeypatch.setattr(baselines, "MOST", 128)
    found = baselines.of_data_set(Scorer(synth, ("text", "audio")), synth)
    assert found["metrics"] == list(metrics.MAIN["class"])
    own = found["baselines"]
    assert list(own) == ["majority", "linear, text", "linear, audio", "linear, all"]
    part = synth.part("train")
    label, test = synth.labels(part), synth.arrays(synth.part("test"))
    majority = np.bincount(label).argmax()
    assert own["majority"]["examples"] == len(part) == 1024
    assert own["majority"]["test"]["war"] == pytest.approx(np.mean(test["label"] == majority))
    kept = part.only(share(label, 128 / len(label), 0))
    train, parts = synth.arrays(kept), {}
    for m in ("text", "audio"):
        result = own[f"linear, {m}"]
        assert result["examples"] == len(kept) and 120 <= len(kept) <= 136
        assert result["groups"] == len({i.split("_")[1] for i in synth.ids(kept)})
        x, y = (pooling.sequence(a[m]["x"], a[m]["mask"]) for a in (train, test))
        width = result["features"]
        assert width in (x.shape[1], x.shape[1] // 2)
        scale = StandardScaler().fit(x[:, :width])
        parts[m] = [scale.transform(v[:, :width]) / math.sqrt(width) for v in (x, y)]
        assert_is_a_logistic_regression(parts[m], train["label"], test["label"], result)
    together = [np.hstack([parts["text"][i], parts["audio"][i]]) for i in range(2)]
    assert_is_a_logistic_regression(together, train["label"], test["label"], own["linear, all"])
    assert own["linear, text"]["test"]["war"] > own["majority"]["test"]["war"] + 0.1


def assert_is_a_logistic_regression(x, train, test, result):
    model = LogisticRegression(C=1 / result["penalty"], tol=1e-6, max_iter=1000).fit(x[0], train)
    expected = metrics.classification(model.predict_proba(x[1]), test, [str(i) for i in range(7)])
    assert result["test"]["war"] == pytest.approx(expected["war"], abs=0.01)
    assert result["test"]["uar"] == pytest.approx(expected["uar"], abs=0.01)


def test_scores_with_missing_modalities(scores):
    """The toy scores: some examples have no audio."""
    dataset = Dataset(DataConfig("own", str(scores)))
    found = baselines.of_data_set(Scorer(dataset, ("text", "audio")), dataset)
    assert next(iter(found["baselines"])) == "mean score"
    arrays = {role: dataset.arrays(dataset.part(role)) for role in ("train", "test")}
    assert not arrays["train"]["present"]["audio"].all()
    train, test = (a["label"] for a in arrays.values())
    mean = metrics.sentiment(np.full(len(test), train.mean(dtype=float)), test)
    assert found["baselines"]["mean score"]["test"] == pytest.approx(mean, nan_ok=True)
    result = found["baselines"]["linear, audio"]
    x = [pooling.sequence(a["audio"]["x"], a["audio"]["mask"]) for a in arrays.values()]
    x = [v[:, : result["features"]] for v in x]
    scale = StandardScaler().fit(x[0])
    x = [scale.transform(v) / math.sqrt(result["features"]) for v in x]
    ridge = Ridge(alpha=result["penalty"]).fit(x[0], train)
    assert result["test"] == pytest.approx(metrics.sentiment(ridge.predict(x[1]), test), rel=1e-4)


def test_forms_of_a_modality():
    assert pooling.forms(Features(5, 4), 8) == [slice(0, 4), slice(0, 8)]
    assert pooling.forms(Frames(5, 4), 8) == [slice(0, 8)]
    assert sparse.issparse(pooling._join([sparse.csr_matrix((1, 2)), sparse.csr_matrix((3, 2))]))


# ---- a run --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory, own):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    config = toy_config(own, train__baselines=True, stages__train__epochs=1)
    return workdir, loop.train(config, workdir)


def test_a_run_writes_baselines_with_the_metrics_of_its_model(run):
    workdir, result = run
    found = json.loads((workdir / "eval" / "baselines.json").read_text())
    names = ["majority", *(f"linear, {m}" for m in (*MODALITIES, "all"))]
    assert list(found["baselines"]) == names
    for own in found["baselines"].values():
        assert own["examples"] == SIZES["train"]
        for split in ("valid", "test"):
            assert set(own[split]) == set(result) - {"loss", "interval"}
        assert np.sum(own["test"]["confusion"]) == SIZES["test"]


def test_a_run_that_was_stopped_before_its_baselines_makes_them_when_it_is_started_again(run, own):
    workdir, result = run
    file = workdir / "eval" / "baselines.json"
    before, time = file.read_text(), file.stat().st_mtime_ns
    config = toy_config(own, train__baselines=True, stages__train__epochs=1)
    assert loop.train(config, workdir)["war"] == result["war"]
    assert file.stat().st_mtime_ns == time  # they are there
    file.unlink()
    loop.train(config, workdir)
    assert file.read_text() == before


def test_what_a_run_says_when_it_ends(start, own, tmp_path):
    flags = [f"--config={CONFIG_FILE}:{own}", f"--workdir={tmp_path / 'run'}"]
    more = ("--config.train.baselines=True", "--config.stages.train.epochs=1")
    code, out, said = start("main", *flags, *more).wait()
    assert code == 0, said
    (standing,) = baselines.standings(tmp_path / "run")
    lines = standing.lines()
    assert out.splitlines()[2 : 2 + len(lines)] == lines and lines[0] == "war on test:"
    page, what, predict, report = out.splitlines()[2 + len(lines) :]
    assert page == f"page: {tmp_path / 'run'}/report/index.html" and what == "next:"
    assert predict == f"  affectjax predict FOLDER_OF_FEATURES --checkpoint={tmp_path / 'run'}"
    assert report.startswith(f"  affectjax report --workdir={tmp_path / 'run'} --against=")


def standing(war, best, of="", interval=None):
    rows = {"model": {"war": war}, "majority": {"war": 0.9}}
    rows |= {"linear, text": {"war": best}, "linear, all": {"war": 0.25}}
    return baselines.Standing(of, ("war",), rows, {"war": interval} if interval else {})


def test_a_model_below_the_best_linear_baseline_is_told_so():
    assert standing(0.5, 0.6, interval=[0.4, 0.625]).lines() == [
        "war on test:",
        "  model         0.5000 [0.4000, 0.6250]",
        "  majority      0.9000",
        "  linear, text  0.6000",
        "  linear, all   0.2500",
        "the model is below its best linear baseline: war 0.5000, and linear, text has 0.6000",
    ]
    assert standing(0.6, 0.6).verdict == ""
    assert standing(None, 0.6, "audio").verdict.startswith("the model of audio is below")


def test_the_page_has_a_table_of_them(run):
    workdir, result = run
    page = Page(run_report.write(workdir))
    headings = ["Metrics", "Against simple baselines", "When modalities are missing"]
    assert page.headings[1:4] == headings
    head, model, *rows = page.tables[1]
    assert head == ["what", *metrics.MAIN["class"]]
    low, high = result["interval"]["war"]
    assert model[:2] == ["model", f"{result['war']:.4f} [{low:.4f}, {high:.4f}]"]
    assert [row[0] for row in rows] == ["majority", *(f"linear, {m}" for m in (*MODALITIES, "all"))]
    assert page.tables[0][0] == ["metric", "mean", "std", "95 % interval"]


def test_folds_have_the_mean_of_their_baselines(tmp_path, own):
    config = toy_config(
        own, data__kfold=3, train__baselines=True, stages__train__epochs=1,
        data__modalities=("text",),
    )  # fmt: skip
    loop.train(config, tmp_path)
    each = [
        json.loads((tmp_path / "folds" / name / "eval" / "baselines.json").read_text())
        for name in folds.fold_names(config)
    ]
    found = json.loads((tmp_path / "eval" / "baselines.json").read_text())
    for name in ("majority", "linear, text"):
        values = [own["baselines"][name]["test"]["war"] for own in each]
        assert found["baselines"][name]["test"]["mean"]["war"] == pytest.approx(np.mean(values))
    (standing,) = baselines.standings(tmp_path)
    assert standing.rows["majority"]["war"] is not None and not standing.interval


def test_without_baselines_nothing_is_said(finished):
    assert baselines.standings(finished) == []
    assert run_report.standing_tables(finished, "test") == []


# ---- raw clips ----------------------------------------------------------------------------------

# Video, sound and words; one has all, the others lack some.
CLIPS = (
    ("whole.mp4", "", "What a day!"),
    ("pictures", "", "Well, well."),
    ("", "tone.wav", ""),
    ("face.png", "", ""),
    ("", "", "What a day, again."),
    ("silent.mp4", "tone.wav", "All of a day."),
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    rows = [
        (f"{split}_{i}", split, CLASSES[i % 3], *files)
        for split in ("train", "valid", "test")
        for i, files in enumerate(CLIPS)
    ]
    folder = raw_files(tmp_path_factory.mktemp("clips") / "raw", rows)
    config = DataConfig(
        "clips", str(folder), view="clips", image_size=32, frames=3, seconds=0.2, detector="none"
    )
    return Dataset(config)


def test_raw_clips_are_pooled_from_their_batches(clips):
    part = clips.part("train")
    found, arrays = pooling.pool(clips, part, MODALITIES), clips.arrays(part)
    dense = {m: own.toarray() if sparse.issparse(own) else own for m, own in found.items()}
    shown = {m: own.any(1).tolist() for m, own in dense.items()}
    assert shown["audio"] == [True, False, True, False, False, True]
    assert shown["vision"] == [True, True, False, True, False, True]
    assert shown["text"] == [True, True, False, False, True, True]
    np.testing.assert_allclose(
        found["vision"][3], pooling.picture(arrays["vision"]["x"][3, 0]), atol=1e-6
    )
    counts = np.asarray(found["text"].sum(1)).ravel()
    np.testing.assert_array_equal(counts, arrays["text"]["mask"].sum(1))


def test_a_few_raw_clips_of_one_person_have_baselines(clips):
    found = baselines.of_data_set(Scorer(clips, MODALITIES), clips)["baselines"]
    for name in (*MODALITIES, "all"):
        own = found[f"linear, {name}"]
        # One group alone makes no folds.
        assert own["groups"] == 1 and own["penalty"] == 0.3
    # The other splits are the same six clips.
    assert found["linear, all"]["test"] == found["linear, all"]["valid"]
    assert found["linear, all"]["test"]["war"] > found["majority"]["test"]["war"]
