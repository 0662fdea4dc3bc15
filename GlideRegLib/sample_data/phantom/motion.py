"""The phantom's breathing: an analytic map phi from the fixed (exhale) to the moving (inhale) one.

The diaphragm descends, the ribs swing up and forward, the heart moves less, and a smooth random
part is added. All in scene coordinates (LPS mm, origin in the middle of the chest).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from ..splines import invert_points
from .anatomy import HALF_EXTENT, Anatomy
from .texture import SplineNoise

#: Motion at the diaphragm for which the other parts of the motion are stated, mm.
_REFERENCE = 25.0
#: Share of the diaphragm's motion over the relative depth below the apex of the lung (1: dome).
_DEPTHS = [-1.0, -0.3, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.6, 2.2, 3.0]
_SHARES = [0.0, 0.0, 0.02, 0.14, 0.40, 0.72, 0.97, 1.0, 0.86, 0.62, 0.50]


class Branches(NamedTuple):
    """The motion of both compartments at the same points: displacement (3, ...) in mm.

    ``inner`` holds inside the cavity wall, ``outer`` outside it; ``share`` (...) is the inner
    part's weight at each point, 0 or 1 when the wall slides.
    """

    inner: np.ndarray
    outer: np.ndarray
    share: np.ndarray

    def blended(self) -> np.ndarray:
        """The displacement (3, ...) itself, mm."""
        return self.outer + self.share * (self.inner - self.outer)


@dataclass(frozen=True)
class _Irregular:
    """The random part at the same points, mm: in plane x, y, and along z."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray


class Breathing:
    """phi(x) = x + u(x), fixed to moving, in scene mm.

    ``amplitude`` is the motion of the diaphragm in mm. With ``sliding`` the contents of the cavity
    and the wall around it share their motion in x and y but not in z. The wall is an upright
    cylinder in the moving image, so its two sides stay in contact: the field is exactly consistent
    and only discontinuous along the wall. ``offset`` (mm) and ``rotation`` (degrees about x, y, z
    through the middle of the chest) are applied last, as a patient lying differently.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        seed: int,
        amplitude: float,
        sliding: bool,
        irregularity: float,
        offset: tuple[float, float, float],
        rotation: tuple[float, float, float],
    ) -> None:
        rng = np.random.default_rng([seed, 2])
        self.anatomy = anatomy
        self.amplitude, self.sliding, self.irregularity = amplitude, sliding, irregularity
        self.noise = [SplineNoise(rng, HALF_EXTENT, step) for step in (48.0, 48.0, 60.0)]
        self.offset = np.asarray(offset, float)
        self.rotation = Rotation.from_euler("xyz", rotation, degrees=True).as_matrix()
        self._profile = CubicSpline(_DEPTHS, _SHARES, bc_type="natural")

    def at(self, points: np.ndarray) -> np.ndarray:
        """Displacement (N, 3) in mm at scene points (N, 3)."""
        noise = _Irregular(*(self.irregularity * n.at(points) for n in self.noise))
        x, y, z = np.asarray(points, float).T
        return self._branches(x, y, z, noise).blended().T

    def on_axes(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Branches:
        """Both branches (3, Z, Y, X) on a regular grid with these axes (scene mm)."""
        noise = _Irregular(*(self.irregularity * n.on_axes(x, y, z) for n in self.noise))
        x, y, z = x[None, None, :], y[None, :, None], z[:, None, None]
        return self._branches(*(a.astype(np.float32) for a in (x, y, z)), noise)

    def inverse(self, moving: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fixed points (N, 3) that go to the moving ones, and what is missing in mm (N,)."""
        return invert_points(self.at, moving)

    def _branches(self, x: np.ndarray, y: np.ndarray, z: np.ndarray, noise: _Irregular) -> Branches:
        """The motion at coordinates that broadcast against each other."""
        body, scale = self.anatomy, self.amplitude / _REFERENCE
        height = (z + HALF_EXTENT[2]) / (2 * HALF_EXTENT[2])
        # 0 at the spine, 1 at the breast bone; a ramp without a kink
        forward = (body.spine[1] - y) / (2 * body.cavity_radii[1])
        ramp = 0.5 * (forward + np.sqrt(forward**2 + 0.02))
        window = _sigmoid((6 - body.cavity(x, y)) / 6)
        ux = scale * 3 * x / body.cavity_radii[0] * (1 - 0.3 * height) + noise.x * window
        uy = -scale * 7 * ramp * (0.6 + 0.4 * np.sin(np.pi * height)) + noise.y * window
        inner_z = self._inner_z(x, y, z, forward) + noise.z
        outer_z = scale * 4 * ramp + np.zeros_like(inner_z)
        if self.sliding:  # the wall is where it is in the moving image
            share = (body.cavity(x + ux, y + uy) < 0).astype(inner_z.dtype)
        else:
            # About 25 mm wide and mostly inside, so that the ribs keep their shape.
            share = _sigmoid(-(body.cavity(x, y) + 6) / 5.5) + np.zeros_like(inner_z)
        inner, outer = (np.stack(np.broadcast_arrays(ux, uy, uz)) for uz in (inner_z, outer_z))
        return Branches(self._moved(inner, x, y, z), self._moved(outer, x, y, z), share)

    def _inner_z(
        self, x: np.ndarray, y: np.ndarray, z: np.ndarray, forward: np.ndarray
    ) -> np.ndarray:
        """Motion of the cavity's contents along z, mm: downwards on the way to inhale."""
        body = self.anatomy
        top, dome = body.lung_top, body.dome_top[-1]
        share = self._profile(np.clip((top - z) / (top - dome), -1, 3)).astype(z.dtype)
        hx, hy, hz = body.heart_center
        at_heart = np.exp(-(((x - hx) / 59) ** 2) - ((y - hy) / 78) ** 2 - ((z - hz) / 85) ** 2)
        dorsal = 1.1 - 0.3 * forward  # the back of the lung moves more when lying
        return -self.amplitude * share * (1 - 0.55 * at_heart) * dorsal

    def _moved(
        self, displacement: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray
    ) -> np.ndarray:
        """The displacement followed by rotation and offset: R (x + u) + offset - x."""
        turn = self.rotation - np.eye(3)
        if not turn.any() and not self.offset.any():
            return displacement
        result = np.einsum("ij,j...->i...", self.rotation, displacement)
        for row in range(3):
            result[row] += turn[row, 0] * x + turn[row, 1] * y + turn[row, 2] * z
            result[row] += self.offset[row]
        return result.astype(displacement.dtype)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(values / 2))
