"""SAM's prompt encoder and mask decoder: from the embedding of a slice and prompts to masks.

Facts from Kirillov et al., "Segment Anything", ICCV 2023 (section 3 and appendix A), and the public
state dicts of github.com/facebookresearch/segment-anything, of which those of MobileSAM and
LiteMedSAM are copies. Written afresh; module names are those of the official checkpoints, so that
these load strictly. The embedding may have any size (positions are relative to the image), and what
all prompts of a slice share is computed once. Prompts that are masks are left out.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..encoders.tiny_vit import ChannelNorm

_WIDTH = 256
_HEADS = 8
_LAYERS = 2
_MLP_WIDTH = 2048
#: Masks per prompt: one for prompts that leave no doubt, and three (part, thing, whole).
_MASKS = 4


class Attention(nn.Module):
    """Attention of (A, S, 256) to (B, T, 256); of A and B one may be 1. Gives (max, S, 256)."""

    def __init__(self, reduction: int = 1) -> None:
        super().__init__()
        inner = _WIDTH // reduction
        self.q_proj = nn.Linear(_WIDTH, inner)
        self.k_proj = nn.Linear(_WIDTH, inner)
        self.v_proj = nn.Linear(_WIDTH, inner)
        self.out_proj = nn.Linear(inner, _WIDTH)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = self._heads(query, key, value)
        weights = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
        out = weights.softmax(dim=-1) @ v
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def _heads(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        projected = (self.q_proj(query), self.k_proj(key), self.v_proj(value))
        return [x.view(*x.shape[:2], _HEADS, -1).transpose(1, 2) for x in projected]


class Perceptron(nn.Module):
    """Linear layers (keys ``layers.k``) with ReLU between them."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class _TokenMlp(nn.Module):
    """The same with two layers, whose keys are ``lin1`` and ``lin2``."""

    def __init__(self) -> None:
        super().__init__()
        self.lin1 = nn.Linear(_WIDTH, _MLP_WIDTH)
        self.lin2 = nn.Linear(_MLP_WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(F.relu(self.lin1(x)))


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves and to the image, then the image attends to the tokens."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention()
        self.cross_attn_token_to_image = Attention(2)
        self.cross_attn_image_to_token = Attention(2)
        self.mlp = _TokenMlp()
        for number in range(1, 5):
            setattr(self, f"norm{number}", nn.LayerNorm(_WIDTH))

    def forward(
        self, tokens: Tensor, image: Tensor, prompts: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``tokens`` (B, T, 256) and ``image`` (1 or B, N, 256), with their positions."""
        if self.first:  # the tokens are still nothing but their positions
            tokens = self.norm1(self.self_attn(tokens, tokens, tokens))
        else:
            placed = tokens + prompts
            tokens = self.norm1(tokens + self.self_attn(placed, placed, tokens))
        keys = image + places
        tokens = tokens + self.cross_attn_token_to_image(tokens + prompts, keys, image)
        tokens = self.norm2(tokens)
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = image + self.cross_attn_image_to_token(keys, tokens + prompts, tokens)
        return tokens, self.norm4(image)


class TwoWayTransformer(nn.Module):
    """Blocks, then a last look of the tokens at the image."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(number == 0) for number in range(_LAYERS))
        self.final_attn_token_to_image = Attention(2)
        self.norm_final_attn = nn.LayerNorm(_WIDTH)

    def forward(self, prompts: Tensor, image: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        tokens = prompts
        for layer in self.layers:
            tokens, image = layer(tokens, image, prompts, places)
        tokens = tokens + self.final_attn_token_to_image(tokens + prompts, image + places, image)
        return self.norm_final_attn(tokens), image


class _Positions(nn.Module):
    """Random Fourier features of points in the unit square: (..., 2) to (..., 256)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, _WIDTH // 2))

    def forward(self, points: Tensor) -> Tensor:
        angles = 2 * math.pi * ((2 * points - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def of_cells(self, height: int, width: int) -> Tensor:
        """Of the centers of all cells: (1, height * width, 256)."""
        device = self.positional_encoding_gaussian_matrix.device
        rows, columns = ((torch.arange(n, device=device) + 0.5) / n for n in (height, width))
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        return self(torch.stack([x, y], dim=-1)).view(1, height * width, _WIDTH)


class PromptEncoder(nn.Module):
    """Points and boxes as tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.pe_layer = _Positions()
        # Background point, foreground point, and the two corners of a box.
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, _WIDTH) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, _WIDTH)
        self.no_mask_embed = nn.Embedding(1, _WIDTH)

    def points(self, points: Tensor) -> Tensor:
        """One foreground point (B, 2) each, x and y as shares of the image: (B, 2, 256)."""
        tokens = self.pe_layer(points) + self.point_embeddings[1].weight
        # A prompt without a box is filled up with a token that says so.
        return torch.stack([tokens, self.not_a_point_embed.weight.expand_as(tokens)], dim=1)

    def boxes(self, boxes: Tensor) -> Tensor:
        """Boxes (B, 4) as x0, y0, x1, y1 in shares of the image: (B, 2, 256)."""
        corners = self.pe_layer(boxes.view(-1, 2, 2))
        kinds = torch.cat([self.point_embeddings[k].weight for k in (2, 3)])
        return corners + kinds


class MaskDecoder(nn.Module):
    """Masks and the quality that each is expected to have."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer()
        self.iou_token = nn.Embedding(1, _WIDTH)
        self.mask_tokens = nn.Embedding(_MASKS, _WIDTH)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(_WIDTH, _WIDTH // 4, 2, 2),
            ChannelNorm(_WIDTH // 4),
            nn.GELU(),
            nn.ConvTranspose2d(_WIDTH // 4, _WIDTH // 8, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            Perceptron(_WIDTH, _WIDTH, _WIDTH, _WIDTH // 8) for _ in range(_MASKS)
        )
        self.iou_prediction_head = Perceptron(_WIDTH, _WIDTH, _WIDTH, _MASKS)

    def forward(
        self, image: Tensor, places: Tensor, prompts: Tensor, chosen: slice
    ) -> tuple[Tensor, Tensor]:
        """``image`` (256, h, w), ``places`` (1, h * w, 256), ``prompts`` (B, P, 256); ``chosen`` of
        the four masks. Logits (B, M, 4 h, 4 w) and expected IoU (B, M)."""
        _, height, width = image.shape
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(prompts), -1, -1), prompts], dim=1)
        flat = image.flatten(1).T[None]
        tokens, flat = self.transformer(tokens, flat, places)
        pictures = flat.transpose(1, 2).reshape(len(tokens), _WIDTH, height, width)
        pictures = self.output_upscaling(pictures)
        numbers = range(_MASKS)[chosen]
        weights = torch.stack(
            [self.output_hypernetworks_mlps[k](tokens[:, 1 + k]) for k in numbers], dim=1
        )
        masks = torch.einsum("bmc,bcyx->bmyx", weights, pictures)
        return masks, self.iou_prediction_head(tokens[:, 0])[:, chosen]


class SamDecoder(nn.Module):
    """Prompt encoder and mask decoder together, as they lie in a checkpoint."""

    #: What the keys of a checkpoint begin with that belongs here, and what of it is not needed.
    prefixes = ("prompt_encoder.", "mask_decoder.")
    unused = ("prompt_encoder.mask_downscaling.",)
    #: Of the four masks: the one for prompts without doubt, or the other three.
    SINGLE, SEVERAL = slice(0, 1), slice(1, _MASKS)

    def __init__(self) -> None:
        super().__init__()
        self.prompt_encoder = PromptEncoder()
        self.mask_decoder = MaskDecoder()

    def forward(
        self, embedding: Tensor, prompts: Tensor, chosen: slice = SINGLE
    ) -> tuple[Tensor, Tensor]:
        """Masks of prompts in one slice.

        ``embedding`` (256, h, w); ``prompts`` are points (B, 2) or boxes (B, 4), x and y in shares
        of the image's width and height. Logits (B, M, 4 h, 4 w), and the IoU (B, M) that the
        network expects them to have.
        """
        encode = self.prompt_encoder.boxes if prompts.shape[1] == 4 else self.prompt_encoder.points
        places = self.prompt_encoder.pe_layer.of_cells(*embedding.shape[1:])
        image = embedding + self.prompt_encoder.no_mask_embed.weight.view(-1, 1, 1)
        return self.mask_decoder(image, places, encode(prompts), chosen)
