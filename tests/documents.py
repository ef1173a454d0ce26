"""Reads README.md and docs/: the commands in them, the modules that they show, and their links."""

import re
import shlex
from pathlib import Path

from affectjax import __main__ as command_line

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def examples():
    """Returns the modules of docs/architecture.md by file name."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    return dict(re.findall(r"```python\n# mypackage/(\w+\.py)\n(.*?)```", text, re.DOTALL))


def commands(text):
    """Returns the words of each `python -m` command in a text, in a line or between backticks.

    `affectjax WORD` becomes the module that it starts; only where it has flags, in backticks.
    """
    text = re.sub(r" *\\\n\s*", " ", text)
    values = dict(re.findall(r'^ *([A-Z]+)="(.*)"$', text, re.MULTILINE))
    found = re.findall(r"^ +python -m (.+)$|`python -m ([^`]+)`", text, re.MULTILINE)
    for line, inline in found:
        command = re.sub(r"\$([A-Z]+)\b", lambda name: values[name[1]], line or inline)
        yield shlex.split(command, comments=True)
    for line, inline in re.findall(r"^ +affectjax (\w.+)$|`affectjax ([^`]* --[^`]+)`", text, re.M):
        word, *arguments = shlex.split(line or inline, comments=True)
        module, first, _ = command_line.WORDS[word]
        yield [f"affectjax.{module}", *first, *arguments]


def links(text):
    """Returns the path and the heading of each link in a text, but of those to the web."""
    return [tuple(found) for found in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text)]


def headings(text):
    """Returns the names that links to the headings of a text have."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
