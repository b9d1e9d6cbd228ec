"""What stays the same about a drawn person: the traits, and how they are drawn by lot.

Lengths are in head units: the head reaches from about y = -1 (crown) to y = +1 (chin), x grows to
the right and y downwards, as in the picture; z grows towards the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]
"""RGB, each 0 to 255."""

# Skin from light to dark, hair from black over brown and red to blond; people lie between these.
_SKINS = (
    (250, 222, 200),
    (240, 200, 168),
    (222, 172, 132),
    (188, 134, 96),
    (140, 94, 66),
    (88, 58, 44),
)
_HAIRS = ((24, 20, 20), (58, 38, 28), (104, 66, 40), (148, 78, 36), (190, 142, 80), (228, 200, 140))
_GREY_HAIR = (196, 194, 190)
_EYES = (
    (52, 34, 24),
    (104, 66, 34),
    (110, 112, 56),
    (86, 128, 84),
    (84, 130, 176),
    (150, 168, 180),
)
_FRAMES = ((20, 20, 24), (96, 58, 30), (150, 34, 40), (40, 60, 120), (190, 180, 160))
# Chances that a person has a trait which most people lack.
_P_BALD, _P_LONG_HAIR, _P_FRINGE = 0.12, 0.45, 0.35
_P_BEARD, _P_MOUSTACHE, _P_GLASSES, _P_FRECKLES = 0.5, 0.4, 0.28, 0.25


@dataclass(frozen=True, kw_only=True)
class Traits:
    """The stable traits of a person. A density of 0 means that the person lacks the thing."""

    skin: Colour
    hair: Colour
    brow_colour: Colour
    iris: Colour
    lips: Colour

    forehead: float
    """Half width of the head at the forehead; `cheek`, `jaw` and `chin` further down."""
    cheek: float
    jaw: float
    chin: float
    length: float
    """Distance from the middle of the head to the chin."""
    depth: float
    """Half depth of the head, front to back."""

    eye_x: float
    """Distance of the pupils from the middle line."""
    eye_y: float
    eye_width: float
    eye_opening: float
    eye_tilt: float
    """Rise of the outer corners, radians."""
    iris_size: float
    lid_crease: float
    """Distance of the fold above the eye."""
    eye_socket: float
    """How dark the socket is, 0 to 1."""
    lashes: float

    brow_y: float
    """Distance of the brows above the pupils."""
    brow_width: float
    brow_thickness: float
    brow_arch: float
    brow_tilt: float

    nose_y: float
    nose_width: float
    nose_bridge: float
    """Half width of the bridge."""
    nose_height: float
    """How far the tip stands out."""
    nose_bulb: float

    mouth_y: float
    mouth_width: float
    upper_lip: float
    lower_lip: float
    mouth_curve: float
    """Rise of the corners when at rest."""
    cupid_bow: float

    ear_size: float
    ear_out: float
    blush: float
    age: float
    """0 (young) to 1 (old): wrinkles."""
    spots: tuple[tuple[float, float, float], ...]
    """Freckles and moles: x, y, radius."""

    bald: bool
    hairline: float
    """Height of the hairline above the pupils."""
    temples: float
    """How far the hair recedes at the temples."""
    hair_volume: float
    hair_length: float
    """How far the hair reaches below the middle of the head; below 0 it ends above the ears."""
    hair_parting: float
    """Where the hair is parted, -1 (left) to 1 (right)."""
    hair_fringe: float
    """How far the hair falls over the forehead."""
    hair_curl: float
    hair_phase: float

    beard: float
    """Density of the beard, 0 to 1; `moustache` alike."""
    beard_height: float
    moustache: float

    glasses: bool
    """Wears glasses on most pictures."""
    frame: Colour
    frame_width: float
    frame_height: float
    frame_roundness: float
    """0 (square) to 1 (round)."""
    frame_thickness: float


def draw_person(rng: np.random.Generator) -> Traits:
    """Draw the traits of one person by lot."""

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def around(mean: float, spread: float) -> float:
        return float(mean + spread * np.clip(rng.standard_normal(), -2.2, 2.2))

    def chance(p: float) -> bool:
        return bool(rng.random() < p)

    beardless = chance(0.5)  # half of the people never grow a beard
    age = between(0, 1)
    darkness = between(0, 1) ** 1.2
    skin = _along(_SKINS, darkness, rng, 7)
    hair = _along(_HAIRS, between(0, 1 - 0.75 * darkness), rng, 8)
    grey = float(np.clip((age - 0.65) / 0.35 + around(0, 0.15), 0, 1))
    hair = _mix(hair, _GREY_HAIR, grey)
    bald = chance(_P_BALD) and not beardless
    long_hair = chance(_P_LONG_HAIR + (0.3 if beardless else -0.3))
    jaw = around(0.63 if beardless else 0.68, 0.045)
    lip = _mix(skin, (186, 62, 70), between(0.3, 0.85 if beardless else 0.5))
    spots = _spots(rng, int(rng.integers(12, 40)) if chance(_P_FRECKLES) else 0)
    return Traits(
        skin=skin,
        hair=hair,
        brow_colour=_mix(_mix(hair, (40, 28, 22), between(0.1, 0.6)), skin, 0.1),
        iris=_along(_EYES, between(0, 1), rng, 8),
        lips=lip,
        forehead=around(0.70, 0.045),
        cheek=around(0.75, 0.045),
        jaw=jaw,
        chin=jaw * between(0.55, 0.85),
        length=around(1.0, 0.06),
        depth=around(0.85, 0.04),
        eye_x=around(0.335, 0.03),
        eye_y=around(-0.06, 0.04),
        eye_width=around(0.175, 0.02),
        eye_opening=around(0.085, 0.02),
        eye_tilt=around(0.06, 0.11),
        iris_size=around(0.085, 0.008),
        lid_crease=between(0.02, 0.07),
        eye_socket=between(0, 1),
        lashes=between(0.4, 1) if beardless else between(0, 0.5),
        brow_y=around(0.24, 0.035),
        brow_width=around(0.22, 0.025),
        brow_thickness=between(0.02, 0.06) if beardless else between(0.035, 0.095),
        brow_arch=around(0.05, 0.025),
        brow_tilt=around(0.0, 0.1),
        nose_y=around(0.36, 0.045),
        nose_width=around(0.165, 0.03),
        nose_bridge=around(0.065, 0.012),
        nose_height=around(0.2, 0.045),
        nose_bulb=around(0.085, 0.015),
        mouth_y=around(0.63, 0.035),
        mouth_width=around(0.27, 0.04),
        upper_lip=around(0.055, 0.018),
        lower_lip=around(0.075, 0.02),
        mouth_curve=around(0.01, 0.02),
        cupid_bow=between(0, 1),
        ear_size=around(0.2, 0.03),
        ear_out=around(0.07, 0.025),
        blush=between(0, 1) ** 2,
        age=age,
        spots=spots,
        bald=bald,
        hairline=around(0.58, 0.06),
        temples=max(0.0, around(0.05, 0.06)) * (1 if beardless else 1.8),
        hair_volume=between(0.06, 0.28) if long_hair else between(0.03, 0.2),
        hair_length=between(0.4, 1.7) if long_hair else between(-0.25, 0.25),
        hair_parting=between(-1, 1),
        hair_fringe=between(0.12, 0.32) if chance(_P_FRINGE) else 0.0,
        hair_curl=between(0, 1) ** 2,
        hair_phase=between(0, 6.3),
        beard=between(0.25, 0.95) if not beardless and chance(_P_BEARD) else 0.0,
        beard_height=between(0.35, 0.75),
        moustache=between(0.3, 0.95) if not beardless and chance(_P_MOUSTACHE) else 0.0,
        glasses=chance(_P_GLASSES),
        frame=_along(_FRAMES, between(0, 1), rng, 6),
        frame_width=around(0.25, 0.02),
        frame_height=around(0.17, 0.025),
        frame_roundness=between(0, 1),
        frame_thickness=between(0.012, 0.035),
    )


def _spots(rng: np.random.Generator, freckles: int) -> tuple[tuple[float, float, float], ...]:
    moles = int(rng.integers(0, 4))
    x = np.r_[rng.normal(0, 0.3, freckles), rng.uniform(-0.55, 0.55, moles)]
    y = np.r_[rng.normal(0.2, 0.12, freckles), rng.uniform(-0.4, 0.8, moles)]
    radius = np.r_[rng.uniform(0.008, 0.018, freckles), rng.uniform(0.016, 0.034, moles)]
    return tuple(zip(x.tolist(), y.tolist(), radius.tolist(), strict=True))


def _along(stops: tuple[Colour, ...], t: float, rng: np.random.Generator, jitter: float) -> Colour:
    """The colour at `t` (0 to 1) of the way along `stops`, plus some chance."""
    place = t * (len(stops) - 1)
    low = min(int(place), len(stops) - 2)
    colour = np.asarray(_mix(stops[low], stops[low + 1], place - low))
    red, green, blue = np.clip(colour + rng.normal(0, jitter, 3), 8, 250).tolist()
    return red, green, blue


def _mix(one: Colour, other: Colour, t: float) -> Colour:
    red, green, blue = (a + (b - a) * t for a, b in zip(one, other, strict=True))
    return red, green, blue
