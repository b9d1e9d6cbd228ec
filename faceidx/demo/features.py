"""Drawing the parts of a face: skin, ears, eyes, brows, nose, mouth, beard, wrinkles.

Every function draws on a Pillow canvas, at the places the turned head gives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

from faceidx.demo.head import Head
from faceidx.demo.traits import Colour, Traits

_WHITE: Colour = (236, 232, 226)
_LASH: Colour = (34, 24, 22)
_TEETH: Colour = (232, 226, 214)
_MOUTH_INSIDE: Colour = (70, 24, 26)
_SIDES = (-1, 1)
_CURVE = np.linspace(-1, 1, 13)
_ARCH = 1 - _CURVE**2
_TURN = np.linspace(0, 2 * np.pi, 15)[:-1]


@dataclass(frozen=True, kw_only=True)
class Expression:
    """What the face does in one picture."""

    smile: float
    """Rise of the corners of the mouth, -1 to 1."""
    mouth_open: float
    """0 (closed) to 1."""
    brow_raise: float
    brow_furrow: float
    eye_open: float
    """A factor on the eyes' opening; near 0 in a blink."""
    gaze: tuple[float, float]


def fill(draw: ImageDraw.ImageDraw, points: np.ndarray, colour: Colour) -> None:
    """Fill the polygon of `points` (N, 2), in pixels."""
    draw.polygon(points.ravel().tolist(), fill=as_pixel(colour))


def stroke(draw: ImageDraw.ImageDraw, points: np.ndarray, colour: Colour, width: float) -> None:
    """Draw a line through `points` (N, 2), `width` pixels wide."""
    draw.line(points.ravel().tolist(), fill=as_pixel(colour), width=max(1, round(width)))


def as_pixel(colour: Colour) -> tuple[int, int, int]:
    """A colour as Pillow wants it."""
    red, green, blue = (min(255, max(0, int(c))) for c in colour)
    return red, green, blue


def mix(one: Colour, other: Colour, t: float) -> Colour:
    """The colour at `t` (0 to 1) of the way from one to the other."""
    return (
        one[0] + (other[0] - one[0]) * t,
        one[1] + (other[1] - one[1]) * t,
        one[2] + (other[2] - one[2]) * t,
    )


def darker(colour: Colour, factor: float) -> Colour:
    """The colour of skin in shadow: it keeps more of its red."""
    return colour[0] * (0.25 + 0.75 * factor), colour[1] * factor, colour[2] * factor


def skin(draw: ImageDraw.ImageDraw, head: Head, traits: Traits) -> None:
    """The bare head with blush, freckles and moles."""
    fill(draw, head.outline(), traits.skin)
    glow = mix(traits.skin, (206, 84, 84), 0.16 * traits.blush)
    for side in _SIDES:
        x = side * 0.42 + 0.15 * np.cos(_TURN)
        fill(draw, head.surface(x, 0.28 + 0.12 * np.sin(_TURN)), glow)
    if traits.spots:
        x, y, radius = np.asarray(traits.spots).T
        places = head.surface(x, y)
        colour = as_pixel(darker(traits.skin, 0.6))
        for (px, py), r in zip(places.tolist(), (radius * head.unit).tolist(), strict=True):
            draw.ellipse((px - r, py - r, px + r, py + r), fill=colour)


def neck(draw: ImageDraw.ImageDraw, head: Head, traits: Traits, clothes: Colour) -> None:
    """Neck and shoulders; they turn less than the head."""
    x = np.array([-0.46, -0.42, -0.5, 0.5, 0.42, 0.46]) * traits.jaw / 0.65
    y = np.array([0.5, 1.05, 1.5, 1.5, 1.05, 0.5])
    fill(draw, head.project(x, y, np.full(6, -0.15)), darker(traits.skin, 0.78))
    x = np.array([-1.9, -1.5, -0.5, -0.25, 0.0, 0.25, 0.5, 1.5, 1.9])
    y = np.array([2.6, 1.52, 1.25, 1.42, 1.48, 1.42, 1.25, 1.52, 2.6])
    fill(draw, head.project(x, y, np.full(9, -0.15)), clothes)


def ear(draw: ImageDraw.ImageDraw, head: Head, traits: Traits, side: int) -> None:
    """One ear; side -1 is the picture's left."""
    y = 0.08 + traits.ear_size * np.sin(_TURN)
    out = traits.ear_out * (1 + np.cos(_TURN)) - 0.05 * (1 + np.sin(_TURN))
    wide = traits.cheek
    for shrink, colour in ((1.0, darker(traits.skin, 0.92)), (0.55, darker(traits.skin, 0.76))):
        middle = np.full_like(y, 0.08)
        points = head.project(
            side * (wide + shrink * out), middle + shrink * (y - middle), -0.05 - shrink * out
        )
        fill(draw, points, colour)


