"""The methods that there are: what each is called, where it comes from, and what it needs."""

from __future__ import annotations

from typing import Any

from .base import Method

_OWN = "Apache-2.0, written for this library from the paper; no code copied"
_GLIDE = (
    "Zhu et al., GLIDE-Reg: Global-to-Local Deformable Registration Using Co-Optimized Foundation "
    "and Handcrafted Features"
)


def _glide(name: str, title: str, **changes: Any) -> Method:
    return Method(
        name,
        title,
        _GLIDE,
        "https://arxiv.org/abs/2603.00218",
        _OWN,
        "glide",
        changes=changes,
        takes_masks=True,
        takes_landmarks=True,
    )


_ALL = (
    _glide("glide", "GLIDE-Reg"),
    _glide("glide-local", "GLIDE-Reg, local features only", features={"use": "local"}),
    _glide("glide-global", "GLIDE-Reg, global features only", features={"use": "global"}),
    _glide("glide-static", "GLIDE-Reg, VAE trained beforehand", reduction={"kind": "static"}),
    _glide("glide-pca", "GLIDE-Reg, PCA instead of the VAE", reduction={"kind": "pca"}),
    Method(
        "convexadam",
        "ConvexAdam",
        "Siebert, Großbröhmer, Hansen, Heinrich, ConvexAdam: Self-Configuring "
        "Dual-Optimisation-Based 3D Multitask Medical Image Registration, IEEE TMI 2024",
        "https://github.com/multimodallearning/convexAdam",
        _OWN,
        "convexadam",
        takes_masks=True,
    ),
)

#: name -> method.
METHODS: dict[str, Method] = {method.name: method for method in _ALL}
