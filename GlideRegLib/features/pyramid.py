"""The features of a pair at every resolution that the optimizer asks for."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..constraints import LandmarkConstraints
from ..geometry import Grid
from ..optimize.energy import FeaturePair
from ..optimize.point_term import PointTerm
from ..optimize.sliding import pooled_labels
from ..optimize.warping import pool
from ..prepare import Prepared
from ..settings import FeatureSettings
from .local_contrast import LEAST_CORRELATION, correlation, local_contrast
from .mind import mind_ssc
from .reduction import ReducedFeatures


class FeaturePyramid:
    """Local and global features on the working grid pooled by a factor.

    ``trust`` (fixed, moving), float32 (Z, Y, X) on the working grid, says where the images have
    data and where a user's mask lets them count. ``landmarks`` are pairs in the fixed frame that
    guide the registration, placed with an error of ``sigma_mm``. ``compartments`` (Z, Y, X) are
    integer labels on the working grid: where they meet, tissue slides.
    """

    def __init__(
        self,
        prepared: Prepared,
        trust: tuple[torch.Tensor, torch.Tensor],
        settings: FeatureSettings,
        reduced: ReducedFeatures | None,
        check: Callable[[], None] = lambda: None,
        landmarks: LandmarkConstraints | None = None,
        sigma_mm: float = 2.0,
        compartments: torch.Tensor | None = None,
    ) -> None:
        self.grid = prepared.grid
        self.modality = prepared.modality
        self.landmarks = landmarks
        self._sigma_mm = sigma_mm
        self._compartments = compartments
        self.reduced = reduced
        self._images = (prepared.fixed, prepared.moving)
        self._trust = trust
        self._tissue = prepared.fixed_mask.float() * trust[0]
        self._settings = settings
        self._contrast_weight = self._usable_contrast()
        self._check = check
        self._base: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._latents: tuple[torch.Tensor, torch.Tensor] | None = None
        if reduced is not None:
            self.refresh()

    def refresh(self) -> None:
        """Encodes the reduced volumes again, after the reduction has learned."""
        self._latents = self.reduced.volumes()

    def grid_at(self, pooling: int) -> Grid:
        """The working grid pooled by a factor."""
        return self.grid.pooled(pooling)

    def trust_at(self, pooling: int, label: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Fixed and moving weights (Z, Y, X) of the pooled grid, 0 to 1; the fixed ones only in the
        compartment ``label``, if one is named."""
        fixed, moving = self._trust
        if label is not None:
            fixed = fixed * (self._compartments == label)
        fixed, moving = (pool(t[None], pooling)[0] for t in (fixed, moving))
        return fixed, moving

    def tissue_at(self, pooling: int) -> torch.Tensor:
        """Share of trusted fixed tissue (Z, Y, X) in each voxel of the pooled grid, 0 to 1."""
        return pool(self._tissue[None], pooling)[0]

    @property
    def device(self) -> torch.device:
        return self._images[0].device

    def points_at(self, pooling: int) -> PointTerm | None:
        """The landmark pairs as a term of the energy on the pooled grid, if there are any."""
        if self.landmarks is None:
            return None
        return PointTerm(self.landmarks, self.grid_at(pooling), self._sigma_mm, self.device)

    @property
    def has_compartments(self) -> bool:
        """Whether tissue slides between given compartments."""
        return self._compartments is not None

    def compartments_at(self, pooling: int) -> torch.Tensor | None:
        """The label of each voxel (Z, Y, X) of the pooled grid, if there are compartments."""
        if self._compartments is None:
            return None
        return pooled_labels(self._compartments, pooling)

    def local(self, pooling: int, weight: float = 1.0) -> FeaturePair:
        """MIND-SSC and local contrast (12 or 13, Z, Y, X) of both images on the pooled grid."""
        # Even factors share one volume at half resolution; others are computed when asked for.
        base = 2 if pooling % 2 == 0 else pooling
        features = self._base.get(base) or self._compute(base)
        if base == 2:
            self._base[base] = features
        fixed, moving = (pool(f, pooling // base) for f in features)
        return FeaturePair(fixed, moving, weight)

    def global_(self, pooling: int, weight: float = 1.0) -> FeaturePair:
        """Reduced encoder features (channels, Z, Y, X) of both images on the pooled grid."""
        cells, target = self.reduced.cells, self.grid_at(pooling)
        index = cells.index_of(target, self._latents[0].device)
        fixed, moving = (cells.sample(latent, index) for latent in self._latents)
        return FeaturePair(fixed, moving, weight)

    def _compute(self, pooling: int) -> tuple[torch.Tensor, torch.Tensor]:
        fixed, moving = (self._descriptors(image, pooling) for image in self._images)
        return fixed, moving

    def _descriptors(self, image: torch.Tensor, pooling: int) -> torch.Tensor:
        """The local features of one image. At full resolution they are what takes the memory: half
        precision, and channels last as the solver reads them, so that it needs no copy."""
        channels = 13 if self._contrast_weight > 0 else 12
        shape = tuple(n // pooling for n in image.shape)
        if pooling == 1:
            out = image.new_empty((*shape, channels), dtype=torch.float16).permute(3, 0, 1, 2)
        else:
            out = image.new_empty((channels, *shape), dtype=torch.float32)
        chosen = self._settings
        mind_ssc(image, chosen.mind_radius, chosen.mind_dilation, pooling, self._check, out[:12])
        if channels > 12:
            contrast = local_contrast(image, chosen.contrast_floor, pooling, self._check)
            out[12:] = contrast.mul_(self._contrast_weight**0.5)
        return out

    def _usable_contrast(self) -> float:
        """The weight of local contrast: none when equal tissue differs in brightness (two MR
        sequences), which MIND does not mind."""
        if self._settings.contrast_weight == 0:
            return 0.0
        both = [pool(image[None], 4)[0] for image in self._images]
        found = correlation(*both, pool(self._tissue[None], 4)[0])
        return self._settings.contrast_weight if found >= LEAST_CORRELATION else 0.0

    @property
    def compares_contrast(self) -> bool:
        """Whether local contrast takes part beside MIND."""
        return self._contrast_weight > 0
