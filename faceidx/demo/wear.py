"""Drawing what frames or hides a face: hair, glasses, hats, masks, hands."""

from __future__ import annotations

import numpy as np
from PIL import ImageDraw

from faceidx.demo.features import as_pixel, darker, fill, mix, stroke
from faceidx.demo.head import Head
from faceidx.demo.traits import Colour, Traits

_TURN = np.linspace(0, 2 * np.pi, 21)[:-1]
_DARK_LENS: Colour = (22, 22, 26)


def _curls(points: np.ndarray, head: Head, traits: Traits) -> np.ndarray:
    """Move the contour of hair in and out, the same way on every picture of a person."""
    step = np.arange(len(points)) + traits.hair_phase
    size = 0.01 + 0.045 * traits.hair_curl
    wave = np.sin(1.7 * step) + 0.6 * np.sin(2.7 * step + 1.0) + 0.4 * np.sin(0.6 * step)
    middle = points.mean(axis=0)
    out = (points - middle) / (np.linalg.norm(points - middle, axis=1, keepdims=True) + 1e-6)
    return points + out * (size * head.unit * wave)[:, None]


def hair_behind(draw: ImageDraw.ImageDraw, head: Head, traits: Traits) -> None:
    """The hair that falls behind face and neck."""
    if traits.bald or traits.hair_length < 0.3:
        return
    end = traits.hair_length
    grow = 1 + traits.hair_volume
    y = np.linspace(-0.8, end, 9)
    wide = (traits.cheek * grow + 0.04) * (1 + 0.1 * traits.hair_curl * np.sin(3 * y))
    wide = wide * np.interp(y, [-0.8, -0.2, end], [0.7, 1.0, 0.96])
    x = np.concatenate([-wide[::-1], wide])
    points = head.project(x, np.concatenate([y[::-1], y]), np.full(len(x), -0.25))
    fill(draw, _curls(points, head, traits), darker(traits.hair, 0.72))


def hair_front(draw: ImageDraw.ImageDraw, head: Head, traits: Traits) -> None:
    """The hair above the forehead and at the sides."""
    if traits.bald:
        return
    side_end = float(np.clip(traits.hair_length, -0.25, 0.2))
    across = np.linspace(-1, 1, 25)
    part = traits.hair_parting
    line = traits.eye_y - traits.hairline + np.zeros_like(across)
    line -= traits.temples * np.exp(-(((np.abs(across) - 0.5) / 0.18) ** 2))
    fall = np.clip(1.1 - np.abs(across - 0.3 * part) * 0.6, 0, 1)
    line += traits.hair_fringe * fall * (1 + 0.12 * np.sin(9 * across + traits.hair_phase))
    if not traits.hair_fringe:  # the hair lifts where it is parted
        line -= 0.1 * np.exp(-(((across - 0.45 * part) / 0.22) ** 2))
    steep = np.clip((np.abs(across) - 0.72) / 0.28, 0, 1)
    line += (side_end - line) * steep**1.5
    line = np.maximum(line, -0.93)
    wide = np.interp(line, head.rows, head.widths)
    inner = head.surface(across * wide, line)
    outer = head.outline(traits.hair_volume, bottom=side_end)
    outer = _curls(outer, head, traits)
    fill(draw, np.concatenate([outer, inner[::-1]]), traits.hair)
    _strands(draw, head, traits, inner, outer)


