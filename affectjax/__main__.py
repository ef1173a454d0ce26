"""The command `affectjax`: each of its words starts one of the apps.

    affectjax train --config=umbenet --workdir=runs/umbenet
    affectjax predict clip.mp4 --checkpoint=runs/umbenet

`affectjax WORD --help` lists the flags of one. Each is also a module of its own, as in
`python -m affectjax.main`, with the same flags.
"""

import runpy
import sys

import affectjax

# word: module of the app, flags that it starts with, what it does.
WORDS = {
    "train": ("main", (), "train and evaluate a model"),
    "eval": ("main", ("--mode=eval",), "evaluate a run again"),
    "predict": ("predict", (), "recognise emotions in clips, sounds, images or sentences"),
    "report": ("report", (), "write the page of a run, or of several side by side"),
    "export": ("export", (), "write a trained run as a folder that others can load"),
    "prepare": ("prepare", (), "decode, crop and store a data set"),
    "doctor": ("prepare", ("--doctor",), "say what is in a data set, and what is wrong with it"),
}


def usage() -> str:
    """Returns what the command says without a word."""
    lines = [f"  {word:<8} {says}" for word, (*_, says) in WORDS.items()]
    return "\n".join(
        [
            "usage: affectjax WORD [arguments]; `affectjax WORD --help` lists them",
            "",
            *lines,
            "",
            "  affectjax train --config=umbenet --workdir=runs/umbenet",
            "  affectjax predict clip.mp4 --checkpoint=runs/umbenet",
        ]
    )


def main() -> None:
    """Starts the app that the first argument names, and exits with its code: 2 where none is."""
    word, *arguments = sys.argv[1:] or ["--help"]
    if word == "--version":
        print(f"affectjax {affectjax.__version__}")
        return
    if word not in WORDS:
        if word not in ("--help", "-h", "help"):
            sys.stderr.write(f"error: {word!r} is no command; allowed: {', '.join(WORDS)}\n")
            sys.exit(2)
        print(usage())
        return
    module, first, _ = WORDS[word]
    sys.argv[1:] = [*first, *arguments]
    runpy.run_module(f"affectjax.{module}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
