"""UMBEnet in NumPy, one example and one step at a time: the independent side of its tests.

Written from section 1 of SPEC, in float64. Weights are nested dicts of arrays under the names of
the Flax modules; `present` is a tuple of M yes or no, in house order.

Letters: M modalities, T steps, D width, N prompts of the pool, k chosen ones, L tokens of a prompt,
Dt width of the text tower.
"""

import numpy as np
from numpy_mcr import block, dense, keep_valid, layer_norm, positions, sigmoid, softmax

# ---- encoders -----------------------------------------------------------------------------------


def mean_of(x, valid):
    """Returns the mean of the valid rows of `[T, D]`, zeros where there is none."""
    rows = [row for row, yes in zip(x, valid, strict=True) if yes]
    return np.mean(rows, axis=0) if rows else np.zeros(np.shape(x)[-1])


def transformer(stacked, x, valid, heads):
    """Returns `x` `[T, D]` after all layers of the stacked weights."""
    for i in range(len(stacked["norm"]["scale"])):
        x = block(take(stacked, i), x, valid, heads)
    return x


def take(tree, i):
    """Returns row `i` of every array of nested dicts."""
    return {
        name: take(value, i) if isinstance(value, dict) else value[i]
        for name, value in tree.items()
    }


def frame_head(p, x, valid, heads):
    """Returns `[D]` of frame features `[T, D]`: positions, transformer, residual, mean."""
    x = keep_valid(np.asarray(x, np.float64), valid)
    if "temporal" in p:
        placed = np.array([row + p["positions"][t] for t, row in enumerate(x)])
        x = x + transformer(p["temporal"]["layers"], placed, valid, heads)
    return mean_of(x, valid)


def sequence(p, x, valid, heads):
    """Returns `[D]` of precomputed features `[T, D_m]`."""
    x = dense(keep_valid(np.asarray(x, np.float64), valid), p["dense"])
    x = x + positions(valid, x.shape[-1])
    if "layers" in p:
        x = transformer(p["layers"]["layers"], x, valid, heads)
    return mean_of(layer_norm(x, p["norm"]), valid)


