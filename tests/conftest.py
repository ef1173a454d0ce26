"""What the tests of training share: a tiny data set, a tiny task, and processes of their own.

`toy` is two small layers with dropout and a running mean: the loop cannot tell it from a large
system, and it compiles in a second.

Letters: B examples, F features, H hidden, O outputs.
"""

import contextlib
import csv
import dataclasses
import json
import multiprocessing
import os
import runpy
import signal
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from ml_collections import config_dict

from affectjax import metrics
from affectjax.data.batches.config import FewerClasses
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.data.raw import sets
from affectjax.ops import losses
from affectjax.ops.dropout import dropout
from affectjax.runtime import cache, compilation, configs
from affectjax.runtime.configs import section
from affectjax.runtime.optim import OptimConfig, Optimizer
from affectjax.runtime.parallel import Engine, ParallelConfig
from affectjax.tasks import base
from affectjax.training import loop
from affectjax.training.run_config import TrainConfig

# Examples by split: 29 in batches of 8 are 4 steps, and the last batch holds 5.
SIZES = {"train": 29, "valid": 9, "test": 10}
STEPS = 4
DIMS = {"text": (5, 4), "audio": (7, 3), "vision": (6, 2)}
CLASSES = ("angry", "glad", "sad")
CONFIG_FILE = str(Path(__file__).resolve())
FOUR = "--xla_force_host_platform_device_count=4"
# Compile time rules many tests: XLA's optimisations are left out.
QUICK = "--xla_backend_optimization_level=0"
if jax.__version_info__ < (0, 11):  # jax 0.12 has no such flag
    QUICK += " --xla_cpu_use_fusion_emitters=false"
COMPILED = cache.user_folder() / "compiled-by-tests"
# What the tests of these folders write, others may read: tiny media, tiny towers.
sys.path += [str(Path(__file__).parent / folder) for folder in ("data", "weights")]
# Seconds after which a process with many runs is given up, on a machine that has other work too.
LONGEST = 2400
# Of the frames that the tiny CLIP reads, pixels; and the width of its features.
CLIP_SIZE, CLIP_WIDTH = 16, 16


# Files whose tests take longest, these first: where two processes share the files, neither then
# waits long for the other at the end.
LONG = (
    *("test_supramodal_runs", "test_umbenet_runs", "test_predict", "test_encode", "test_resume"),
    *("test_resnet", "test_devices", "test_feeds", "test_store", "test_train"),
)


def pytest_collection_modifyitems(items):
    rank = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONG)))


# ---- data ---------------------------------------------------------------------------------------


