"""Every notebook runs from top to bottom."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# By notebook: what it prints at its end, and a file that it leaves.
LEAVES = {
    "concepts": ("guided and unguided on 256 test faces", "runs/concepts/report/index.html"),
    "quickstart": ("predicted for", "runs/notebook/eval/missing.json"),
}


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(notebook, tmp_path):
    cells = json.loads(notebook.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    done = subprocess.run(
        [sys.executable, "-c", "\n\n".join(code)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said, file = LEAVES[notebook.stem]
    assert said in done.stdout
    assert (tmp_path / file).is_file()
