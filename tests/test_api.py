"""What `import affectjax` offers, and that it costs nothing until it is used."""

import subprocess
import sys

import pytest

import affectjax
from affectjax import inference
from affectjax.tasks.supramodal import concept_bank
from affectjax.training import evaluator, loop


def test_the_public_names():
    assert affectjax.train is loop.train
    assert affectjax.evaluate is evaluator.evaluate
    assert affectjax.recognize is inference.recognize
    assert affectjax.Recognizer is inference.Recognizer
    assert affectjax.concepts is concept_bank
    assert set(affectjax.__all__) <= set(dir(affectjax))
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = affectjax.trian


def test_the_import_is_instant():
    code = "import affectjax, sys; print(sorted({'jax', 'numpy', 'flax'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
