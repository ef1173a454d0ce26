"""What was compiled serves the next process, and long compiling is announced."""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from affectjax.runtime import cache, compilation
from affectjax.runtime.parallel import ParallelConfig, initialize


def counted(folder):
    """Compiles something in this process, and prints how often the cache had it."""
    events = []
    jax.config.update("jax_compilation_cache_dir", None)
    jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
    compilation.WORTH_KEEPING = 0.0
    initialize(ParallelConfig(compilation_cache=folder))
    jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((5, 5))).block_until_ready()
    print(events.count("/jax/compilation_cache/cache_hits"))
    print(jax.config.jax_compilation_cache_dir)


def moved(first, second):
    """Keeps in one folder, then in another, then nowhere; prints what lies in both each time."""
    jax.config.update("jax_compilation_cache_dir", None)
    compilation.WORTH_KEEPING = 0.0
    jax.jit(lambda x: x * 2)(jnp.ones(3))  # JAX settles that it keeps nothing
    for number, folder in enumerate((first, second, "off")):
        compilation.keep(folder)
        jax.jit(lambda x, n=number: jnp.sin(x) + n)(jnp.ones(3)).block_until_ready()
        print(*(any(Path(f).glob("*-cache")) for f in (first, second)))


def test_a_run_after_another_keeps_where_its_config_says(start, tmp_path):
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    code, said, error = start(moved, first, second).wait()
    assert code == 0, error
    assert said.splitlines() == ["True False", "True True", "True True"]


@pytest.mark.parametrize("folder", ["", "here", "off"])
def test_the_second_process_compiles_nothing_anew(folder, start, tmp_path):
    folder = str(tmp_path / "here") if folder == "here" else folder
    hits = []
    for _ in range(2):
        code, said, error = start(counted, folder, AFFECTJAX_CACHE=str(tmp_path)).wait()
        assert code == 0, error
        count, where = said.split("\n")[:2]
        hits.append(int(count))
    expected = {"": str(tmp_path / "compiled"), "off": "None"}
    assert where == expected.get(folder, folder)
    assert hits[0] == 0 and (hits[1] > 0) == (folder != "off")


def test_a_folder_that_jax_was_told_of_stays():
    before = jax.config.jax_compilation_cache_dir
    assert before, "the tests keep what they compile"
    compilation.keep("elsewhere")
    assert jax.config.jax_compilation_cache_dir == before


def test_the_user_says_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("AFFECTJAX_CACHE", str(tmp_path))
    assert cache.user_folder() == tmp_path
    monkeypatch.setenv("AFFECTJAX_CACHE", "")
    assert cache.user_folder().name == "affectjax"


@pytest.mark.parametrize("slow", [True, False])
def test_long_compiling_is_announced(slow, monkeypatch, capsys):
    monkeypatch.setattr(compilation, "PATIENCE", 0.05 if slow else 5.0)
    announce = compilation._Announcer()
    announce("/jax/core/compile/jaxpr_to_mlir_module_duration", 3.0, fun_name="step")
    time.sleep(0.3)
    announce("/jax/core/compile/backend_compile_duration", 0.3, fun_name="step")
    said = capsys.readouterr().err
    assert said == ("compiling (first time: about 30 s; kept for next time)\n" if slow else "")


def test_jax_tells_of_compiling(monkeypatch, capsys):
    """The names of the events are JAX's: a version without them would be silent."""
    heard = []
    monkeypatch.setattr(compilation, "_announcer", None)
    monkeypatch.setattr(
        compilation._Announcer, "__call__", lambda self, event, d, **_: heard.append(event)
    )
    compilation.keep()
    jax.jit(lambda x: x * 3 + 1)(jnp.ones(3))
    assert heard.index(compilation._LOWERED) < heard.index(compilation._COMPILED)
