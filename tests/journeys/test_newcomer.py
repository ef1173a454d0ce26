"""The newcomer's way works from the wheel alone."""

import pytest

from tests.journeys import newcomer


@pytest.mark.slow
def test_from_the_wheel_to_an_exported_model(tmp_path):
    seconds = newcomer.walk(tmp_path)
    assert list(seconds) == [
        *("wheel", "install", "doctor", "train", "eval", "predict", "export", "load")
    ]
