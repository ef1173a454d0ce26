"""MCR in NumPy, one example and one step at a time: the independent side of `models/test_mcr.py`.

Written from section 3 of the paper (equations 2 to 16) and from what SPEC decides, in float64.
Weights are nested dicts of arrays under the names of the Flax modules. Sequences are `[T, D]` and
masks `[T]` of ONE example; `over_batch` loops a unit over the examples of a batch.
"""

import functools

import jax
import numpy as np

ORDER = ("text", "audio", "vision")

# Compile time rules these tests, so this jit leaves XLA's optimisations out: a third of the time.
# jax 0.12 has no such option.
_FUSION = {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}
quick = functools.partial(
    jax.jit,
    compiler_options={"xla_backend_optimization_level": 0, **_FUSION},
)


def draw(shapes, seed, scale=0.3):
    """Returns random float32 parameters shaped as `shapes`: nothing is zero, scales lie near 1."""
    rng = np.random.default_rng(seed)

    def leaf(path, x):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return (centre + scale * rng.standard_normal(x.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def over_batch(unit, *arguments):
    """Returns `unit` applied to every example alone; arguments are arrays or dicts of arrays."""
    batch = len(jax.tree.leaves(arguments[0])[0])
    pick = lambda b: jax.tree.map(lambda x: np.asarray(x)[b], arguments)  # noqa: E731
    results = [unit(*pick(b)) for b in range(batch)]
    return jax.tree.map(lambda *rows: np.stack(rows), *results)


def wide(params):
    """Returns the weights in float64."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


# ---- pieces -------------------------------------------------------------------------------------


def dense(x, p):
    y = np.asarray(x, np.float64) @ p["kernel"]
    return y + p["bias"] if "bias" in p else y


def layer_norm(x, p):
    out = np.zeros_like(x)
    for t, row in enumerate(x):
        out[t] = (row - row.mean()) / np.sqrt(row.var() + 1e-5) * p["scale"] + p["bias"]
    return out


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(scores, valid):
    """Returns the softmax over the valid entries alone; all zero where there is none."""
    out = np.zeros(len(scores))
    chosen = [i for i in range(len(scores)) if valid[i]]
    if chosen:
        powers = [np.exp(scores[i] - max(scores[j] for j in chosen)) for i in chosen]
        for i, power in zip(chosen, powers, strict=True):
            out[i] = power / sum(powers)
    return out


def convolve(x, p):
    """Returns the convolution over steps, zeros beyond both ends; the kernel's length is odd."""
    kernel = p["kernel"]
    reach = len(kernel) // 2
    out = np.zeros((len(x), kernel.shape[-1]))
    for t in range(len(x)):
        for k in range(len(kernel)):
            if 0 <= t + k - reach < len(x):
                out[t] += x[t + k - reach] @ kernel[k]
    return out + p["bias"] if "bias" in p else out


def feed_forward(x, p):
    """Returns the position-wise feed-forward layer (pre-norm) with its skip connection."""
    hidden = np.maximum(dense(layer_norm(x, p["norm"]), p["up"]), 0)
    return x + dense(hidden, p["down"])


def keep_valid(x, mask):
    return np.where(np.asarray(mask)[:, None], x, 0.0)


def heads_attention(query, memory, valid, p, heads):
    """Returns multi-head attention (eq. 1) and its weights `[H, Tq, Tk]`."""
    width = query.shape[-1]
    size = width // heads
    q, both = dense(query, p["query"]), dense(memory, p["key_value"])
    k, v = both[:, :width], both[:, width:]
    gathered = np.zeros_like(q)
    weights = np.zeros((heads, len(q), len(k)))
    for h in range(heads):
        cut = slice(h * size, (h + 1) * size)
        for i in range(len(q)):
            scores = [q[i, cut] @ k[j, cut] / np.sqrt(size) for j in range(len(k))]
            weights[h, i] = softmax(scores, valid)
            for j in range(len(k)):
                gathered[i, cut] += weights[h, i, j] * v[j, cut]
    return dense(gathered, p["out"]), weights


# ---- units --------------------------------------------------------------------------------------


def cmu(p, target, mask, sources, source_masks, mutual=True):
    """Returns eq. 2-5: the target reinforced by each source, and what was seen.

    `sources` and `source_masks` are dicts in the order of MODALITIES, of one or two modalities.
    """
    width = target.shape[-1]
    names = [m for m in ORDER if m in sources]
    normed = layer_norm(np.asarray(target, np.float64), p["norm_target"])
    q = dense(normed, p["query"])
    scores, values = {}, {}
    for s in names:
        source = layer_norm(np.asarray(sources[s], np.float64), p[f"norm_{s}"])
        k, values[s] = dense(source, p[f"key_{s}"]), dense(source, p[f"value_{s}"])
        scores[s] = np.zeros((len(q), len(k)))
        for i in range(len(q)):
            for j in range(len(k)):
                scores[s][i, j] = q[i] @ k[j] / np.sqrt(width)

    seen, total = {}, scores
    if mutual and len(names) == 2:
        first, second = names
        sums = [float(np.sum(row)) for s in names for row in np.asarray(sources[s], np.float64)]
        valid = [bool(v) for s in names for v in source_masks[s]]
        alpha = softmax(sums, valid)  # eq. 3
        cut = len(source_masks[first])
        alpha = {first: alpha[:cut], second: alpha[cut:]}
        exchanged = {}
        for s in names:
            clean = scores[s].copy()
            for i in range(len(q)):
                for j in range(clean.shape[1]):
                    if not (mask[i] and source_masks[s][j]):
                        clean[i, j] = 0.0
            exchanged[s] = convolve(clean, p[f"exchange_{s}"])
        total = {
            first: scores[first] + alpha[first][None] * exchanged[second],  # eq. 4
            second: scores[second] + alpha[second][None] * exchanged[first],  # eq. 5
        }
        seen |= {f"alpha/{s}": alpha[s] for s in names}

    out = normed.copy()
    for s in names:
        weights = np.stack([softmax(row, source_masks[s]) for row in total[s]])
        seen[f"attention/{s}"] = weights
        out += weights @ values[s]
    return keep_valid(feed_forward(out, p["feed"]), mask), seen


def scu(p, target, mask, joined, joined_mask, heads, attention_layer="collapsed"):
    """Returns eq. 6-11: crossmodal and self-attention, mixed by one weight each."""
    query = layer_norm(np.asarray(target, np.float64), p["norm_target"])
    memory = layer_norm(np.asarray(joined, np.float64), p["norm_joined"])
    cross, cross_weights = heads_attention(query, memory, joined_mask, p["cross"], heads)
    own, own_weights = heads_attention(query, query, mask, p["self"], heads)
    branches = {"cross": keep_valid(cross, mask), "self": keep_valid(own, mask)}
    seen = {"attention/joined": cross_weights, "attention/self": own_weights}
    if attention_layer == "none":
        mixed = branches["cross"] + branches["self"]
    else:
        beta = []
        for name, z in branches.items():
            vector = np.array([number for row in z for number in row])
            if attention_layer == "full":
                inner = dense(vector, p[f"beta_{name}"])  # W vec(Z) + b
                beta.append(float(p["beta_shared"]["kernel"][:, 0] @ inner))  # eq. 9
            else:
                beta.append(float(dense(vector, p[f"beta_{name}"])[0]))
        gamma = softmax(beta, (True, True))  # eq. 10
        mixed = gamma[0] * branches["cross"] + gamma[1] * branches["self"]  # eq. 11
        seen["gamma"] = gamma
    return keep_valid(feed_forward(mixed, p["feed"]), mask), seen


def gate(p, *inputs):
    """Returns a sigmoid of the sum of bias-free maps and one bias, `[T, D]` or `[D]`."""
    total = sum(dense(x, p[f"weight_{i}"]) for i, x in enumerate(inputs))
    return sigmoid(total + p["bias"])


def memory(p, source, target, mask, update="memory"):
    """Returns eq. 12-14: a source stream after it has heard its modality's new target."""
    source = np.asarray(source, np.float64)
    if update == "low_level":
        return source
    own = dense(np.maximum(dense(source, p["up"]), 0), p["down"])
    if update == "feed_forward":
        new = own
    elif update == "sum":
        new = own + target
    else:
        mu = gate(p["gate"], own, target)  # eq. 13
        new = (1 - mu) * np.tanh(target) + mu * own  # eq. 14
    return keep_valid(new, mask)


def select(p, joined, mask):
    """Returns eq. 15-16: the concatenated sources of a target, gated once more."""
    return keep_valid(gate(p, joined) * np.tanh(joined), mask)


# ---- a layer, and the model ---------------------------------------------------------------------

DEFAULTS = {
    "cmu": True,
    "scu": True,
    "mutual": True,
    "attention_layer": "collapsed",
    "source_update": "memory",
    "structure": "parallel",
    "pool": "mean",
}


def sources_of(target, modalities):
    """Returns the other modalities, or the target itself where it is alone (section 4.5.1)."""
    return [m for m in modalities if m != target] or [target]


def join(target, streams, modalities):
    return np.concatenate([streams[s] for s in sources_of(target, modalities)], axis=0)


def reinforcement(p, targets, sources, joined, masks, *, modalities, reinforced, heads, **switches):
    """Returns one layer (Fig. 1b): new targets, sources and joined sources, and what was seen."""
    c = DEFAULTS | switches
    new, seen = dict(targets), {}
    for t in reinforced:
        heard = {s: sources[s] for s in sources_of(t, modalities)}
        heard_masks = {s: masks[s] for s in heard}
        joined_mask = join(t, masks, modalities)
        parts, start = [], targets[t]
        if c["cmu"]:
            fine, maps = cmu(p[f"cmu_{t}"], start, masks[t], heard, heard_masks, c["mutual"])
            seen |= {f"{t}/cmu/{k}": v for k, v in maps.items()}
            if c["structure"] == "serial" and c["scu"]:
                start = fine
            else:
                parts.append(fine)
        if c["scu"]:
            mixed, maps = scu(
                p[f"scu_{t}"], start, masks[t], joined[t], joined_mask, heads, c["attention_layer"]
            )
            seen |= {f"{t}/scu/{k}": v for k, v in maps.items()}
            parts.append(mixed)
        new[t] = sum(parts)
    update = c["source_update"]
    old = sources
    sources = {
        m: memory(p.get(f"memory_{m}"), old[m], new[m], masks[m], update) for m in modalities
    }
    joined = {}
    for t in reinforced:
        joined[t] = join(t, sources, modalities)
        if update == "memory":
            joined[t] = select(p[f"select_{t}"], joined[t], join(t, masks, modalities))
    return (new, sources, joined), seen


def positions(mask, width):
    """Returns sinusoids `[T, D]`: valid steps count 1, 2, ..., padded steps are zero."""
    half = width // 2
    out, count = np.zeros((len(mask), width)), 0
    for t, valid in enumerate(mask):
        if valid:
            count += 1
            for i in range(half):
                angle = count / 10000 ** (i / (half - 1))
                out[t, i], out[t, half + i] = np.sin(angle), np.cos(angle)
    return out


def block(p, x, valid, heads):
    """Returns a pre-norm transformer layer over a sequence."""
    normed = layer_norm(x, p["norm"])
    return feed_forward(
        x + heads_attention(normed, normed, valid, p["attention"], heads)[0], p["feed"]
    )


def mcr(p, batch, *, modalities, heads, targets=(), **switches):
    """Returns the prediction of one example `{modality: {"x": [T, D_m], "mask": [T]}}`."""
    c = DEFAULTS | switches
    reinforced = [m for m in modalities if not targets or m in targets]
    masks = {m: batch[m]["mask"] for m in modalities}
    streams = {}
    for m in modalities:
        x = keep_valid(np.asarray(batch[m]["x"], np.float64), masks[m])
        x = keep_valid(convolve(x, p[f"project_{m}"]["conv"]), masks[m])
        streams[m] = x + positions(masks[m], x.shape[-1])
    joined = {t: join(t, streams, modalities) for t in reinforced}
    carry = (streams, streams, joined)
    for i in range(len(jax.tree.leaves(p["reinforce"]["layers"])[0])):
        layer = jax.tree.map(lambda x, i=i: x[i], p["reinforce"]["layers"])
        carry, _ = reinforcement(
            layer, *carry, masks, modalities=modalities, reinforced=reinforced, heads=heads, **c
        )
    together = np.concatenate([carry[0][t] for t in reinforced])
    valid = np.concatenate([masks[t] for t in reinforced])
    for i in range(len(p["encoder"]["layers"]["norm"]["scale"])):
        layer = jax.tree.map(lambda x, i=i: x[i], p["encoder"]["layers"])
        together = block(layer, together, valid, heads)
    together = layer_norm(together, p["norm"])
    pooled, start = [], 0
    for t in reinforced:
        rows = [together[start + i] for i in range(len(masks[t])) if masks[t][i]]
        start += len(masks[t])
        some = np.mean(rows, axis=0) if c["pool"] == "mean" and rows else rows[-1] if rows else 0
        pooled.append(some + np.zeros(together.shape[-1]))
    fused = np.concatenate(pooled)
    return dense(np.maximum(dense(fused, p["head_up"]), 0), p["head"]), fused
