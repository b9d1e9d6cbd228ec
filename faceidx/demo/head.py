"""The head as a solid that can be turned: places on the face in, pixels out.

At each height the head is an ellipse seen from above, half as wide as the face's outline there. A
place on the face is that ellipse's front at the given x, so eyes, nose and mouth wander and shorten
as they do on a turned head. The projection is orthographic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from faceidx.demo.traits import Traits

_ROWS = 33
_CROWN = 1.0


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How the head stands in the picture: angles in radians, the rest as a part of its side."""

    yaw: float
    pitch: float
    roll: float
    scale: float
    """Length of one head unit."""
    shift: tuple[float, float]


class Head:
    """A person's head in a pose, on a square canvas of `canvas` pixels a side."""

    def __init__(self, traits: Traits, pose: Pose, canvas: int) -> None:
        self.pose = pose
        self.canvas = canvas
        angle = np.linspace(0, np.pi, _ROWS)
        self.rows = -np.cos(angle) * np.where(angle < np.pi / 2, _CROWN, traits.length)
        places = np.array([0, 0.28, 0.52, 0.76, 1.0]) * np.pi
        f, c, j, h = traits.forehead, traits.cheek, traits.jaw, traits.chin
        shape = np.interp(angle, places, [f * 0.95, f * 1.1, c, j * 1.14, h * 1.25])
        smooth = np.convolve(np.pad(shape, 2, mode="edge"), np.full(5, 0.2), "valid")
        self.widths = smooth * np.sin(angle) ** np.where(angle < np.pi / 2, 0.6, 0.72)
        self.depths = traits.depth * np.sin(angle) ** 0.6
        self._origin = [(0.5 + shift) * canvas for shift in pose.shift]
        self._axes = (self.unit * _rotation(pose)[:2]).tolist()

    @property
    def unit(self) -> float:
        """Length of one head unit in pixels."""
        return self.pose.scale * self.canvas

    def project(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) of points in space, each coordinate (N,)."""
        pixels = np.empty((len(x), 2))
        for axis in range(2):
            a, b, c = self._axes[axis]
            pixels[:, axis] = self._origin[axis] + a * x + b * y + c * z
        return pixels

    def surface(self, x: np.ndarray, y: np.ndarray, lift: np.ndarray | float = 0.0) -> np.ndarray:
        """Pixels (N, 2) of places on the face, raised by `lift`; the far side stays hidden."""
        x, y = np.broadcast_arrays(x, y)
        wide, deep = self._ellipse(y)
        around = np.arcsin(np.clip(x / wide, -1, 1))
        low, high = self._visible(wide, deep)
        around = np.clip(around, low, high)
        return self.project(wide * np.sin(around), y, deep * np.cos(around) + lift)

    def outline(self, grow: float = 0.0, bottom: float = 1.2) -> np.ndarray:
        """Pixels (2M, 2) of the contour above `bottom`: up the left side, down the right side."""
        left, right = self._contour(grow, self.rows <= bottom)
        return np.concatenate([left[::-1], right])

    def jaw(self, grow: float, top: float) -> np.ndarray:
        """Pixels (2M, 2) of the contour below `top`: down the right side, up the left side."""
        left, right = self._contour(grow, self.rows >= top)
        return np.concatenate([right, left[::-1]])

    def _contour(self, grow: float, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y, wide, deep = self.rows[keep], self.widths[keep], self.depths[keep]
        low, high = self._visible(wide, deep)
        f = 1 + grow
        return (
            self.project(f * wide * np.sin(low), f * y, f * deep * np.cos(low)),
            self.project(f * wide * np.sin(high), f * y, f * deep * np.cos(high)),
        )

    def half_width(self, y: np.ndarray) -> np.ndarray:
        """Half the width seen at heights `y`, in head units."""
        wide, deep = self._ellipse(y)
        return np.hypot(wide * np.cos(self.pose.yaw), deep * np.sin(self.pose.yaw))

    def _ellipse(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wide = np.interp(y, self.rows, self.widths)
        return np.maximum(wide, 1e-3), np.interp(y, self.rows, self.depths)

    def _visible(self, wide: np.ndarray, deep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The angles around the head between which it faces the viewer."""
        yaw = self.pose.yaw
        high = np.arctan2(wide * np.cos(yaw), deep * np.sin(yaw) + 1e-12)
        return high - np.pi, high


def _rotation(pose: Pose) -> np.ndarray:
    """The (3, 3) rotation that turns the head by yaw, then pitch, then roll."""
    (cy, cp, cr), (sy, sp, sr) = (
        (f(pose.yaw), f(pose.pitch), f(pose.roll)) for f in (np.cos, np.sin)
    )
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(roll @ pitch @ yaw)
