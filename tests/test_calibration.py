"""The calibration error and the temperature."""

import json

import numpy as np
import pytest

import affectjax
from affectjax.training import calibration


def test_calibration_equals_loops():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.2, 1, 200)
    right = rng.uniform(size=200) < sure**2
    error, table = calibration.expected_error(sure, right)
    total = 0.0
    found = []
    for k in range(10):
        own = [i for i in range(200) if k / 10 <= sure[i] < (k + 1) / 10]
        if own:
            confidence = sum(sure[i] for i in own) / len(own)
            share = sum(right[i] for i in own) / len(own)
            total += len(own) / 200 * abs(confidence - share)
            found.append((confidence, share, len(own)))
    assert error == pytest.approx(total)
    np.testing.assert_allclose(table, found)
    # Certainty is in the last bin.
    error, _ = calibration.expected_error(np.ones(3), np.array([True, True, False]))
    assert error == pytest.approx(1 / 3)


def test_the_temperature_of_logits_that_were_multiplied():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (4000, 5))
    share = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    label = np.array([rng.choice(5, p=p) for p in share])
    loud = np.exp(3 * logits) / np.exp(3 * logits).sum(-1, keepdims=True)
    found = calibration.fit(loud, label)
    assert found == pytest.approx(3, rel=0.1)
    np.testing.assert_allclose(calibration.cooled(loud, 3.0), share, atol=1e-6)
    assert calibration.cooled(np.array([1.0, 0, 0]), 2.0) == pytest.approx([1, 0, 0], abs=1e-5)


def test_a_run_keeps_it_and_predicts_by_it(finished):
    found = json.loads((finished / "eval" / "calibration.json").read_text())
    valid, labels = calibration._read(finished / "eval" / "valid.csv")
    assert found["temperature"] == pytest.approx(calibration.fit(valid, labels))
    test, labels = calibration._read(finished / "eval" / "test.csv")
    error, _ = calibration.expected_error(test.max(-1), test.argmax(-1) == labels)
    assert found["ece"]["test"]["before"] == pytest.approx(error)
    model = affectjax.load(finished)
    result = model({"text": np.ones((3, 4), np.float32)})
    expected = calibration.cooled(np.array([*result.probability.values()]), found["temperature"])
    np.testing.assert_allclose([*result.calibrated.values()], expected, atol=1e-4)


def test_what_has_no_temperature(tmp_path):
    calibration.write(tmp_path)
    assert calibration.load(tmp_path) is None
    (tmp_path / "eval").mkdir()
    for rows in ("id,label,prediction\na,1.5,1\n", "id,label,prediction,x,y\na,x+y,x,0.9,0.8\n"):
        for split in ("valid", "test"):
            (tmp_path / "eval" / f"{split}.csv").write_text(rows)
        calibration.write(tmp_path)
        assert not (tmp_path / "eval" / "calibration.json").exists()
    for text in ("{", "{}", '{"temperature": -1}'):
        (tmp_path / "eval" / "calibration.json").write_text(text)
        assert calibration.load(tmp_path) is None
