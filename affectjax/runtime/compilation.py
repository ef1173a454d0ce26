"""What XLA has compiled is kept on disk, and where compiling takes long it says so."""

import sys
import threading

import jax
import tqdm
from jax.experimental.compilation_cache import compilation_cache

from affectjax.runtime import cache

OFF = "off"
# Bytes; what was not used for longest goes first.
LARGEST = 2 * 2**30
# Seconds: what compiles faster is not kept.
WORTH_KEEPING = 0.2
# Seconds after which compiling is announced.
PATIENCE = 1.5
# Seconds of compiling for one of turning JAX's operations into XLA's, which comes before it and
# grows with their number. Seen for UMBEnet's programs, on two busy CPU cores: 5 and 31.
RATIO = 10.0
_LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
_COMPILED = "/jax/core/compile/backend_compile_duration"


def keep(folder: str = "") -> None:
    """Keeps what is compiled from now on for later processes, and announces long compilations.

    A folder that JAX was told of by others (JAX_COMPILATION_CACHE_DIR) stays.

    Args:
      folder: where; "" for `compiled` in the user's cache folder, "off" to keep nothing.
    """
    global _folder
    _announce()
    if jax.config.jax_compilation_cache_dir != _folder:
        return
    where = folder or str(cache.user_folder() / "compiled")
    where = None if folder == OFF else where
    if where == _folder:
        return
    _folder = where
    jax.config.update("jax_compilation_cache_dir", where)
    # JAX settles whether and where it keeps programs when it first compiles, which may be over.
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_max_size", LARGEST)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING)


class _Announcer:
    """Writes a line while something compiles for longer than `PATIENCE`."""

    def __init__(self):
        self._waiting: threading.Timer | None = None

    def __call__(self, event: str, duration: float, **_) -> None:
        """Hears of JAX's events: compiling begins after the one and ends with the other."""
        if event not in (_LOWERED, _COMPILED):
            return
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        if event == _LOWERED:
            self._waiting = threading.Timer(PATIENCE, _say, [max(duration * RATIO, 2 * PATIENCE)])
            self._waiting.daemon = True
            self._waiting.start()


def _say(seconds: float) -> None:
    kept = "; kept for next time" if jax.config.jax_compilation_cache_dir else ""
    tqdm.tqdm.write(f"compiling (first time: about {seconds:.0f} s{kept})", file=sys.stderr)


_announcer: _Announcer | None = None
# What `keep` told JAX.
_folder: str | None = None


def _announce() -> None:
    """Listens to JAX, once in a process."""
    global _announcer
    if _announcer is None:
        _announcer = _Announcer()
        jax.monitoring.register_event_duration_secs_listener(_announcer)
