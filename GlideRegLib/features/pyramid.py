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
from .compressed import compressed_features
from .local_contrast import LEAST_CORRELATION, correlation, local_contrast
from .mind import mind_ssc
from .reduction import ReducedFeatures


class FeaturePyramid:
    """Local and global features on the working grid pooled by a factor.

    ``trust`` (fixed, moving), bool or 0 to 1, (Z, Y, X) on the working grid, says where the images
    have data and where a user's mask lets them count. ``landmarks`` are pairs in the fixed frame
    that guide the registration, placed with an error of ``sigma_mm``. ``finest``: the smallest
    factor that will be asked for; with 1 the features are computed once, at full resolution, and
    compressed. ``compartments`` (Z, Y, X) are integer labels on the working grid: where they meet,
    tissue slides.
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
        finest: int = 2,
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
        self._fixed_mask = prepared.fixed_mask
        self._settings = settings
        self._finest = finest
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
        fixed, moving = (pool(t[None].float(), pooling)[0] for t in (fixed, moving))
        return fixed, moving

    def tissue_at(self, pooling: int) -> torch.Tensor:
        """Share of trusted fixed tissue (Z, Y, X) in each voxel of the pooled grid, 0 to 1."""
        return pool((self._fixed_mask * self._trust[0])[None].float(), pooling)[0]

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
        """MIND-SSC and local contrast (12 or 13, Z, Y, X) of both images on the pooled grid; where
        features at full resolution will be wanted, compressed on that grid and the next."""
        if self._finest == 1 and not self._base:
            self._base = compressed_features(
                self._images, self._settings, self._contrast_weight, self._check
            )
        # Even factors share one volume; others are computed when asked for.
        base = next((b for b in (4, 2) if pooling % b == 0 and b in self._base), None)
        if base is None:
            base = 2 if pooling % 2 == 0 else pooling
        if base not in self._base:
            self._base[base] = tuple(self._descriptors(image, base) for image in self._images)
        fixed, moving = (pool(f, pooling // base) for f in self._base[base])
        return FeaturePair(fixed, moving, weight)

    def global_(self, pooling: int, weight: float = 1.0) -> FeaturePair:
        """Reduced encoder features (channels, Z, Y, X) of both images on the pooled grid."""
        cells, target = self.reduced.cells, self.grid_at(pooling)
        index = cells.index_of(target, self._latents[0].device)
        fixed, moving = (cells.sample(latent, index) for latent in self._latents)
        return FeaturePair(fixed, moving, weight)

    def _descriptors(self, image: torch.Tensor, pooling: int) -> torch.Tensor:
        """The local features of one image on the pooled grid, all channels."""
        chosen = self._settings
        found = mind_ssc(image, chosen.mind_radius, chosen.mind_dilation, pooling, self._check)
        if self._contrast_weight == 0:
            return found
        contrast = local_contrast(image, chosen.contrast_floor, pooling, self._check)
        return torch.cat((found, contrast.mul_(self._contrast_weight**0.5)))

    def _usable_contrast(self) -> float:
        """The weight of local contrast: none when equal tissue differs in brightness (two MR
        sequences), which MIND does not mind."""
        if self._settings.contrast_weight == 0:
            return 0.0
        both = [pool(image[None], 4)[0] for image in self._images]
        found = correlation(*both, self.tissue_at(4))
        return self._settings.contrast_weight if found >= LEAST_CORRELATION else 0.0

    @property
    def compares_contrast(self) -> bool:
        """Whether local contrast takes part beside MIND."""
        return self._contrast_weight > 0