def eyes(draw: ImageDraw.ImageDraw, head: Head, traits: Traits, look: Expression) -> None:
    """Both eyes with sockets, lids, iris and lashes."""
    unit, w = head.unit, traits.eye_width
    opening = traits.eye_opening * look.eye_open
    for side in _SIDES:
        x = side * traits.eye_x + w * _CURVE
        level = traits.eye_y - traits.eye_tilt * w * _CURVE * side
        upper = level - opening * _ARCH**0.8
        lower = level + 0.6 * opening * _ARCH
        _socket(draw, head, traits, side)
        crease = level - (traits.eye_opening + traits.lid_crease) * _ARCH**0.7 - 0.01
        stroke(draw, head.surface(x, crease), darker(traits.skin, 0.66), 0.022 * unit)
        ends = np.concatenate([x, x[::-1]])
        fill(draw, head.surface(ends, np.concatenate([upper, lower[::-1]])), _WHITE)
        gaze_x = side * traits.eye_x + look.gaze[0] * 0.06
        gaze_y = traits.eye_y - 0.15 * opening + look.gaze[1] * 0.03
        for radius, colour in ((1.0, darker(traits.iris, 0.6)), (0.82, traits.iris), (0.42, _LASH)):
            r = radius * traits.iris_size
            round_x = gaze_x + r * np.cos(_TURN)
            round_y = np.clip(
                gaze_y + r * np.sin(_TURN),
                np.interp(round_x, x, upper),
                np.interp(round_x, x, lower),
            )
            fill(draw, head.surface(round_x, round_y), colour)
        if look.eye_open > 0.4:
            glint = head.surface(np.array([gaze_x + 0.03]), np.array([gaze_y - 0.03]))[0]
            r = 0.018 * unit
            draw.ellipse((*(glint - r).tolist(), *(glint + r).tolist()), fill=(250, 250, 250))
        lash = (0.016 + 0.03 * traits.lashes) * unit
        stroke(draw, head.surface(x, upper), mix(traits.skin, _LASH, 0.95), lash)
        stroke(draw, head.surface(x, lower), darker(traits.skin, 0.55), 0.012 * unit)


def _socket(draw: ImageDraw.ImageDraw, head: Head, traits: Traits, side: int) -> None:
    x = side * traits.eye_x + traits.eye_width * 1.35 * np.cos(_TURN)
    for size, dark in ((1.0, 0.1), (0.75, 0.2)):
        y = traits.eye_y - 0.02 + size * (traits.eye_opening + 0.08) * np.sin(_TURN)
        fill(draw, head.surface(x, y), darker(traits.skin, 1 - dark * traits.eye_socket - 0.02))
    bag = traits.eye_y + 0.6 * traits.eye_opening + 0.05 + 0.035 * _ARCH
    if traits.age > 0.4:
        x = side * traits.eye_x + traits.eye_width * 0.8 * _CURVE
        stroke(draw, head.surface(x, bag), darker(traits.skin, 1 - 0.3 * traits.age), 2)


def brows(draw: ImageDraw.ImageDraw, head: Head, traits: Traits, look: Expression) -> None:
    """Both brows, thick at the nose and thin outside."""
    for side in _SIDES:
        outward = _CURVE * side
        x = side * (traits.eye_x + 0.02 - 0.03 * look.brow_furrow) + traits.brow_width * _CURVE
        y = traits.eye_y - traits.brow_y - traits.brow_arch * _ARCH
        y = y - traits.brow_tilt * traits.brow_width * outward - 0.06 * look.brow_raise
        y = y - 0.05 * look.brow_furrow * outward
        thick = traits.brow_thickness * (1 - 0.35 * outward) * np.minimum(1, 0.45 + 4 * _ARCH) / 2
        points = head.surface(
            np.concatenate([x, x[::-1]]), np.concatenate([y - thick, (y + thick)[::-1]]), 0.03
        )
        fill(draw, points, traits.brow_colour)