def _strands(
    draw: ImageDraw.ImageDraw, head: Head, traits: Traits, inner: np.ndarray, outer: np.ndarray
) -> None:
    start = outer[len(outer) // 2] + np.array([traits.hair_parting * 0.35 * head.unit, 0])
    for number in range(3, len(inner) - 3, 2):
        t = 0.35 + 0.3 * np.sin(3.7 * number + traits.hair_phase)
        bend = np.array([0, -0.08 * head.unit])
        begin = start + (inner[number] - start) * 0.25
        middle = (begin + inner[number]) / 2 + bend
        light = mix(traits.hair, (255, 240, 220), 0.09) if number % 4 == 1 else None
        colour = light or darker(traits.hair, 0.82 + 0.2 * t)
        points = np.stack([begin, middle, inner[number] + 0.2 * bend])
        stroke(draw, points, colour, (0.015 + 0.02 * t) * head.unit)


def _lens(head: Head, traits: Traits, side: int, grow: float) -> np.ndarray:
    """The rim of one lens: a superellipse between square and round."""
    power = 0.4 + 0.6 * traits.frame_roundness
    cos, sin = np.cos(_TURN), np.sin(_TURN)
    x = (
        side * (traits.eye_x + 0.01)
        + grow * traits.frame_width * np.sign(cos) * np.abs(cos) ** power
    )
    y = traits.eye_y + 0.02 + grow * traits.frame_height * np.sign(sin) * np.abs(sin) ** power
    return head.surface(x, y, 0.14)


def glasses(draw: ImageDraw.ImageDraw, head: Head, traits: Traits) -> None:
    """The person's own glasses."""
    width = traits.frame_thickness * 1.6 * head.unit
    for side in (-1, 1):
        rim = _lens(head, traits, side, 1.0)
        stroke(draw, np.concatenate([rim, rim[:1]]), traits.frame, width)
        _temple(draw, head, traits, side, traits.frame, width)
    _bridge(draw, head, traits, traits.frame, width)


def sunglasses(draw: ImageDraw.ImageDraw, head: Head, traits: Traits, tint: Colour) -> None:
    """Dark glasses that hide the eyes."""
    for side in (-1, 1):
        fill(draw, _lens(head, traits, side, 1.08), mix(_DARK_LENS, tint, 0.2))
        _temple(draw, head, traits, side, _DARK_LENS, 0.04 * head.unit)
    _bridge(draw, head, traits, _DARK_LENS, 0.04 * head.unit)


def _temple(
    draw: ImageDraw.ImageDraw, head: Head, traits: Traits, side: int, colour: Colour, width: float
) -> None:
    """The part from the lens to the ear, on the side one can see."""
    if side * head.pose.yaw > 0.06:
        return
    x = side * np.array([traits.eye_x + traits.frame_width, traits.cheek + 0.02])
    y = np.array([traits.eye_y - 0.03, traits.eye_y])
    points = head.project(x, y, np.array([traits.depth * 0.65, -0.05]))
    points[0] = head.surface(x[:1] * 0.98, y[:1], 0.14)[0]
    stroke(draw, points, colour, width)


def _bridge(
    draw: ImageDraw.ImageDraw, head: Head, traits: Traits, colour: Colour, width: float
) -> None:
    gap = max(0.03, traits.eye_x - traits.frame_width)
    x = np.array([-gap, 0, gap])
    y = traits.eye_y + np.array([0.0, -0.03, 0.0])
    stroke(draw, head.surface(x, y, 0.15), colour, width)


def mask(draw: ImageDraw.ImageDraw, head: Head, traits: Traits, colour: Colour) -> None:
    """A medical mask over nose, mouth and chin, with its folds and straps."""
    x = np.linspace(-0.95, 0.95, 11)
    top = traits.nose_y - 0.08 - 0.12 * np.exp(-((x / 0.3) ** 2)) + 0.05 * np.abs(x)
    upper = head.surface(x * head.half_width(top), top, 0.12 * (1 - np.abs(x)))
    lower = head.jaw(0.03, 0.4)
    fill(draw, np.concatenate([upper, lower]), colour)
    for level in (0.45, 0.62):
        y = np.full(9, level) + 0.04 * (1 - np.linspace(-1, 1, 9) ** 2)
        points = head.surface(np.linspace(-0.5, 0.5, 9), y, 0.1)
        stroke(draw, points, darker(colour, 0.8), 0.02 * head.unit)
    for side in (-1, 1):
        points = head.surface(side * np.array([0.9, 1.0]) * traits.cheek, np.array([0.35, 0.02]))
        stroke(draw, points, darker(colour, 0.9), 0.02 * head.unit)


def hat(draw: ImageDraw.ImageDraw, head: Head, colour: Colour, brim: float) -> None:
    """A cap or woollen hat down to the forehead; `brim` 0 (none) to 1."""
    across = np.linspace(-1, 1, 15)
    y = -0.52 - 0.06 * (1 - across**2)
    edge = head.surface(across * head.half_width(y) * 1.02, y, 0.08)
    crown = head.outline(0.2, bottom=-0.3)
    fill(draw, np.concatenate([crown, edge[::-1]]), colour)
    band = np.concatenate([edge, head.surface(across * head.half_width(y), y - 0.14, 0.1)[::-1]])
    fill(draw, band, darker(colour, 0.75))
    if brim > 0.5:
        x = np.linspace(-0.66, 0.66, 11)
        front = head.surface(x, np.full(11, -0.52), 0.1)
        drop = head.surface(x, -0.50 + 0.14 * (1 - (x / 0.66) ** 2), 0.35)
        fill(draw, np.concatenate([front, drop[::-1]]), darker(colour, 0.6))


def hand(draw: ImageDraw.ImageDraw, head: Head, tone: Colour, side: int, height: float) -> None:
    """Four fingers before a part of the face, coming in from one side."""
    unit = head.unit
    middle = head.surface(np.array([side * 0.3]), np.array([height]), 0.2)[0]
    for finger in range(4):
        reach = (0.06, 0.0, 0.04, 0.16)[finger]
        tip = middle + np.array([side * reach, 0.15 * (finger - 1.5)]) * unit
        far = tip + np.array([side * 1.6, 0.5]) * unit
        stroke(draw, np.stack([tip, far]), darker(tone, 0.6), 0.19 * unit)
        stroke(draw, np.stack([tip, far]), darker(tone, 0.93), 0.15 * unit)
        r = 0.075 * unit
        draw.ellipse((*(tip - r).tolist(), *(tip + r).tolist()), fill=as_pixel(darker(tone, 0.93)))


def bar(draw: ImageDraw.ImageDraw, head: Head, colour: Colour, side: int, reach: float) -> None:
    """Something in the foreground that hides one side of the picture."""
    canvas, lean = head.canvas, 0.1 * head.canvas
    edge = canvas * (reach if side < 0 else 1 - reach)
    outside = -lean if side < 0 else canvas + lean
    corners = [[outside, -lean], [edge, -lean], [edge + lean, canvas + 2], [outside, canvas + 2]]
    fill(draw, np.array(corners), colour)