def write_own(folder, kind="class", modalities=tuple(DIMS), sizes=SIZES, seed=0):
    """Writes labels.csv and features.npz; three examples a video, some modalities missing."""
    rng = np.random.default_rng(seed)
    count = sum(sizes.values())
    splits = [name for name, size in sizes.items() for _ in range(size)]
    label = rng.integers(0, len(CLASSES), count)
    said = [CLASSES[i] for i in label]
    if kind == "score":
        said = [f"{v:.3f}" for v in label - 1 + rng.normal(0, 0.3, count)]
    folder.mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "split", "label"])
        table.writerows((f"v{i // 3}_{i % 3}", splits[i], said[i]) for i in range(count))
    arrays = {}
    for m in modalities:
        steps, width = DIMS[m]
        lengths = rng.integers(0 if m != "text" else 1, steps + 1, count)
        lengths[0] = steps
        arrays[m] = (rng.normal(2, 3, (count, steps, width)) + label[:, None, None]).astype("f4")
        arrays[f"{m}_lengths"] = lengths
    np.savez(folder / "features.npz", **arrays)
    return folder


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Points the cache of prepared data to a folder of this test run."""
    before = os.environ.get("AFFECTJAX_CACHE")
    folder = tmp_path_factory.mktemp("cache")
    os.environ["AFFECTJAX_CACHE"] = str(folder)
    yield folder
    os.environ.pop("AFFECTJAX_CACHE")
    if before is not None:
        os.environ["AFFECTJAX_CACHE"] = before


@pytest.fixture(scope="session", autouse=True)
def _compiled():
    """Keeps what was compiled for other processes of this test run, and for the next one."""
    keep_compiled(os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(COMPILED))


def keep_compiled(folder):
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_compilation_cache_max_size", compilation.LARGEST)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(scope="session")
def own(tmp_path_factory):
    """A folder of raw features with three classes."""
    return write_own(tmp_path_factory.mktemp("raw") / "own")


@pytest.fixture(scope="session")
def scores(tmp_path_factory):
    """A folder of raw features with scores, text and audio alone."""
    return write_own(tmp_path_factory.mktemp("raw") / "scores", "score", ("text", "audio"))


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """A local folder with the weights of a tiny CLIP and its tokenizer; skips without PyTorch."""
    towers = pytest.importorskip("torch_towers")
    folder = tmp_path_factory.mktemp("clip")
    names = [name for module in ("dfew", "mafw") for name in sets.get(module).labels.classes]
    tokenizer = Tokenizer.train([*names, *CLASSES, "what a day", "well"])
    tokenizer.save(folder)
    text = towers.text_config(
        vocab_size=tokenizer.vocab, max_position_embeddings=77, eos_token_id=tokenizer.eos,
        bos_token_id=tokenizer.sos, pad_token_id=tokenizer.pad,
    )  # fmt: skip
    vision = towers.vision_config(image_size=CLIP_SIZE, patch_size=8)
    config = towers.transformers.CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=CLIP_WIDTH
    )
    towers.widened(towers.transformers.CLIPModel(config)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def speech_folder(tmp_path_factory):
    """A local folder with the weights of a tiny WavLM; skips without PyTorch."""
    towers = pytest.importorskip("torch_towers")
    folder = tmp_path_factory.mktemp("speech")
    towers.speech_model("wavlm", large=True).save_pretrained(folder)
    extractor = towers.transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    extractor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clap_folder(tmp_path_factory):
    """A local folder with the weights of a tiny tower of CLAP; skips without PyTorch."""
    towers = pytest.importorskip("torch_towers")
    folder = tmp_path_factory.mktemp("clap")
    towers.clap_audio_model().save_pretrained(folder)
    front = {
        "sampling_rate": 16000, "fft_window_size": 512, "hop_length": 160, "max_length_s": 1,
        "frequency_max": 7000,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(front))
    return folder


# ---- the task toy -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ToyModel:
    """`config.model`: hidden units, dropout, and the step whose loss is infinite."""

    hidden: int = 8
    dropout: float = 0.25
    fault: int = -1


@dataclasses.dataclass(frozen=True)
class ToyStage(base.StageConfig):
    """`config.stages.<name>`: the prefix of what trains, and what `on_end` does."""

    trains: str = ""
    on_end: str = ""


def double_head(model, ending):
    """Hands over a model whose head counts twice."""
    head = {"kernel": 2 * model["params"]["head"]["kernel"]}
    return model | {"params": model["params"] | {"head": head}}


def grow(model, ending):
    """Hands over a model with one parameter more."""
    bias = np.zeros(model["params"]["head"]["kernel"].shape[-1], np.float32)
    return model | {"params": model["params"] | {"bias": bias}}


HAND_OVER = {"": lambda model, ending: model, "double": double_head, "grow": grow}


class Toy:
    """A task: see `affectjax.tasks.base.Task`."""

    def __init__(self, config, inputs, axis_name):
        self.spec, self.modalities, self.axis_name = inputs.spec, inputs.modalities, axis_name
        self.model = configs.read(ToyModel, config["model"], "config.model")
        optim = configs.read(OptimConfig, config["optim"], "config.optim")
        read = {
            name: configs.read(ToyStage, stage, f"config.stages.{name}")
            for name, stage in config["stages"].items()
        }
        self.stages = tuple(
            base.Stage(
                name,
                s.rules(),
                optim,
                loss=self.loss,
                init=self.init,
                trains=lambda path, prefix=s.trains: path.startswith(prefix),
                on_end=HAND_OVER[s.on_end],
            )
            for name, s in sorted(read.items())
        )

    def init(self, key, batch):
        features = self._features(batch).shape[-1]
        outputs = max(len(self.spec.classes), 1)
        a, b = jax.random.split(key)
        hidden = self.model.hidden
        params = {
            "body": {"kernel": 0.3 * jax.random.normal(a, (features, hidden))},
            "head": {"kernel": 0.3 * jax.random.normal(b, (hidden, outputs))},
        }
        return params, {"seen": {"mean": jnp.zeros(features), "steps": jnp.zeros((), jnp.int32)}}

    def _features(self, batch):
        """Returns `[B, F]`: the mean of each modality over its valid steps."""
        means = []
        for m in self.modalities:
            mask = batch[m]["mask"][..., None]
            total = jnp.where(mask, batch[m]["x"], 0).sum(1)
            means.append(total / jnp.maximum(mask.sum(1), 1))
        return jnp.concatenate(means, -1)

    def _logits(self, params, features, key=None):
        hidden = jnp.tanh(features @ params["body"]["kernel"])
        if key is not None:
            hidden = dropout(hidden, key, self.model.dropout, self.axis_name)
        return hidden @ params["head"]["kernel"] + params.get("bias", 0)

    def _each(self, logits, label):
        if self.spec.kind == "score":
            return losses.l1(logits[:, 0], label)
        return losses.cross_entropy(logits, label)

    def loss(self, params, variables, batch, rng):
        features = self._features(batch)
        each = self._each(self._logits(params, features, rng), batch["label"])
        seen = variables["seen"]
        loss = losses.weighted_mean(each, batch["weight"], self.axis_name)
        loss = loss * jnp.where(seen["steps"] == self.model.fault, jnp.inf, 1.0)
        weight = lax.psum(batch["weight"].sum(), self.axis_name)
        mean = lax.psum((features * batch["weight"][:, None]).sum(0), self.axis_name) / weight
        seen = {"mean": 0.9 * seen["mean"] + 0.1 * mean, "steps": seen["steps"] + 1}
        return loss, ({"seen": seen}, {"loss": loss})

    def predict(self, params, variables, batch):
        logits = self._logits(params, self._features(batch))
        out = {"loss": self._each(logits, batch["label"])}
        if self.spec.kind == "score":
            return out | {"score": logits[:, 0]}
        return out | {"probability": jax.nn.softmax(logits)}

    def metric_names(self):
        return ("loss", *metrics.names_of_kind(self.spec.kind, self.spec.classes))

    def metrics(self, predictions, label):
        loss = {"loss": float(predictions["loss"].mean(dtype=np.float64))}
        if self.spec.kind == "score":
            return loss | metrics.sentiment(predictions["score"], label)
        return loss | metrics.classification(predictions["probability"], label, self.spec.classes)

    def table(self, predictions):
        if self.spec.kind == "score":
            return {"prediction": predictions["score"]}
        probability = predictions["probability"]
        names = np.array(self.spec.classes)
        columns = dict(zip(names.tolist(), probability.T, strict=True))
        return {"prediction": names[probability.argmax(-1)], **columns}


def install_toy():
    """Lets `config.task = "toy"` be found; returns what it was before."""
    find = base.find
    read = {"data": ((FewerClasses,), ())}
    toy = types.SimpleNamespace(Task=Toy, sections=lambda config: read)
    base.find = lambda config: toy if config["task"] == "toy" else find(config)
    return find


@pytest.fixture(scope="session", autouse=True)
def _toy():
    before = install_toy()
    yield
    base.find = before


def toy_config(folder="", **changes):
    """Returns the config of a toy run of three epochs.

    Args:
      folder: of the raw features.
      **changes: values by dotted key with `__` in place of the dots.
    """
    config = config_dict.ConfigDict()
    config.task, config.seed, config.seeds = "toy", 0, ()
    config.data = config_dict.ConfigDict({"name": "own", "dir": str(folder)})
    config.model = section(ToyModel)
    config.optim = section(Optimizer, learning_rate=0.02)
    config.stages = config_dict.ConfigDict()
    config.stages.train = section(ToyStage, epochs=3, batch_size=8)
    config.train = section(TrainConfig, eval_batch_size=4, progress=False, baselines=False)
    config.parallel = section(ParallelConfig)
    for key, value in changes.items():
        *sections, last = key.split("__")
        part = config
        for name in sections:
            part = part[name]
        with part.unlocked():
            part[last] = value
    return config


def two_stages(folder, hand_over="double", **changes):
    """Returns a toy config whose first stage trains the head and whose second trains the body."""
    stages = config_dict.ConfigDict()
    stages.first = section(ToyStage, epochs=2, batch_size=8, trains="head", on_end=hand_over)
    stages.second = section(ToyStage, epochs=3, batch_size=5, trains="body")
    return toy_config(folder, stages=stages, **changes)


def get_config(arg=""):
    """Returns the toy config: this file is a config file too, as in `tests/conftest.py:DIR`."""
    return toy_config(arg or "")


# ---- reading a workdir --------------------------------------------------------------------------


def lines_of(workdir):
    """Returns the objects of metrics.jsonl."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def snapshot(workdir):
    """Returns by path bytes, time of change and inode of every file below a folder."""
    files = (f for f in sorted(workdir.rglob("*")) if f.is_file())
    return {
        str(f.relative_to(workdir)): (f.read_bytes(), f.stat().st_mtime_ns, f.stat().st_ino)
        for f in files
    }