def nose(draw: ImageDraw.ImageDraw, head: Head, traits: Traits, light_x: float) -> None:
    """The nose; `light_x` (-1 to 1) says from which side the light comes."""
    b, w, tip = traits.nose_bridge, traits.nose_width, traits.nose_y
    high, bulb, tone = traits.nose_height, traits.nose_bulb, traits.skin
    top = traits.eye_y - 0.06
    for side in _SIDES:
        x = side * np.array([b * 0.5, b * 0.8, bulb * 0.9, w, w * 1.05, b + 0.05])
        y = np.array([top, tip - 0.15, tip - 0.04, tip + 0.05, tip - 0.06, top + 0.04])
        lift = np.array([0.06, high * 0.8, high, 0.03, 0.0, 0.0])
        shade = 0.9 + 0.09 * light_x * side
        fill(draw, head.surface(x, y, lift), darker(tone, shade))
    x = bulb * np.cos(_TURN)
    fill(draw, head.surface(x, tip - 0.03 + bulb * 0.75 * np.sin(_TURN), high), tone)
    under = np.array([-w * 0.95, -bulb, 0, bulb, w * 0.95, bulb * 0.6, 0, -bulb * 0.6])
    level = tip + np.array([0.06, 0.035, 0.05, 0.035, 0.06, 0.08, 0.1, 0.08])
    lift = high * np.array([0.15, 0.7, 0.9, 0.7, 0.15, 0.3, 0.4, 0.3])
    fill(draw, head.surface(under, level, lift), darker(tone, 0.68))
    for side in _SIDES:
        x = side * w * 0.55 + w * 0.26 * np.cos(_TURN)
        y = tip + 0.06 + 0.026 * np.sin(_TURN)
        fill(draw, head.surface(x, y, high * 0.5), darker(tone, 0.36))
        turn = np.linspace(-1.2, 1.4, 6)
        x = side * (w * 0.72 + w * 0.36 * np.cos(turn))
        y = tip + 0.015 + 0.075 * np.sin(turn)
        stroke(draw, head.surface(x, y, 0.05), darker(tone, 0.6), 0.02 * head.unit)


def mouth(draw: ImageDraw.ImageDraw, head: Head, traits: Traits, look: Expression) -> None:
    """Lips, and teeth or the inside of an open mouth."""
    w = traits.mouth_width * (1 + 0.22 * max(look.smile, 0) - 0.12 * look.mouth_open)
    x = w * _CURVE
    rise = traits.mouth_curve + 0.09 * look.smile
    line = traits.mouth_y - rise * _CURVE**2 + 0.3 * rise
    gap = 0.15 * look.mouth_open * _ARCH
    bow = 0.35 * traits.cupid_bow * np.exp(-((_CURVE / 0.18) ** 2))
    top = line - 0.3 * gap - traits.upper_lip * _ARCH**0.7 * (1 - bow)
    bottom = line + gap + traits.lower_lip * _ARCH**0.6
    lift, ends = 0.05, np.concatenate([x, x[::-1]])

    def between(upper: np.ndarray, lower: np.ndarray, colour: Colour) -> None:
        fill(draw, head.surface(ends, np.concatenate([upper, lower[::-1]]), lift), colour)

    between(top, line, darker(traits.lips, 0.86))
    between(line, bottom, traits.lips)
    if look.mouth_open > 0.08:
        between(line - 0.3 * gap, line + gap, _MOUTH_INSIDE)
        between(line - 0.3 * gap, line + 0.25 * gap, _TEETH)
    else:
        stroke(draw, head.surface(x, line, lift), darker(traits.lips, 0.5), 0.022 * head.unit)
    shadow = x[3:10] * 0.8
    stroke(draw, head.surface(shadow, bottom[3:10] + 0.05), darker(traits.skin, 0.84), 3)


def wrinkles(draw: ImageDraw.ImageDraw, head: Head, traits: Traits, look: Expression) -> None:
    """Folds beside the mouth and lines on the forehead."""
    depth = 0.35 * max(0.0, traits.age - 0.25) + 0.12 * max(look.smile, 0)
    tone = darker(traits.skin, 1 - depth)
    for side in _SIDES:
        x = side * np.array([traits.nose_width + 0.03, 0.3, traits.mouth_width + 0.09])
        y = np.array([traits.nose_y - 0.02, traits.nose_y + 0.12, traits.mouth_y + 0.02])
        stroke(draw, head.surface(x, y, 0.02), tone, 0.024 * head.unit)
    if traits.age > 0.6:
        for level in (0.42, 0.52):
            y = traits.eye_y - level - 0.02 * _ARCH - 0.03 * look.brow_raise
            stroke(draw, head.surface(0.34 * _CURVE, y), tone, 0.018 * head.unit)


def beard(draw: ImageDraw.ImageDraw, head: Head, traits: Traits) -> None:
    """Beard and moustache, blended into the skin by their density. Drawn before the mouth."""
    if traits.beard:
        colour = mix(traits.skin, darker(traits.hair, 0.9), traits.beard)
        start = 1.0 - traits.beard_height
        low = head.jaw(0.06 * traits.beard, start - 0.05)
        x = 0.97 * _CURVE
        cheek = traits.mouth_y - 0.02 + (start - traits.mouth_y) * np.abs(x) ** 2.5
        half = head.half_width(cheek)
        fill(draw, np.concatenate([low, head.surface(x * half, cheek)]), colour)
    if traits.moustache:
        colour = mix(traits.skin, darker(traits.hair, 0.9), traits.moustache)
        x = (traits.mouth_width + 0.05) * _CURVE
        top = traits.mouth_y - 0.16 + 0.14 * np.abs(_CURVE) ** 2
        bottom = traits.mouth_y - 0.02 + 0.05 * np.abs(_CURVE)
        points = head.surface(
            np.concatenate([x, x[::-1]]), np.concatenate([top, bottom[::-1]]), 0.05
        )
        fill(draw, points, colour)
