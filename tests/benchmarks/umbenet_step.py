"""UMBEnet's training step against the same step in PyTorch.

    python -m tests.benchmarks.umbenet_step

CLIP's towers of ViT-B/32 from random weights, frozen, in bfloat16; 16 frames of 224 x 224, 5 s of
sound, 77 tokens, 7 classes, prompts of 32 + 32 tokens, a batch of 16, all present, no dropout;
clipping and Adam. On a CPU all is smaller, and in float32, in which it multiplies. PyTorch
runs every class prompt in full, as the towers of transformers do; affectjax runs the prefix that an
example's prompts share once. The batch lies on the device already. The trainable parameters of both
are counted and must be as many. Where there are several devices, a step on all of them, each with a
batch of its own, is compared with a step on the first.

The matrix products of the step, counted by hand, one multiply-add being two operations. A layer of
width d over t tokens is 24 t d^2 + 4 t^2 d. Of a batch of 16, all passes together:

    frames    256 of 12 layers, t = 50, d = 768, and 49 patches of 3072 numbers     2.26 T, one
    text      16 of 12 layers, t = 77, d = 512                                      0.10 T, one
    prompts   16 of 12 layers, t = 65 + 7 * 3, d = 512; no gradient of weights      0.21 T, two
    temporal  16 of 12 layers, t = 16, d = 512                                      0.06 T, three
    sound     16 of six convolutions over 16000, 3200, 640, 128, 26 and 6 steps     0.01 T, three

about 2.6 T in all; fusion, pool and gates are thousandths of it. XLA's own count is printed beside:
it counts the body of a loop once, and the layers of a tower are a loop.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from affectjax.data.batches.inputs import Frames, Inputs, Text, Waveform
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.data.labels import LabelSpec
from affectjax.runtime import optim, steps
from affectjax.runtime.configs import section
from affectjax.runtime.optim import OptimConfig
from affectjax.runtime.parallel import AXIS, Engine
from affectjax.tasks.umbenet import Task, UMBEnetStage
from affectjax.tasks.umbenet.assembly import choose
from tests.benchmarks import timing

if timing.torch:
    import torch
    import transformers

CLASSES = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
CHANNELS = (16, 32, 64, 128, 256, 512)
KERNEL, STRIDE = 15, 5
FROZEN = ("text_tower/", "image_tower/")
SCALE, PULL, L1, RATE = 100.0, 0.1, 1e-4, 2e-3


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is run; the defaults are CLIP's of ViT-B/32 and the paper's."""

    batch: int = 16
    frames: int = 16
    size: int = 224
    patch: int = 32
    image_width: int = 768
    image_layers: int = 12
    image_heads: int = 12
    text_width: int = 512
    text_layers: int = 12
    text_heads: int = 8
    tokens: int = 77
    width: int = 512
    temporal_layers: int = 12
    samples: int = 80000
    prompt: int = 32
    pool: int = 32
    top_k: int = 5
    gate: int = 128
    dtype: str = "bfloat16"

    @property
    def model(self):
        """The part that goes into `config.model`."""
        same = ("width", "image_width", "image_layers", "image_heads", "text_width", "text_layers")
        return {name: getattr(self, name) for name in (*same, "text_heads", "temporal_layers")} | {
            "image_patch": self.patch,
            "prompt_tokens": self.prompt,
            "inherent_tokens": self.prompt,
            "pool_size": self.pool,
            "top_k": self.top_k,
            "gate_hidden": self.gate,
        }


SMALL = Sizes(
    batch=4, frames=4, size=32, patch=8, image_width=128, image_layers=3, image_heads=4,
    text_width=128, text_layers=3, text_heads=4, width=64, temporal_layers=2, samples=16000,
    prompt=8, dtype="float32",
)  # fmt: skip


