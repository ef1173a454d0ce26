"""MulT in PyTorch, written from the paper: the independent side of parity tests and benchmarks.

Source: Tsai et al. 2019, "Multimodal Transformer for Unaligned Multimodal Language Sequences".
"""

import math

import torch
from torch import nn
from torch.nn import functional

ORDER = ("text", "audio", "vision")


def positions(length: int, width: int) -> torch.Tensor:
    """Returns sinusoids `[T, D]` for positions 1..T: sines in the first half, cosines after."""
    half = width // 2
    rates = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
    angles = torch.arange(1, length + 1)[:, None] * rates[None]
    table = torch.cat([angles.sin(), angles.cos()], dim=1)
    return functional.pad(table, (0, width % 2))


class Block(nn.Module):
    """One pre-norm layer: attention from `x` to `source` (or to itself), then a ReLU FFN."""

    def __init__(self, width, heads, attention_dropout, relu_dropout, residual_dropout):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout=attention_dropout)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.relu_dropout, self.residual_dropout = relu_dropout, residual_dropout

    def forward(self, x, source, future, padding):
        drop = functional.dropout
        query = self.norm1(x)
        memory = query if source is None else self.norm1(source)
        y, _ = self.attention(
            query, memory, memory, key_padding_mask=padding, attn_mask=future, need_weights=False
        )
        x = x + drop(y, self.residual_dropout, self.training)
        y = drop(functional.relu(self.fc1(self.norm2(x))), self.relu_dropout, self.training)
        return x + drop(self.fc2(y), self.residual_dropout, self.training)


class Encoder(nn.Module):
    """A stack of blocks with scaled, positioned input and a final layer norm; `[T, B, D]`."""

    def __init__(self, width, heads, layers, embed_dropout, attention_dropout, relu, residual):
        super().__init__()
        self.width, self.embed_dropout = width, embed_dropout
        self.blocks = nn.ModuleList(
            Block(width, heads, attention_dropout, relu, residual) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def embed(self, x):
        x = math.sqrt(self.width) * x + positions(len(x), self.width)[:, None]
        return functional.dropout(x, self.embed_dropout, self.training)

    def forward(self, x, source=None, padding=None):
        keys = len(x) if source is None else len(source)
        future = torch.triu(torch.ones(len(x), keys), 1 + abs(keys - len(x))).bool()
        x = self.embed(x)
        source = None if source is None else self.embed(source)
        for block in self.blocks:
            x = block(x, source, future, padding)
        return self.norm(x)


class MulT(nn.Module):
    """Three modalities, six crossmodal stacks, three memory stacks, last step, residual head."""

    def __init__(
        self,
        dims,
        width=30,
        heads=10,
        layers=4,
        outputs=1,
        attention_dropout=(0.1, 0.0, 0.0),
        embed_dropout=0.25,
        relu_dropout=0.1,
        residual_dropout=0.1,
        output_dropout=0.0,
    ):
        super().__init__()
        self.project = nn.ModuleDict({m: nn.Conv1d(dims[m], width, 1, bias=False) for m in ORDER})
        self.cross, self.memory = nn.ModuleDict(), nn.ModuleDict()
        common = (embed_dropout,)
        for t in ORDER:
            for s in ORDER:
                if s != t:
                    rate = attention_dropout[ORDER.index(s)]
                    self.cross[f"{s}_to_{t}"] = Encoder(
                        width, heads, layers, *common, rate, relu_dropout, residual_dropout
                    )
            self.memory[t] = Encoder(
                2 * width,
                heads,
                layers,
                *common,
                attention_dropout[0],
                relu_dropout,
                residual_dropout,
            )
        full = 6 * width
        self.head1, self.head2 = nn.Linear(full, full), nn.Linear(full, full)
        self.out = nn.Linear(full, outputs)
        self.embed_dropout, self.output_dropout = embed_dropout, output_dropout

    def forward(self, inputs):
        """Maps `{modality: [B, T, D_m]}` without padding to `[B, outputs]`."""
        drop = functional.dropout
        hidden = {}
        for m in ORDER:
            x = inputs[m].transpose(1, 2)
            x = drop(x, self.embed_dropout, self.training) if m == "text" else x
            hidden[m] = self.project[m](x).permute(2, 0, 1)
        last = []
        for t in ORDER:
            streams = [self.cross[f"{s}_to_{t}"](hidden[t], hidden[s]) for s in ORDER if s != t]
            last.append(self.memory[t](torch.cat(streams, dim=2))[-1])
        fused = torch.cat(last, dim=1)
        y = self.head2(drop(functional.relu(self.head1(fused)), self.output_dropout, self.training))
        return self.out(fused + y)
