"""DINOv2's vision transformer: patch features of slices, from a file of weights of the user's.

Facts from Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024,
and the public state dicts of github.com/facebookresearch/dinov2 (Apache-2.0): ``vits14``,
``vitb14``, ``vitl14``, with or without registers. The size follows from the file. Written afresh.
Its sha256 is not ours to vouch for, so these files are not in the store of weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import WeightsError
from ..download import sha256_of
from ..weights import LocatedWeights
from . import EncoderSpec
from .checkpoint import read_state
from .network import NetworkEncoder, build_encoder

PATCH = 14
_HEAD = 64


@dataclass(frozen=True)
class Shape:
    """``width`` of a token, number of ``blocks`` and ``registers``, ``side`` of the table of
    positions in patches."""

    width: int
    blocks: int
    registers: int = 0
    side: int = 37


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // _HEAD
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        qkv = self.qkv(x).view(batch, count, 3, self.heads, _HEAD).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*qkv)
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, width))


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.ls1, self.ls2 = _Scale(width), _Scale(width)
        self.attn, self.mlp = _Attention(width), _Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class _Patches(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)


class Dinov2(nn.Module):
    """(B, 3, H, W), normalized, to the normalized patch tokens (B, width, H/14, W/14)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # in every file, of use in training
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + shape.side**2, width))
        if shape.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, shape.registers, width))
        self.registers = shape.registers
        self.patch_embed = _Patches(width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(shape.blocks))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def prepare(self) -> None:
        """Nothing to fold."""

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed.proj(images)
        batch, width, rows, columns = patches.shape
        tokens = patches.flatten(2).transpose(1, 2) + self._positions(rows, columns)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)
        extra = [self.register_tokens.expand(batch, -1, -1)] if self.registers else []
        tokens = torch.cat((first, *extra, tokens), dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)[:, 1 + self.registers :]
        return tokens.transpose(1, 2).reshape(batch, width, rows, columns)

    def _positions(self, rows: int, columns: int) -> Tensor:
        """The table of positions stretched to the image: (1, rows * columns, width)."""
        table = self.pos_embed[:, 1:]
        side = math.isqrt(table.shape[1])
        grid = table.view(1, side, side, -1).permute(0, 3, 1, 2).float()
        # The models with registers were trained with smoothing where the table is shrunk.
        smooth = self.registers > 0
        grid = F.interpolate(grid, (rows, columns), mode="bicubic", antialias=smooth)
        return grid.flatten(2).transpose(1, 2).to(table.dtype)


def load_dinov2(path: Path, device: str | torch.device = "cpu") -> NetworkEncoder:
    """The encoder in a file of weights; its size is read from the file.

    Raises :class:`WeightsError` when the file is missing, damaged, or no DINOv2 of a known kind.
    """
    if not path.is_file():
        raise WeightsError(f"The DINOv2 weights '{path}' do not exist; check the path.")
    shape = _shape_of(read_state(path, ""), path)
    spec = EncoderSpec(
        name=f"dinov2-{shape.width}",
        title="DINOv2",
        license="Apache-2.0",
        weights=(),
        build=lambda: Dinov2(shape),
        prefix="",
        stride=PATCH,
        side_multiple=PATCH,
        channels=shape.width,
    )
    return build_encoder(spec, LocatedWeights(path, sha256_of(path), "file", None), 0, device)


def _shape_of(state: dict[str, Tensor], path: Path) -> Shape:
    positions, patches = state.get("pos_embed"), state.get("patch_embed.proj.weight")
    known = positions is not None and patches is not None and positions.ndim == 3
    if not known or patches.shape[-1] != PATCH or positions.shape[2] % _HEAD:
        raise WeightsError(f"{path} does not have the layout of DINOv2; take the official file.")
    blocks = 1 + max((int(k.split(".")[1]) for k in state if k.startswith("blocks.")), default=-1)
    registers = state.get("register_tokens")
    return Shape(
        positions.shape[2],
        blocks,
        0 if registers is None else registers.shape[1],
        math.isqrt(positions.shape[1] - 1),
    )