def newest(folder):
    """Returns the folder of the newest checkpoint below `folder`."""
    return max((f for f in folder.iterdir() if f.name.isdigit()), key=lambda f: int(f.name))


def results_of(workdir):
    """Returns what two equal runs have in common: text by file, and arrays by path."""
    from affectjax.runtime.checkpoints import Checkpoints

    texts = {"metrics.jsonl": (workdir / "metrics.jsonl").read_text()}
    for file in sorted((workdir / "eval").rglob("*.*")):
        texts[str(file.relative_to(workdir))] = file.read_text()
    arrays = {}
    for kind in ("latest", "best", "frozen"):
        manager = Checkpoints(workdir / "checkpoints" / kind, 2)
        found = manager.restore()
        manager.close()
        if found is None and kind == "frozen":  # a run in which everything trains
            continue
        flat, meta = found
        for key in ("metrics_bytes", "metrics_crc"):
            meta.pop(key, None)
        texts[kind] = json.dumps(meta, sort_keys=True)
        arrays |= {f"{kind}/{path}": x for path, x in flat.items()}
    return texts, arrays


def assert_same_run(ours, theirs):
    """Checks that two workdirs hold the same lines, results and parameters, bit for bit."""
    (texts, arrays), (other_texts, other_arrays) = results_of(ours), results_of(theirs)
    assert texts == other_texts
    assert arrays.keys() == other_arrays.keys()
    for path, x in arrays.items():
        np.testing.assert_array_equal(x, other_arrays[path], err_msg=path)


