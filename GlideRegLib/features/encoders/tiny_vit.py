"""TinyViT with SAM's neck: the image encoder of MobileSAM and, with another stem, of LiteMedSAM.

Facts from Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers", ECCV
2022; Zhang et al., "Faster Segment Anything: Towards Lightweight SAM for Mobile Applications",
2023; and the public state dicts of github.com/ChaoningZhang/MobileSAM and
github.com/bowang-lab/MedSAM (branch LiteMedSAM). Written afresh. It differs from those programs in
three ways that do not change a value: the size of the image is free (they fix the output to
64 x 64), tensors stay channels-last from end to end, and batch norms can be folded into the
convolutions in front of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Channels and blocks of the four stages of the 5M model; attention heads and windows of the last
#: three (the first stage is convolutional).
_WIDTHS = (64, 128, 160, 320)
_DEPTHS = (2, 2, 6, 2)
_HEADS = (0, 4, 5, 10)
_WINDOWS = (0, 7, 14, 7)
_EXPANSION = 4
_OUT_CHANNELS = 256


class ConvNorm(nn.Module):
    """A convolution without bias and its batch norm (keys ``c`` and ``bn``)."""

    def __init__(
        self, n_in: int, n_out: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.c(x))

    @torch.no_grad()
    def fold(self) -> None:
        """Puts the batch norm's affine map into the convolution; only for inference."""
        if not isinstance(self.bn, nn.BatchNorm2d):
            return
        scale = self.bn.weight / torch.sqrt(self.bn.running_var + self.bn.eps)
        self.c.weight.mul_(scale[:, None, None, None])
        self.c.bias = nn.Parameter(self.bn.bias - self.bn.running_mean * scale)
        self.bn = nn.Identity()


class ConvBlock(nn.Module):
    """Inverted bottleneck of the first stage: (B, C, H, W) to the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = width * _EXPANSION
        self.conv1 = ConvNorm(width, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class Downsample(nn.Module):
    """Patch merging between stages: (B, C, H, W) to (B, C', H / stride, W / stride)."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(n_in, n_out)
        self.conv2 = ConvNorm(n_out, n_out, 3, stride, groups=n_out)
        self.conv3 = ConvNorm(n_out, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class WindowAttention(nn.Module):
    """Self-attention of the tokens of one window, with a learned bias per head and |offset|.

    Takes and gives (windows, side * side, width).
    """

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, side * side))
        # The published tables list the absolute offsets row by row, so the place is known.
        row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        row, column = row.flatten(), column.flatten()
        offset = (row[:, None] - row).abs() * side + (column[:, None] - column).abs()
        self.register_buffer("offset", offset, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        windows, tokens, width = x.shape
        # The published layout keeps q, k and v of one head beside each other.
        qkv = self.qkv(self.norm(x)).view(windows, tokens, self.heads, 3, width // self.heads)
        q, k, v = qkv.permute(3, 0, 2, 1, 4)
        bias = self.attention_biases[:, self.offset].to(q.dtype)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
        return self.proj(x.transpose(1, 2).reshape(windows, tokens, width))


class Mlp(nn.Module):
    """Layer norm and two linear layers, along the last axis."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, width * _EXPANSION)
        self.fc2 = nn.Linear(width * _EXPANSION, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class AttentionBlock(nn.Module):
    """Windowed attention, a local convolution and an MLP: (B, C, H, W) to the same shape."""

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.attn = WindowAttention(width, heads, side)
        self.local_conv = ConvNorm(width, width, 3, groups=width)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)  # tokens; free, because the memory is channels-last
        x = x + self._attend(x)
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (x + self.mlp(x)).permute(0, 3, 1, 2)

    def _attend(self, x: Tensor) -> Tensor:
        """Attention inside windows of (B, H, W, C); the last ones are filled up with zeros.

        The zeros take part as keys, as they do in the training of the published weights.
        """
        batch, height, width, channels = x.shape
        side = self.side
        below, right = -height % side, -width % side
        x = F.pad(x, (0, 0, 0, right, 0, below)) if below or right else x
        rows, columns = (height + below) // side, (width + right) // side
        x = x.view(batch, rows, side, columns, side, channels).transpose(2, 3)
        x = self.attn(x.reshape(-1, side * side, channels))
        x = x.view(batch, rows, columns, side, side, channels).transpose(2, 3)
        x = x.reshape(batch, height + below, width + right, channels)
        return x[:, :height, :width]


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, 1e-6)
        return x.permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks of one width, then the way to the next width (None after the last)."""

    def __init__(self, index: int) -> None:
        super().__init__()
        width, heads, side = _WIDTHS[index], _HEADS[index], _WINDOWS[index]
        self.blocks = nn.ModuleList(
            AttentionBlock(width, heads, side) if heads else ConvBlock(width)
            for _ in range(_DEPTHS[index])
        )
        last = index == len(_WIDTHS) - 1
        # SAM needs a stride of 16: the way into the last stage keeps the resolution.
        stride = 1 if index == len(_WIDTHS) - 2 else 2
        self.downsample = None if last else Downsample(width, _WIDTHS[index + 1], stride)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class _Stem(nn.Module):
    """The image to 64 channels: (B, 3, H, W) to (B, 64, H / s, W / s), s = 4 or 1."""

    def __init__(self, strided: bool) -> None:
        super().__init__()
        kernel, stride = (3, 2) if strided else (1, 1)
        self.seq = nn.Sequential(
            ConvNorm(3, _WIDTHS[0] // 2, kernel, stride),
            nn.GELU(),
            ConvNorm(_WIDTHS[0] // 2, _WIDTHS[0], kernel, stride),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.seq(x)


class TinyVit(nn.Module):
    """Normalized images (B, 3, H, W) to embeddings (B, 256, H / s, W / s).

    ``strided_stem`` True is MobileSAM (s = 16); False is LiteMedSAM, whose stem keeps the
    resolution (s = 4). H and W are multiples of s.
    """

    def __init__(self, strided_stem: bool) -> None:
        super().__init__()
        self.patch_embed = _Stem(strided_stem)
        self.layers = nn.ModuleList(Stage(index) for index in range(len(_WIDTHS)))
        self.neck = nn.Sequential(
            nn.Conv2d(_WIDTHS[-1], _OUT_CHANNELS, 1, bias=False),
            ChannelNorm(_OUT_CHANNELS),
            nn.Conv2d(_OUT_CHANNELS, _OUT_CHANNELS, 3, padding=1, bias=False),
            ChannelNorm(_OUT_CHANNELS),
        )

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images.contiguous(memory_format=torch.channels_last))
        for stage in self.layers:
            x = stage(x)
        return self.neck(x)

    def prepare(self) -> None:
        """Makes the loaded network ready for inference: batch norms folded, channels-last."""
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.fold()
        self.to(memory_format=torch.channels_last)
