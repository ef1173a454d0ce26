"""Says what a run reached: `affectjax report --workdir=A --against=B,C`.

    python -m affectjax.report --workdir=A
    python -m affectjax.report --workdir=A --against=B

Prints a table, and leaves report/index.html in the workdir, a page of its own: the metrics with
their intervals, simple baselines, learning, errors, calibration, missing modalities, prompts, and
where the run comes from. Against other runs: a paired t-test over seeds or folds, McNemar's test
and the bootstrap over examples. A run that has learned concepts also gets report/concepts.png and
report/concepts.json: its shared space, and the pools of its bank. Of several seeds or folds, each
has its own, as concepts-0.png.
"""

from absl import flags, logging

from affectjax.errors import InputError
from affectjax.runtime import app

_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run.")
_AGAINST = flags.DEFINE_list("against", [], "The folders of other runs to compare it with.")
_SPLIT = flags.DEFINE_string("split", "test", "Which eval/<split>.json to read.")


def main(argv):
    """Prints the table that the flags ask for, and writes the page."""
    del argv
    if not _WORKDIR.value:
        raise InputError("--workdir is missing: which run?")
    from affectjax.reports import run_report  # JAX starts slowly: a wrong flag answers before that

    if _AGAINST.value:
        print(run_report.comparison(_WORKDIR.value, _AGAINST.value, _SPLIT.value))
    else:
        print(run_report.table(_WORKDIR.value, _SPLIT.value))
    logging.info("%s", run_report.write(_WORKDIR.value, _SPLIT.value, _AGAINST.value))


if __name__ == "__main__":
    app.run(main)