def strided(x, p, kernel=15, stride=5):
    """Returns a strided convolution with ReLU over `x` `[T, D]`, which is zero beyond its ends.

    Output t is centred on the samples t * stride to (t + 1) * stride: as many more stand before.
    """
    width = x.shape[1]
    weights = p["kernel"].reshape(kernel, width, -1)
    out = np.zeros((-(-len(x) // stride), weights.shape[-1]))
    for t in range(len(out)):
        total = p["bias"].copy()
        for j in range(kernel):
            place = t * stride - (kernel - stride) // 2 + j
            if 0 <= place < len(x):
                total = total + x[place] @ weights[j]
        out[t] = np.maximum(total, 0)
    return out


def audio_conv(p, sound, layers=6):
    """Returns `[D]` of a sound `[s]` without any padding."""
    x = np.asarray(sound, np.float64)[:, None]
    for i in range(layers):
        x = strided(x, p[f"conv_{i}"])
    pooled = x.mean(0) if len(x) else np.zeros(x.shape[1])
    return layer_norm(dense(pooled, p["dense"])[None], p["norm"])[0]


def image_conv(p, image, layers):
    """Returns `[D]` of an image `[H, W, 3]`: patches of 4, then kernels of 3 at every other pixel.

    Every stage is a convolution, a layer norm over the channels of a pixel, and ReLU.
    """
    x = np.asarray(image, np.float64)
    for i in range(layers):
        size, stride, before = (4, 4, 0) if i == 0 else (3, 2, 1)
        weights = p[f"conv_{i}"]["kernel"].reshape(size, size, x.shape[2], -1)
        out = np.zeros((-(-x.shape[0] // stride), -(-x.shape[1] // stride), weights.shape[-1]))
        for h in range(out.shape[0]):
            for w in range(out.shape[1]):
                total = p[f"conv_{i}"]["bias"].copy()
                for a in range(size):
                    for b in range(size):
                        y, z = h * stride - before + a, w * stride - before + b
                        if 0 <= y < x.shape[0] and 0 <= z < x.shape[1]:
                            total = total + x[y, z] @ weights[a, b]
                out[h, w] = np.maximum(layer_norm(total[None], p[f"norm_{i}"])[0], 0)
        x = out
    return dense(x.reshape(-1), p["project"])


# ---- the text tower -----------------------------------------------------------------------------


def text_tower(p, x, heads):
    """Returns the feature of embeddings `[T, Dt]`, all valid, at the last one: a plain forward."""
    x = np.array([row + p["position"][t] for t, row in enumerate(x)])
    width = x.shape[1]
    size = width // heads
    for i in range(len(p["blocks"]["key"]["kernel"])):
        layer = take(p["blocks"], i)
        y = layer_norm(x, layer["attention_norm"])
        query, key, value = (dense(y, layer[name]) for name in ("query", "key", "value"))
        gathered = np.zeros_like(x)
        for h in range(heads):
            cut = slice(h * size, (h + 1) * size)
            for t in range(len(x)):
                scores = [query[t, cut] @ key[s, cut] / np.sqrt(size) for s in range(t + 1)]
                for s, share in enumerate(softmax(scores, [True] * (t + 1))):
                    gathered[t, cut] += share * value[s, cut]
        x = x + dense(gathered, layer["out"])
        y = dense(layer_norm(x, layer["feed_norm"]), layer["up"])
        x = x + dense(y * sigmoid(1.702 * y), layer["down"])
    return dense(layer_norm(x, p["last_norm"])[-1], p["project"])


def class_features(p, merged, sos, class_tokens, heads):
    """Returns `[C, D]`: the tower on `[SOS][P'][inherent][class]`, each class alone, in full."""
    token = p["text_tower"]["token"]
    return np.array(
        [
            text_tower(
                p["text_tower"],
                np.concatenate([token[[sos]], merged, p["inherent"], token[list(tokens)]]),
                heads,
            )
            for tokens in class_tokens
        ]
    )


# ---- fusion, pool, prompts ----------------------------------------------------------------------


def unit(x):
    """Returns `x` `[D]` at length 1; zeros stay zeros."""
    length = np.sqrt(sum(v * v for v in x))
    return x / length if length > 0 else np.zeros_like(x)


def fuse(p, tokens, present, heads):
    """Returns F_fusion `[D]` of tokens `[M, D]` (eq. 2 and 3): an absent one is not looked at."""
    x = keep_valid(np.asarray(tokens, np.float64) + p["embedding"], present)
    if "layers" in p:
        x = transformer(p["layers"]["layers"], x, present, heads)
    return unit(mean_of(x, present))


def query_of(p, fused, query_map):
    """Returns the query of a fused feature `[D]`."""
    if query_map == "mlp":
        fused = np.maximum(dense(fused, p["query_hidden"]), 0)
    return fused if query_map == "identity" else dense(fused, p["query"])


def retrieve(query, keys, k, penalty=None):
    """Returns the numbers and cosines of the k best keys, best first, ties to the lower number."""
    cosine = [float(unit(query) @ unit(key)) for key in keys]
    score = [c - (0 if penalty is None else penalty[n]) for n, c in enumerate(cosine)]
    best = sorted(range(len(keys)), key=lambda n: (-score[n], n))[:k]
    return best, [cosine[n] for n in best]


def sparse_fusion(p, chosen):
    """Returns P' `[L, Dt]` and the gates `[k, L]` of prompts `[k, L, Dt]` (eq. 10 to 12)."""
    gates = np.zeros(chosen.shape[:2])
    merged = np.zeros(chosen.shape[1:])
    for i, prompt in enumerate(chosen):
        for t, x in enumerate(prompt):
            hidden = np.maximum(x @ p["w1"] + p["b1"], 0)
            gates[i, t] = sigmoid(hidden @ p["w2"] + p["b2"])[0]
            merged[t] += gates[i, t] * x
    return merged, gates


def umbenet(p, features, present, net):
    """Returns all that the network makes of one example, by name.

    Args:
      p: weights.
      features: `[M, D]`, what the encoders gave.
      present: M yes or no.
      net: has heads, top_k, query_map, text, sos, class_tokens and logit_scale.
    """
    fused = fuse(p["fusion"], features, present, net.heads)
    query = query_of(p["pool"], fused, net.query_map)
    index, similarity = retrieve(query, p["pool"]["keys"], net.top_k)
    merged, gates = sparse_fusion(p["sparse"], p["pool"]["values"][index])
    classes = class_features(p, merged, net.sos, net.class_tokens, net.text["heads"])
    classes = np.array([unit(row) for row in classes])
    return {
        "logits": np.array([net.logit_scale * (fused @ row) for row in classes]),
        "fused": fused,
        "prompt_index": np.array(index),
        "prompt_similarity": np.array(similarity),
        "gates": gates[..., None],
        "class_feature": classes,
        "pull": np.mean([1 - c for c in similarity]),
    }
