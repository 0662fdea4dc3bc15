"""SAM 2's image encoder: the Hiera trunk with windowed attention, and its feature pyramid neck.

Facts from Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024; Ryali et al.,
"Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles", ICML 2023; Bolya et al.,
"Window Attention is Bugged", 2023 (the positional embedding); and the public configurations and
state dicts of github.com/facebookresearch/sam2. Written afresh; module names are those of the
official checkpoints, so that these load strictly.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_OUT_CHANNELS = 256
#: Side of an attention window in each stage, in tokens of that stage.
_WINDOWS = (8, 4, 14, 7)
_MLP_RATIO = 4
_EPS = 1e-6


@dataclass(frozen=True)
class HieraSize:
    """What tells one published trunk from another; widths and heads double at every stage."""

    width: int
    heads: int
    depths: tuple[int, int, int, int]
    global_blocks: tuple[int, ...]
    background_side: int


TINY = HieraSize(96, 1, (1, 2, 7, 2), (5, 7, 9), 7)
SMALL = HieraSize(96, 1, (1, 2, 11, 2), (7, 10, 13), 7)
BASE_PLUS = HieraSize(112, 2, (2, 3, 16, 3), (12, 16, 20), 14)


def _pool(x: Tensor) -> Tensor:
    """Maximum over 2 x 2 tokens: (B, H, W, C) to (B, H / 2, W / 2, C)."""
    return F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


def _to_windows(x: Tensor, side: int) -> Tensor:
    """(B, H, W, C) to (B * windows, side, side, C), filled up with zeros at the end."""
    below, right = -x.shape[1] % side, -x.shape[2] % side
    x = F.pad(x, (0, 0, 0, right, 0, below)) if below or right else x
    batch, height, width, channels = x.shape
    x = x.view(batch, height // side, side, width // side, side, channels)
    return x.transpose(2, 3).reshape(-1, side, side, channels)


def _from_windows(x: Tensor, height: int, width: int) -> Tensor:
    """The inverse of :func:`_to_windows`; ``height`` and ``width`` count tokens to keep."""
    side, channels = x.shape[1], x.shape[3]
    rows, columns = -(-height // side), -(-width // side)
    x = x.view(-1, rows, columns, side, side, channels).transpose(2, 3)
    return x.reshape(-1, rows * side, columns * side, channels)[:, :height, :width]


class Attention(nn.Module):
    """Multi-head attention inside (B, H, W, C); with ``pooled`` the queries are pooled by 2."""

    def __init__(self, width: int, out_width: int, heads: int, pooled: bool) -> None:
        super().__init__()
        self.heads = heads
        self.pooled = pooled
        self.qkv = nn.Linear(width, 3 * out_width)
        self.proj = nn.Linear(out_width, out_width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q = _pool(q) if self.pooled else q
        batch, height, width, channels = q.shape
        q, k, v = (
            t.reshape(batch, -1, self.heads, channels // self.heads).transpose(1, 2)
            for t in (q, k, v)
        )
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(batch, height, width, channels))


class Mlp(nn.Module):
    """Two linear layers along the last axis (keys ``layers.0`` and ``layers.1``)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = width * _MLP_RATIO
        self.layers = nn.ModuleList([nn.Linear(width, hidden), nn.Linear(hidden, width)])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[1](F.gelu(self.layers[0](x)))


class Block(nn.Module):
    """A transformer block on (B, H, W, C); the first one of a stage halves H and W.

    ``window`` is the side of its windows in tokens of its input, 0 for attention among all.
    """

    def __init__(self, width: int, out_width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.downsamples = width != out_width
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.attn = Attention(width, out_width, heads, self.downsamples)
        self.norm2 = nn.LayerNorm(out_width, eps=_EPS)
        self.mlp = Mlp(out_width)
        if self.downsamples:
            self.proj = nn.Linear(width, out_width)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        shortcut = _pool(self.proj(normed)) if self.downsamples else x
        if self.window:
            height, width = shortcut.shape[1:3]
            x = _from_windows(self.attn(_to_windows(normed, self.window)), height, width)
        else:
            x = self.attn(normed)
        x = shortcut + x
        return x + self.mlp(self.norm2(x))


class _PatchEmbed(nn.Module):
    """The image to tokens: (B, 3, H, W) to (B, H / 4, W / 4, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 7, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).permute(0, 2, 3, 1)


class Hiera(nn.Module):
    """The trunk: images (B, 3, H, W) to the tokens of its four stages, strides 4, 8, 16 and 32."""

    def __init__(self, size: HieraSize) -> None:
        super().__init__()
        background, window = size.background_side, _WINDOWS[0]
        self.patch_embed = _PatchEmbed(size.width)
        self.pos_embed = nn.Parameter(torch.zeros(1, size.width, background, background))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, size.width, window, window))
        for table in (self.pos_embed, self.pos_embed_window):
            nn.init.trunc_normal_(table, std=0.02)  # replaced by weights; for the random control
        blocks = []
        width = size.width
        for stage, depth in enumerate(size.depths):
            for index in range(depth):
                # The block that halves the resolution still sees the windows of the stage before.
                window = _WINDOWS[stage - 1 if stage and not index else stage]
                if len(blocks) in size.global_blocks:
                    window = 0
                out_width, heads = size.width << stage, size.heads << stage
                blocks.append(Block(width, out_width, heads, window))
                width = out_width
        self.blocks = nn.ModuleList(blocks)
        self._stage_ends = {sum(size.depths[: stage + 1]) - 1 for stage in range(4)}

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.patch_embed(images)
        x = x + self._position(x.shape[1], x.shape[2])
        stages = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self._stage_ends:
                stages.append(x)
        return stages

    def _position(self, height: int, width: int) -> Tensor:
        """(1, height, width, C): a coarse map stretched over the image, and a tile per window."""
        # In float32 also under autocast: the map is made once per batch and costs nothing.
        coarse = F.interpolate(self.pos_embed, size=(height, width), mode="bicubic")
        side = self.pos_embed_window.shape[-1]
        tiles = self.pos_embed_window.tile(1, 1, height // side, width // side)
        return (coarse + tiles).permute(0, 2, 3, 1)


class _Neck(nn.Module):
    """The feature pyramid. Only its level of stride 16 is computed: what SAM 2 calls the features.

    The convolutions of strides 4 and 8 serve SAM 2's mask decoder; they are here because they
    belong to the checkpoint.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Sequential(OrderedDict(conv=nn.Conv2d(width << stage, _OUT_CHANNELS, 1)))
            for stage in (3, 2, 1, 0)
        )

    def forward(self, stages: list[Tensor]) -> Tensor:
        coarse = self.convs[0](stages[3].permute(0, 3, 1, 2))
        lateral = self.convs[1](stages[2].permute(0, 3, 1, 2))
        return lateral + F.interpolate(coarse.float(), scale_factor=2.0, mode="nearest")


class Sam2ImageEncoder(nn.Module):
    """Normalized images (B, 3, H, W) to embeddings (B, 256, H / 16, W / 16).

    H and W are multiples of 32: the last stage needs whole tokens, and the tiles of the
    positional embedding whole windows.
    """

    def __init__(self, size: HieraSize) -> None:
        super().__init__()
        self.trunk = Hiera(size)
        self.neck = _Neck(size.width)

    def forward(self, images: Tensor) -> Tensor:
        return self.neck(self.trunk(images.contiguous(memory_format=torch.channels_last)))

    def prepare(self) -> None:
        """Makes the loaded network ready for inference: convolutions channels-last."""
        self.to(memory_format=torch.channels_last)
