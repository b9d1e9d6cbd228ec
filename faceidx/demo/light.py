"""Light on the head, what stands behind it, and the camera that takes the picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from faceidx.demo.head import Head
from faceidx.demo.traits import Traits


@dataclass(frozen=True, kw_only=True)
class Light:
    """One lamp far away and an even light from all around."""

    direction: tuple[float, float, float]
    """Unit vector towards the lamp: x right, y down, z to the viewer."""
    ambient: float
    """Share of the even light, 0 to 1."""
    strength: float
    tint: tuple[float, float, float]


def draw_light(rng: np.random.Generator) -> Light:
    """Draw the light of one picture by lot."""
    across, down = rng.normal(0, 0.6), rng.normal(-0.35, 0.4)
    length = float(np.sqrt(across**2 + down**2 + 1))
    warm = rng.normal(0, 0.05)
    return Light(
        direction=(float(across) / length, float(down) / length, 1 / length),
        ambient=float(rng.uniform(0.35, 0.75)),
        strength=float(np.exp(rng.normal(0, 0.2))),
        tint=(1 + float(warm), 1.0, 1 - float(warm)),
    )


def shade(
    pixels: np.ndarray, inside: np.ndarray, head: Head, traits: Traits, light: Light
) -> np.ndarray:
    """Light the picture: (S, S, 3) float32 colours in and out, `inside` (S, S) is 1 on the head.

    Lambert's law on an ellipsoid with bumps for nose, cheeks and chin, on a grid half as fine.
    """
    size = len(pixels)
    half = (size + 1) // 2
    shading = _lambert(head, traits, light, half)
    full = np.asarray(Image.fromarray(shading).resize((size, size), Image.Resampling.BILINEAR))
    flat = light.ambient + (1 - light.ambient) * light.direction[2]
    factor = flat + inside * (full - flat)
    tint = np.asarray(light.tint, dtype=np.float32) * light.strength
    return pixels * factor[:, :, None] * tint


def _lambert(head: Head, traits: Traits, light: Light, size: int) -> np.ndarray:
    p = head.pose
    step = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    right, down = (step - p.shift[0]) / p.scale, (step - p.shift[1]) / p.scale
    cos, sin = np.float32(np.cos(p.roll)), np.float32(np.sin(p.roll))
    x = right[None] * cos + down[:, None] * sin
    y = down[:, None] * cos - right[None] * sin
    u = np.clip(x / np.maximum(head.half_width(y.ravel()).reshape(y.shape), 0.6), -1.2, 1.2)
    v = 0.75 * y
    normal = [0.95 * u, v, np.sqrt(np.maximum(1 - u**2 - 0.6 * v**2, 0.06))]
    turn_x, turn_y = np.sin(p.yaw), -np.sin(p.pitch)
    for bx, by, bz, wide, high, steep in _bumps(traits):
        middle_x = bx * np.cos(p.yaw) + bz * turn_x
        middle_y = by * np.cos(p.pitch) + bz * turn_y
        dx, dy = (x - middle_x) / wide, (y - middle_y) / high
        hill = steep * np.exp(-0.5 * (dx**2 + dy**2))
        normal[0] = normal[0] + hill * dx / wide
        normal[1] = normal[1] + hill * dy / high
    length = np.sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2)
    lx, ly, lz = light.direction
    facing = np.maximum((normal[0] * lx + normal[1] * ly + normal[2] * lz) / length, 0)
    result = light.ambient + (1 - light.ambient) * 1.25 * facing
    return np.asarray(result, dtype=np.float32)


def _bumps(traits: Traits) -> tuple[tuple[float, ...], ...]:
    """Hills on the face: middle x, y, z; half widths across and down; height."""
    deep, middle = traits.depth, (traits.eye_y + traits.nose_y) / 2
    nose = 0.4 * traits.nose_height
    return (
        (0.0, middle + 0.1, deep + 0.1, traits.nose_width * 0.6, 0.22, nose),
        (-0.4, 0.22, deep * 0.75, 0.2, 0.18, 0.05),
        (0.4, 0.22, deep * 0.75, 0.2, 0.18, 0.05),
        (0.0, traits.length * 0.84, deep * 0.6, 0.18, 0.12, 0.04),
        (0.0, traits.eye_y - 0.2, deep, 0.5, 0.1, 0.025 * traits.eye_socket),
    )


def background(rng: np.random.Generator, canvas: int) -> Image.Image:
    """Soft patches of colour, or an even wall."""
    cells = int(rng.integers(2, 7))
    colour = rng.uniform(30, 225) + rng.normal(0, 28, 3)
    grey, hue = rng.standard_normal((cells, cells, 1)), rng.standard_normal((cells, cells, 3))
    patches = colour + rng.uniform(3, 45) * (grey + 0.4 * hue)
    small = Image.fromarray(np.clip(patches, 0, 255).astype(np.uint8))
    soft = Image.Resampling.BICUBIC if rng.random() < 0.7 else Image.Resampling.NEAREST
    return small.resize((64, 64), soft).resize((canvas, canvas), Image.Resampling.NEAREST)


def camera(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Take the picture: contrast, blur and noise by lot. (S, S, 3) float32 in, uint8 out."""
    contrast, brightness = rng.normal(1, 0.12), rng.normal(0, 10)
    pixels = (pixels - 110) * contrast + 110 + brightness
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    blur = len(pixels) / 112 * max(0.0, rng.normal(0.3, 0.45))
    if blur > 0.2:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * rng.uniform(0, 9)
    taken = np.clip(np.asarray(image, dtype=np.float32) + noise, 0, 255)
    result: np.ndarray = taken.astype(np.uint8)
    return result