def assert_close_lines(ours, theirs, tolerance=1e-5):
    """Checks that two lists of lines of metrics.jsonl say the same, numbers to a tolerance."""
    assert len(ours) == len(theirs)
    for line, other in zip(ours, theirs, strict=True):
        assert line.keys() == other.keys()
        for name, value in line.items():
            if isinstance(value, float) and isinstance(other[name], float):
                value = pytest.approx(value, rel=tolerance, abs=tolerance)
            assert value == other[name], (name, other)


# ---- stops and devices --------------------------------------------------------------------------


def terminate_at(monkeypatch, call):
    """Sends this process a SIGTERM while the devices run the training chunk of that number."""
    compile, calls = Engine.compile, []

    def compiled(self, function, axes, donate=(), models=None):
        run = compile(self, function, axes, donate, models)
        if tuple(donate) != (0,):
            return run

        def counted(*arguments):
            calls.append(1)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGTERM)
            return run(*arguments)

        return counted

    monkeypatch.setattr(Engine, "compile", compiled)


def stop_at(config, workdir, call):
    """Trains until a SIGTERM during a chunk."""
    with pytest.MonkeyPatch.context() as patch:
        terminate_at(patch, call)
        with pytest.raises(SystemExit) as stopped:
            loop.train(config, workdir)
    assert stopped.value.code == 143


def on_devices(count):
    """Makes every engine take the first devices only."""
    make = Engine.__init__

    def init(self, kind, devices=None, seeds=1, groups=1):
        make(self, kind, (devices or jax.devices())[:count], seeds, groups)

    return make, init


# ---- processes of their own ---------------------------------------------------------------------

# A process that has imported all this waits, and forks a child whenever a test needs a fresh one:
# a tenth of the time of starting Python.
_PRELOAD = [
    "affectjax.training.loop",
    "tensorboardX",
    "orbax.checkpoint",
    "tensorflow_datasets",
    "pytest",
]
_PRELOAD += [
    "affectjax.models.mcr",
    "affectjax.data.prepare.builder",
    "scipy.stats",
]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(_PRELOAD)


class Child:
    """A running `python -m affectjax.<app>`, or a function in a process of its own.

    Attributes:
      process: of multiprocessing; its `exitcode` is negative after a signal.
    """

    def __init__(self, what, arguments, folder, env):
        self._out, self._err = folder / f"out-{id(self)}", folder / f"err-{id(self)}"
        compiled = jax.config.jax_compilation_cache_dir
        target = (what, arguments, str(self._out), str(self._err), env, compiled)
        self.process = _CONTEXT.Process(target=_in_child, args=target)
        self.process.start()

    def wait(self, timeout=120):
        """Returns exit code, stdout and stderr."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"runs for more than {timeout} s:\n{self._err.read_text()}")
        return self.process.exitcode, self._out.read_text(), self._err.read_text()


def _in_child(what, arguments, out, err, env, compiled):
    for number, path in ((1, out), (2, err)):
        with open(path, "w") as file:
            os.dup2(file.fileno(), number)
    os.environ.update(env)
    keep_compiled(compiled)
    install_toy()
    if callable(what):
        what(*arguments)
        return
    sys.argv = [f"affectjax/{what}.py", *arguments]
    runpy.run_module(f"affectjax.{what}", run_name="__main__")


@pytest.fixture
def start(tmp_path):
    """Starts `python -m affectjax.<app>` with arguments, or a function, in a process of its own."""
    children = []

    def start(what, *arguments, **env):
        folder = tmp_path / "children"
        folder.mkdir(exist_ok=True)
        children.append(Child(what, arguments, folder, env))
        return children[-1]

    yield start
    for child in children:
        with contextlib.suppress(ValueError):
            child.process.kill()


@pytest.fixture(scope="session")
def finished(tmp_path_factory, own):
    """The workdir of a finished toy run; tests only read it."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    loop.train(toy_config(own), workdir)
    return workdir