def operations(s: Sizes, suffixes: int) -> float:
    """Returns the operations of a step by the count at the head of this file.

    Args:
      s: the sizes.
      suffixes: tokens of all class names together.
    """

    def stack(layers, tokens, width):
        return layers * (24 * tokens * width**2 + 4 * tokens**2 * width)

    patches = (s.size // s.patch) ** 2
    frame = stack(s.image_layers, 1 + patches, s.image_width)
    frame += 2 * patches * 3 * s.patch**2 * s.image_width
    text = stack(s.text_layers, s.tokens, s.text_width)
    prompts = stack(s.text_layers, 1 + 2 * s.prompt + suffixes, s.text_width)
    temporal = stack(s.temporal_layers, s.frames, s.width)
    length, before, sound = s.samples, 1, 0
    for channels in CHANNELS:
        length = -(-length // STRIDE)
        sound += 2 * length * KERNEL * before * channels
        before = channels
    return s.batch * (s.frames * frame + text + 2 * prompts + 3 * (temporal + sound))


def inputs_of(s: Sizes) -> tuple[Inputs, dict]:
    """Returns what the batches hold, and one batch with everything present."""
    kinds = {
        "text": Text(s.tokens),
        "audio": Waveform(s.samples),
        "vision": Frames(s.frames, s.size),
    }
    inputs = Inputs(kinds, LabelSpec("class", CLASSES), tokenizer=Tokenizer.train(CLASSES))
    rng, batch = np.random.default_rng(0), inputs.zeros(s.batch)
    batch["text"]["x"][:] = rng.integers(3, inputs.tokenizer.vocab, (s.batch, s.tokens))
    batch["audio"]["x"][:] = rng.uniform(-1, 1, (s.batch, s.samples))
    batch["vision"]["x"][:] = rng.integers(0, 256, batch["vision"]["x"].shape)
    batch["label"][:] = np.arange(s.batch) % len(CLASSES)
    return inputs, batch


def task_of(s: Sizes, inputs: Inputs) -> Task:
    """Returns the task; its towers are from scratch, for a config freezes only what has weights."""
    model = section(
        choose(s.model).parts, dtype=s.dtype, logit_scale=SCALE, pull=PULL, l1=L1, **s.model
    )
    stage = section(UMBEnetStage, epochs=1, batch_size=s.batch, shows="all")
    config = {
        "data": {"without": ()},
        "model": model,
        "optim": section(OptimConfig, learning_rate=RATE),
        "stages": {"missing": stage},
    }
    return Task(config, inputs, AXIS)


def count(tree) -> int:
    """Returns how many numbers the arrays of a tree hold."""
    return sum(x.size for x in jax.tree.leaves(tree))


def jax_step(task: Task, batch, devices: Sequence[jax.Device]):
    """Returns a function that makes one step and waits, its program, and how many train.

    Args:
      task: what trains.
      batch: what one device reads.
      devices: each gets such a batch.
    """
    engine, stage = Engine("shard_map", devices), task.stages[0]
    tx = optim.optimizer(stage.optim)
    init = jax.jit(lambda key: task.init(key, task.inputs.zeros(2)))
    params, variables = init(jax.random.key(0))
    trained, frozen = steps.split_params(params, lambda path: not path.startswith(FROZEN))
    state = steps.new_state(trained, variables, tx, jax.random.key(1))
    state, frozen = engine.replicate((state, frozen))
    batch = jax.tree.map(lambda x: np.concatenate([x] * len(devices)), batch)
    batch = engine.shard(batch, 0)
    one_step, rate = steps.train_step(stage.loss, tx), stage.optim.learning_rate
    step = engine.compile(
        lambda state, frozen, batch: one_step(state, frozen, batch, rate, stage.settings),
        (None, None, 0),
        donate=(0,),
    )
    program = timing.compiled(step, state, frozen, batch)
    held = {"state": state}

    def once():
        held["state"], measured = program.run(held["state"], frozen, batch)
        return float(engine.fetch(measured["loss"]))

    return once, program, count(trained)


def peak(n: int, dtype: str) -> float:
    """Returns operations a second of products of `[n, n]` matrices, the best of five."""
    x = jnp.full((n, n), 1 / n, dtype)
    chain = jax.jit(lambda x: jax.lax.fori_loop(0, 10, lambda _, y: y @ x, x))
    seconds = timing.in_turn([lambda: chain(x)], timing.Setting(rounds=5))
    return 10 * 2 * n**3 / seconds.min()


# ---- PyTorch ------------------------------------------------------------------------------------


def layers_of(width: int, heads: int, layers: int):
    """Returns pre-norm transformer layers over `[B, T, D]`, without dropout."""
    layer = torch.nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
    )
    return torch.nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def clip_of(s: Sizes, vocab: int):
    """Returns transformers' CLIP with random weights."""
    text = transformers.CLIPTextConfig(
        vocab_size=vocab, hidden_size=s.text_width, intermediate_size=4 * s.text_width,
        num_hidden_layers=s.text_layers, num_attention_heads=s.text_heads,
        max_position_embeddings=max(77, s.tokens), eos_token_id=2, bos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    vision = transformers.CLIPVisionConfig(
        hidden_size=s.image_width, intermediate_size=4 * s.image_width, image_size=s.size,
        num_hidden_layers=s.image_layers, num_attention_heads=s.image_heads, patch_size=s.patch,
    )  # fmt: skip
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=s.width)
    return transformers.CLIPModel(config).requires_grad_(False)


def torch_network(s: Sizes, class_tokens, sos: int):
    """Returns the network in PyTorch: all that trains, around a frozen CLIP."""
    nn, longest = torch.nn, max(map(len, class_tokens))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            draw = lambda *shape: nn.Parameter(0.02 * torch.randn(*shape))  # noqa: E731
            self.text_dense = nn.Linear(s.width, s.width)
            self.positions = draw(s.frames, s.width)
            self.temporal = layers_of(s.width, 8, s.temporal_layers)
            before = (1, *CHANNELS[:-1])
            pairs = zip(before, CHANNELS, strict=True)
            self.convolutions = nn.ModuleList(nn.Conv1d(a, b, KERNEL, STRIDE) for a, b in pairs)
            self.audio_dense = nn.Linear(CHANNELS[-1], s.width)
            self.audio_norm = nn.LayerNorm(s.width)
            self.embedding = draw(3, s.width)
            self.fusion = layers_of(s.width, 8, 1)
            self.keys, self.values = draw(s.pool, s.width), draw(s.pool, s.prompt, s.text_width)
            self.hidden = nn.Linear(s.text_width, s.gate)
            self.gate = nn.Linear(s.gate, 1)
            self.inherent = draw(s.prompt, s.text_width)
            rows = [[*row, *[0] * (longest - len(row))] for row in class_tokens]
            self.register_buffer("suffix", torch.tensor(rows))
            ends = torch.tensor([1 + 2 * s.prompt + len(row) - 1 for row in class_tokens])
            self.register_buffer("ends", ends)

        def encode(self, clip, batch):
            """Returns the features `[B, 3, D]` of text, audio and vision."""
            frames = (batch["vision"].flatten(0, 1).permute(0, 3, 1, 2) / 255.0 - 0.5) / 0.25
            with torch.no_grad(), tower_type(s, frames):
                seen = clip.get_image_features(frames).pooler_output
                text = clip.get_text_features(batch["text"]).pooler_output
            seen = seen.float().unflatten(0, (-1, s.frames))
            vision = (seen + self.temporal(seen + self.positions)).mean(1)
            sound = batch["audio"][:, None]
            for convolution in self.convolutions:
                more = -sound.shape[-1] % STRIDE
                sound = nn.functional.pad(sound, (STRIDE, STRIDE + more))
                sound = torch.relu(convolution(sound))
            audio = self.audio_norm(self.audio_dense(sound.mean(-1)))
            return torch.stack([self.text_dense(text.float()), audio, vision], 1)

        def classes(self, clip, merged):
            """Returns `[B, C, D]`: every class prompt in full through the tower of text."""
            table = clip.text_model.embeddings.token_embedding
            b, c = len(merged), len(self.suffix)
            start = table(torch.full((b, 1), sos, device=merged.device))
            inherent = self.inherent.expand(b, -1, -1)
            prefix = torch.cat([start, merged, inherent], 1)[:, None].expand(-1, c, -1, -1)
            suffix = table(self.suffix).expand(b, -1, -1, -1)
            prompts = torch.cat([prefix, suffix], 2).flatten(0, 1)
            with tower_type(s, prompts):
                x = clip.text_model.embeddings(inputs_embeds=prompts)
                x = clip.text_model.encoder(inputs_embeds=x, attention_mask=None, is_causal=True)
                x = x.last_hidden_state[torch.arange(b * c), self.ends.repeat(b)]
                x = clip.text_projection(clip.text_model.final_layer_norm(x))
            return x.float().unflatten(0, (b, c))

        def forward(self, clip, batch):
            fused = self.fusion(self.encode(clip, batch) + self.embedding).mean(1)
            fused = nn.functional.normalize(fused, dim=-1)
            keys = nn.functional.normalize(self.keys, dim=-1)
            index = (fused @ keys.T).topk(s.top_k).indices
            pull = (1 - torch.einsum("bd,bkd->bk", fused.detach(), keys[index])).mean()
            values = self.values[index]
            merged = (values * torch.sigmoid(self.gate(torch.relu(self.hidden(values))))).sum(1)
            classes = nn.functional.normalize(self.classes(clip, merged), dim=-1)
            logits = SCALE * torch.einsum("bd,bcd->bc", fused, classes)
            loss = nn.functional.cross_entropy(logits, batch["label"])
            return loss + PULL * pull + L1 * self.hidden.weight.abs().sum()

    return Network()


def tower_type(s: Sizes, like):
    """Returns the context in which the towers compute as the sizes say."""
    enabled = s.dtype == "bfloat16"
    return torch.autocast(like.device.type, torch.bfloat16, enabled=enabled)


def torch_step(s: Sizes, task: Task, batch):
    """Returns a function that makes one step in PyTorch and waits, and how much it trains."""
    torch.set_float32_matmul_precision("high")
    device = timing.torch_device()
    clip = clip_of(s, task.inputs.tokenizer.vocab).to(device).eval()
    network = torch_network(s, task.model.class_tokens, task.model.sos).to(device)
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    given = {m: torch.from_numpy(batch[m]["x"]).to(device) for m in task.modalities}
    given["text"] = given["text"].long()
    given["label"] = torch.from_numpy(batch["label"]).long().to(device)

    def once():
        optimizer.zero_grad()
        loss = network(clip, given)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return once, sum(p.numel() for p in network.parameters())


# ---- both ---------------------------------------------------------------------------------------


def rows(setting: timing.Setting) -> Iterator[timing.Row]:
    """Times both on one device, and a step on all devices against a step on one."""
    cpu = jax.default_backend() == "cpu"
    s, devices = SMALL if cpu else Sizes(), jax.local_devices()
    inputs, batch = inputs_of(s)
    task = task_of(s, inputs)
    ours, program, trained = jax_step(task, batch, devices[:1])
    theirs = None
    if timing.torch:
        theirs, others = torch_step(s, task, batch)
        timing.same_parameters(trained, others)
    row = timing.row("umbenet_step", ours, setting, timing.PYTORCH, theirs, program=program)
    work = operations(s, task_suffixes(task))
    share = work / row.seconds / peak(1024 if cpu else 8192, s.dtype)
    note = f"{work:.3g} operations by hand, {program.run.cost_analysis()['flops']:.3g} by XLA"
    yield dataclasses.replace(row, note=f"{note}; {share:.0%} of the peak of products")
    if len(devices) > 1:
        every, program, _ = jax_step(task, batch, devices)
        name = f"umbenet_step, {len(devices)} devices"
        yield timing.row(name, every, setting, "one device", ours, program=program)


def task_suffixes(task: Task) -> int:
    """Returns how many tokens follow the prefix, padding among them."""
    rows = task.model.class_tokens
    return len(rows) * max(map(len, rows))


if __name__ == "__main__":
    timing.main(rows)
