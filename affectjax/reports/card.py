"""The card of a model: what it learned from, what was measured, and what it is not for."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from affectjax.data.batches import saved_inputs
from affectjax.data.raw import sets
from affectjax.errors import InputError
from affectjax.reports import run_report
from affectjax.runtime import configs
from affectjax.runtime.workdir import CONFIG, Workdir
from affectjax.training import baselines

LIMITS = (
    "It tells classes apart that its data has, as that data labels them: acted or annotated "
    "expressions, not what a person feels.",
    "It was measured on the test part of the same data set; other people, languages, cameras and "
    "microphones were not tried unless a table above says so.",
    "It is not made to diagnose, to hire, to police, or to decide about a person.",
)


def text(workdir: str | Path, read: Sequence[str]) -> str:
    """Returns the card in Markdown, with a head that model hubs read.

    Args:
      workdir: of a finished run.
      read: the modalities that its model reads.

    Raises:
      InputError: a file of the run cannot be read.
    """
    path = Path(workdir)
    config = Workdir(path).config()
    said = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    inputs = saved_inputs.load(path)
    name = config["data"].get("name", "")
    lines = ["---", "library_name: affectjax", f"datasets: [{name}]", "tags: [emotion]", "---", ""]
    lines += [f"# {config['task']} on {name}", ""]
    lines += [_what(inputs, read), ""]
    lines += ["## How to use it", "", "    pip install affectjax", ""]
    lines += ["```python", "import affectjax", 'model = affectjax.load("THIS_FOLDER")']
    lines += [_call(inputs, read), "```", ""]
    lines += ["## Data", "", *_data(config), ""]
    lines += ["## What was measured", ""]
    for split in ("test", "valid"):
        if (path / "eval" / f"{split}.json").is_file():
            table = run_report.table(path, split).split("\n\n", 1)[1]
            lines += [f"On the {split} part:", "", table, ""]
    standing = [own.markdown() for own in run_report.standing_tables(path, "test")]
    if standing:
        lines += ["Beside simple baselines:", "", *standing, ""]
        verdicts = [own.verdict for own in baselines.standings(path) if own.verdict]
        lines += [f"**{verdict}**\n" for verdict in verdicts]
    shown = run_report.missing_table(path)
    if shown:
        lines += ["When modalities are missing:", "", shown.markdown().split("\n\n", 1)[1], ""]
    lines += ["## Limits", "", *(f"- {limit}" for limit in LIMITS), ""]
    if _is_generated(name):
        lines += ["- **It learned from generated data, and knows no real person.**", ""]
    lines += ["## Where it comes from", ""]
    versions = ", ".join(f"{k} {v}" for k, v in said.get("versions", {}).items())
    lines += [f"- seeds: {', '.join(map(str, configs.seeds(config)))}", f"- versions: {versions}"]
    if said.get("git"):
        lines += [f"- source: {said['git']}"]
    if said.get("command"):
        lines += [f"- command: `{' '.join(said['command'])}`"]
    return "\n".join(lines) + "\n"


def _is_generated(name: str) -> bool:
    try:
        return sets.get(name).generate is not None
    except InputError:  # a module of somebody who is not here
        return False


def _what(inputs: Any, read: Sequence[str]) -> str:
    kinds = ", ".join(f"{m} ({inputs.kinds[m].kind})" for m in read)
    some = ", any of which may be missing" if len(read) > 1 else ""
    spec = inputs.spec
    what = "a score" if spec.kind == "score" else ", ".join(spec.classes)
    return f"Reads {kinds}{some}. Predicts {what}."


def _call(inputs: Any, read: Sequence[str]) -> str:
    features = [m for m in read if inputs.kinds[m].kind == "features"]
    if features:
        arrays = ", ".join(f'"{m}": {m}' for m in features)
        return f"model({{{arrays}}})  # arrays [steps, width]"
    if tuple(read) == ("text",):
        return 'model(text="what was said").probability'
    said = ', text="what was said"' if "text" in read else ""
    return f'model("clip.mp4"{said}).probability'


def _data(config: dict[str, Any]) -> list[str]:
    own = config["data"]
    parts = [f"{role}: `{own[role]}`" for role in ("train", "valid", "test") if role in own]
    kept = ("holdout", "kfold", "fold", "share", "class_map", "modalities", "threshold")
    more = [f"{key}: `{own[key]}`" for key in kept if own.get(key)]
    return [f"- data set: `{own.get('name')}`", *(f"- {line}" for line in (*parts, *more))]
