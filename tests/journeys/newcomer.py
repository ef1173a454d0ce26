"""A newcomer's way: install the wheel, look at own clips, train, predict, export, load.

    python -m tests.journeys.newcomer

Nothing but the wheel and what it depends on is used: it runs in an empty folder, on clips that are
made here. Each step is timed.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "data"))
import media_files  # noqa: E402

# A network that compiles quickly; other tests read faces and voices.
SMALL = {
    "modalities": "('text',)",
    "width": 16, "text_width": 16, "text_layers": 1, "text_heads": 2, "heads": 2,
    "prompt_tokens": 2, "inherent_tokens": 2, "pool_size": 6, "top_k": 2,
}  # fmt: skip
# What the code does that reads the exported folder.
LOAD = """
import sys, affectjax
assert "site" in affectjax.__file__, affectjax.__file__
model = affectjax.load("model")
result = model("clips/0.mp4", text="I am so happy")
print(result.label, sorted(result.probability), result.modalities)
print(list(model.many("clips/clips.csv", progress=False)["label"]).__len__())
"""


def clips(folder: Path) -> None:
    """Writes fourteen clips of two classes and their table."""
    folder.mkdir()
    rows = ["id,split,label,video,text"]
    for i in range(14):
        glad = i % 2
        shade = np.full((6, 40, 40, 3), 40 + 170 * glad + i, np.uint8)
        tone = media_files.tone(0.6, 16000, 200 + 600 * glad + 9 * i)[None]
        media_files.write(folder / f"{i}.mp4", shade, tone)
        split = "train" if i < 8 else "valid" if i < 10 else "test"
        said = ("I feel low", "I am so happy")[glad]
        rows.append(f"c{i},{split},{('sad', 'glad')[glad]},{i}.mp4,{said}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")


def walk(home: Path, say: Callable[[str], None] = print) -> dict[str, float]:
    """Goes the whole way, and returns the seconds of each step.

    Args:
      home: an empty folder.
      say: takes a line a step.

    Raises:
      RuntimeError: a step failed, with what it said.
    """
    site, work = home / "site", home / "work"
    work.mkdir()
    # Only what pip has put there: not this checkout.
    environment = {
        **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        "PYTHONPATH": str(site),
        "AFFECTJAX_CACHE": str(home / "cache"),
    }
    seconds = {}

    def step(name: str, *command: str) -> str:
        start = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, cwd=work, env=environment)
        seconds[name] = time.monotonic() - start
        if done.returncode:
            raise RuntimeError(f"{name}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        say(f"{name:10} {seconds[name]:6.1f} s")
        return done.stdout

    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    wheel = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(home / "wheels"))
    step("wheel", *pip, *wheel, str(ROOT))
    (file,) = (home / "wheels").glob("*.whl")
    step("install", *pip, "install", "--no-deps", "--target", str(site), str(file))
    affectjax = str(site / "bin" / "affectjax")
    clips(work / "clips")
    looked = step("doctor", affectjax, "doctor", "--dataset=clips", "--raw_dir=clips")
    _check("Problems: none" in looked, looked)
    flags = [f"--config.model.{key}={value}" for key, value in SMALL.items()]
    flags += ["--config.data.dir=clips", "--config.data.detector=none"]
    flags += ["--config.data.image_size=32", "--config.data.frames=4", "--config.data.seconds=0.6"]
    stage = "--config.stages.missing"
    flags += [f"{stage}.epochs=2", f"{stage}.batch_size=4", f"{stage}.subset_loss=0."]
    trained = step(
        "train", affectjax, "train", "--config=umbenet:clips,single", "--workdir=run", *flags
    )
    for said in ("results: run/eval", "page: run/report/index.html", "affectjax predict CLIP"):
        _check(said in trained, trained)
    _check((work / "run/report/index.html").stat().st_size > 10_000, "the page is small")
    table = step("eval", affectjax, "eval", "--workdir=run")
    _check("| war " in table, table)
    said = ("clips/1.mp4", "--text=I am so happy", "--checkpoint=run")
    predicted = json.loads(step("predict", affectjax, "predict", *said))
    _check(predicted["predictions"][0]["id"] == "1.mp4", str(predicted))
    step("export", affectjax, "export", "--workdir=run", "--to=model")
    loaded = step("load", sys.executable, "-c", LOAD)
    _check("['glad', 'sad'] ['text']\n14" in loaded, loaded)
    return seconds


def _check(true: bool, said: str) -> None:
    if not true:
        raise RuntimeError(said)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        total = sum(walk(Path(made)).values())
        print(f"{'together':10} {total:6.1f} s")
