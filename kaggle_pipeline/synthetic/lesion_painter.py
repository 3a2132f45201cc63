"""Procedural, dermoscopy-like images of skin lesions, so that tests and demos need no data.

In: a `Morphology` (the lesion), a `Skin` (patient and camera), an image size in pixels, a numpy
generator. Out: an RGB image and the lesion's mask. They prove nothing about real lesions. The
fields of `Morphology` follow the ABCD rule of dermatoscopy (Asymmetry, Border, Colour: white,
red, light and dark brown, blue-grey, black; Differential structures):

- W. Stolz et al. (1994). ABCD rule of dermatoscopy: a new practical method for early
  recognition of malignant melanoma. European Journal of Dermatology 4, 521-527.
- F. Nachbar et al. (1994). The ABCD rule of dermatoscopy: high prospective value in the
  diagnosis of doubtful melanocytic skin lesions. J Am Acad Dermatol 30, 551-559.

Random numbers are drawn in amounts that depend neither on the image size nor on the parameters,
so one generator state means one lesion: at every size, and as one parameter alone is turned up.
Lengths are shares of the image side, or of the lesion radius where that is said.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

MIN_SIZE_PX = 16
# Smaller images are averaged from a scene of this size, or thin lines would alias.
MIN_RENDER_PX = 96
LIGHT_SKIN_RGB = (0.93, 0.78, 0.69)
DARK_SKIN_RGB = (0.50, 0.36, 0.28)
HAIR_RGB = (0.15, 0.11, 0.09)
VEIL_RGB = (0.45, 0.52, 0.63)
SCAR_RGB = (0.88, 0.79, 0.77)
# Absorbance per unit of pigment in red, green and blue: melanin near the surface takes blue
# light first (brown), dense melanin takes everything (black), blood takes green and blue.
MELANIN_ABSORBANCE = (0.55, 0.86, 1.15)
BLACK_ABSORBANCE = (1.45, 1.40, 1.30)
BLOOD_ABSORBANCE = (0.10, 0.70, 0.55)
NETWORK_SPACING = 0.031
MAX_HAIRS = 22
MAX_GLOBULES = 60
# The lower the rank, the sooner a colour tends to join the ground colour (light brown).
EXTRA_COLOUR_RANKS = {"dark_brown": 0.0, "black": 0.5, "red": 0.6, "blue_grey": 0.7, "white": 0.7}


@dataclass(frozen=True)
class Morphology:
    """Latent appearance of one lesion; every field in [0, 1] unless said otherwise."""

    asymmetry: float
    border_irregularity: float
    colour_variety: float
    diameter: float  # of the disc of equal area, as a share of the image side, about 0.2..0.7
    darkness: float
    network: float  # strength of the pigment network
    veil: float  # blue-white veil
    blood: float = 0.0  # vessels and lacunae in place of pigment: pink, red, at 1 deep red
    scar: float = 0.0  # whitish middle


@dataclass(frozen=True)
class Skin:
    """What a patient's (and a camera's) images have in common; every field in [0, 1]."""

    tone: float  # 0 light .. 1 dark
    redness: float
    hairiness: float
    vignette: float


def draw_lesion(
    morphology: Morphology, skin: Skin, size_px: int, rng: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one lesion on skin, as a dermatoscope might show it.

    Parameters
    ----------
    morphology : Morphology
        Appearance of the lesion.
    skin : Skin
        Appearance of the skin and of the camera.
    size_px : int
        Side of the square image in pixels, at least 16.
    rng : numpy.random.Generator
        Source of all chance; the draws made do not depend on the other arguments.

    Returns
    -------
    image : numpy.ndarray, shape (size_px, size_px, 3), dtype uint8
        RGB image, display values 0..255.
    mask : numpy.ndarray, shape (size_px, size_px), dtype bool
        True on the lesion, also where hairs cross it.

    Raises
    ------
    ValueError
        If `size_px` is not a whole number of at least 16, or a field lies outside [0, 1].
    """
    if not isinstance(size_px, int | np.integer) or size_px < MIN_SIZE_PX:
        raise ValueError(f"size_px must be an int of at least {MIN_SIZE_PX}, got {size_px!r}")
    for name, value in (asdict(morphology) | asdict(skin)).items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} must lie in [0, 1], got {value!r}")
    stage = _Stage(morphology, skin, max(int(size_px), MIN_RENDER_PX), rng)
    depth = _border_depth(stage)
    scene = _add_camera(stage, _add_hairs(stage, _add_lesion(stage, _bare_skin(stage), depth)))
    scene = (np.clip(scene, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    image = Image.merge("RGB", [Image.fromarray(channel) for channel in scene])
    mask = Image.fromarray((depth > 0.0).astype(np.uint8) * 255)
    image, mask = (im.resize((size_px, size_px), Image.Resampling.BOX) for im in (image, mask))
    return np.array(image), np.asarray(mask) >= 128


class _Stage:
    """What layers share; float32 maps (side_px, side_px) and scenes (3, side_px, side_px)."""

    def __init__(self, morphology: Morphology, skin: Skin, side_px: int, rng: Generator) -> None:
        self.morphology, self.skin, self.side_px, self.rng = morphology, skin, side_px, rng
        # The larger the lesion, the less it may stray from the middle.
        stray = 0.15 * (1.0 - morphology.diameter)
        self.centre_x, self.centre_y = (0.5 + stray * rng.uniform(-1.0, 1.0, 2)).tolist()
        self.radius = max(morphology.diameter / 2.0, 0.01)
        self.turn_rad = rng.uniform(0.0, math.tau)
        # Pixel centres in the image (0..1), and in the lesion's own frame in lesion radii.
        ticks = (np.arange(side_px, dtype=np.float32) + np.float32(0.5)) / side_px
        self.x, self.y = ticks[None, :], ticks[:, None]
        x, y = (self.x - self.centre_x) / self.radius, (self.y - self.centre_y) / self.radius
        cos, sin = math.cos(self.turn_rad), math.sin(self.turn_rad)
        self.u, self.v = cos * x + sin * y, cos * y - sin * x
        self.textures = [_lesion_noise(self) for _ in range(3)]


def _noise(rng: Generator, side_px: int, *cells: int) -> np.ndarray:
    """Smooth noise map of about unit deviation; `cells` are the grain counts of its octaves."""
    total = np.zeros((cells[0], cells[0]), dtype=np.float32)
    for octave, (count, finer) in enumerate(zip(cells, (*cells[1:], side_px), strict=True)):
        total += 0.5**octave * rng.standard_normal((count, count), dtype=np.float32)
        total = np.array(Image.fromarray(total).resize((finer, finer), Image.Resampling.BICUBIC))
    return total


def _lesion_noise(stage: _Stage) -> np.ndarray:
    """Noise that moves, turns and grows with the lesion; zero beyond 2.2 radii."""
    grid = Image.fromarray(_noise(stage.rng, 72, 7, 24))
    step = grid.width / (4.4 * stage.radius * stage.side_px)  # grid cells per pixel
    cos, sin = step * math.cos(stage.turn_rad), step * math.sin(stage.turn_rad)
    x_px, y_px = stage.centre_x * stage.side_px, stage.centre_y * stage.side_px
    u_px, v_px = grid.width / 2 - cos * x_px - sin * y_px, grid.width / 2 + sin * x_px - cos * y_px
    to_grid, size = (cos, sin, u_px, -sin, cos, v_px), (stage.side_px, stage.side_px)
    affine, smooth = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    return np.asarray(grid.transform(size, affine, to_grid, smooth))


def _border_depth(stage: _Stage) -> np.ndarray:
    """How far each pixel lies within the border, in lesion radii; negative outside."""
    asymmetry, irregularity = stage.morphology.asymmetry, stage.morphology.border_irregularity
    steps, split = 720, 6  # directions around the centre; the first order that makes notches
    heights, phases_rad = stage.rng.uniform((0.6, 0.0), (1.4, math.tau), (25, 2)).T
    # Order 1 would only shift the shape, order 2 makes an ellipse, which is symmetric, orders 3
    # to 5 bend it, and higher ones notch its border.
    heights[:split] *= asymmetry * np.array([0.0, 0.0, 0.07, 0.15, 0.09, 0.05])
    heights[2:split] += (0.045, 0.008, 0.008, 0.008)
    heights[split:] *= 0.04 * irregularity
    waves = 0.5 * steps * heights * np.exp(1j * phases_rad)
    notches = np.fft.irfft(np.where(np.arange(waves.size) < split, 0.0, waves), steps)
    # Notches that are as deep all around would make a leaf, so they fade on one side.
    notches *= 0.55 + 0.45 * np.cos(np.arange(steps) * (math.tau / steps) + phases_rad[0])
    radii = np.maximum(1.0 + np.fft.irfft(waves[:split], steps) + notches, 0.25)
    radii = (radii / math.sqrt((radii**2).mean())).astype(np.float32)  # area as of the disc
    sway = 0.010 + 0.070 * irregularity
    u, v = stage.u + sway * stage.textures[0], stage.v + sway * stage.textures[1]
    step = (np.arctan2(v, u) / math.tau + 1.0) * steps
    return radii[step.astype(np.int32) % steps] - np.hypot(u, v)


def _smooth_step(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def _colour(rgb: tuple[float, float, float]) -> np.ndarray:
    """A colour as an array that broadcasts against maps."""
    return np.array(rgb, dtype=np.float32)[:, None, None]


def _absorb(scene: np.ndarray, *pigments: tuple[np.ndarray, tuple[float, ...]]) -> np.ndarray:
    """Light that pigments (density map, absorbance per unit) leave over, by Beer and Lambert."""
    return scene * np.exp(-sum(density * _colour(absorbance) for density, absorbance in pigments))


def _bare_skin(stage: _Stage) -> np.ndarray:
    """Skin without a lesion, mottled by melanin and blood."""
    tone, redness, rng = stage.skin.tone, stage.skin.redness, stage.rng
    mottling, flush = _noise(rng, stage.side_px, 4, 11, 45), _noise(rng, stage.side_px, 5, 13)
    blood = 0.03 + 0.22 * redness + (0.02 + 0.05 * redness) * flush
    base = (1.0 - tone) * _colour(LIGHT_SKIN_RGB) + tone * _colour(DARK_SKIN_RGB)
    return _absorb(base, (0.05 * mottling, MELANIN_ABSORBANCE), (blood, BLOOD_ABSORBANCE))


def _add_lesion(stage: _Stage, scene: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Lay pigments over the skin, then whitish hazes."""
    # A regular border fades out, an irregular one is sharp, and both vary along their way.
    fade = 0.20 - 0.17 * stage.morphology.border_irregularity
    fade = fade * np.clip(1.0 + 0.5 * stage.textures[0], 0.3, 2.0)
    cover = _smooth_step(0.5 + 0.5 * depth / fade)
    inner = cover * _smooth_step(depth / 0.25)
    patches, globules = _colour_patches(stage), _globules(stage)
    veil = stage.morphology.veil * _patch(stage, stage.textures[2], 0.4, 0.85)
    melanin = _ground(stage, depth) * (1.0 - 0.6 * patches["red"])
    melanin += 0.7 * patches["dark_brown"] + 0.4 * globules
    black = 0.9 * patches["black"] + 0.35 * globules + 0.3 * veil
    top = cover * (1.0 - 0.8 * patches["white"]) * (1.0 - 0.9 * stage.morphology.blood)
    scene = _absorb(scene, (top * melanin, MELANIN_ABSORBANCE), (top * black, BLACK_ABSORBANCE))
    lacunae = stage.morphology.blood * np.clip(1.5 + 0.7 * stage.textures[1], 0.5, 2.5)
    blood = 0.03 + 0.8 * patches["red"] + lacunae * (1.0 - 0.8 * patches["white"])
    scene = _absorb(scene, (cover * blood, BLOOD_ABSORBANCE))
    # The hazes lie below the surface, whose own pigment dims them.
    dimming = 1.0 - 0.4 * stage.skin.tone
    scene += 0.45 * inner * patches["white"] * (dimming * _colour(SCAR_RGB) - scene)
    haze = inner * np.maximum(0.45 * patches["blue_grey"], 0.7 * veil)
    return scene + haze * (dimming * _colour(VEIL_RGB) - scene)


def _patch(stage: _Stage, texture: np.ndarray, farthest: float, reach: float) -> np.ndarray:
    """One ragged spot, 0..1, centred within `farthest` of the lesion centre (both in radii)."""
    distance = farthest * math.sqrt(stage.rng.uniform())
    angle_rad = stage.rng.uniform(0.0, math.tau)
    u, v = stage.u - distance * math.cos(angle_rad), stage.v - distance * math.sin(angle_rad)
    return _smooth_step(0.9 + 0.55 * texture - (u * u + v * v) * (1.2 / reach**2))


def _colour_patches(stage: _Stage) -> dict[str, np.ndarray]:
    """Strength, 0..1, of each colour beyond the ground colour; they set in one after another."""
    ranks = {name: rank + stage.rng.uniform() for name, rank in EXTRA_COLOUR_RANKS.items()}
    patches = {}
    for place, name in enumerate(sorted(ranks, key=ranks.get)):
        # Mixtures of the same few textures differ enough, and cost less than new ones.
        texture = 0.7 * (stage.textures[place % 3] - stage.textures[(place + 1) % 3])
        strength = min(max(len(ranks) * stage.morphology.colour_variety - place, 0.0), 1.0)
        patches[name] = strength * _patch(stage, texture, 0.75, stage.rng.uniform(0.45, 0.7))
    middle = _smooth_step(0.9 + 0.3 * stage.textures[2] - 2.0 * (stage.u**2 + stage.v**2))
    patches["white"] = np.maximum(patches["white"], stage.morphology.scar * middle)
    return patches


def _ground(stage: _Stage, depth: np.ndarray) -> np.ndarray:
    """Melanin of the ground colour: denser in the middle or on one side, and in the network."""
    morphology, shade = stage.morphology, stage.textures[2]
    angle_rad, *phases_rad = stage.rng.uniform(0.0, math.tau, 4).tolist()
    slope = np.clip(math.cos(angle_rad) * stage.u + math.sin(angle_rad) * stage.v, -1.2, 1.2)
    density = 1.0 + 0.22 * _smooth_step(depth) + 0.08 * shade
    density += morphology.asymmetry * (0.4 * slope + 0.12 * shade)
    # Three plane waves at 120 degrees add up to a lattice of spots, the holes; noise bends it.
    bend = (0.6 + 0.6 * morphology.border_irregularity) * NETWORK_SPACING
    x, y = stage.x + bend * stage.textures[1], stage.y + bend * stage.textures[0]
    rad_per_side, waves = math.tau / (NETWORK_SPACING * math.sqrt(0.75)), np.zeros_like(x)
    for third, phase_rad in enumerate(phases_rad):
        angle_rad = stage.turn_rad + third * math.tau / 3.0
        cos, sin = rad_per_side * math.cos(angle_rad), rad_per_side * math.sin(angle_rad)
        waves += np.cos(cos * x + sin * y + phase_rad)
    lines = np.clip(0.7 + 0.5 * shade, 0.0, 1.0) * (_smooth_step((0.9 - waves) / 1.8) - 0.55)
    density = np.clip(density, 0.25, 2.0) * (0.42 + 0.85 * morphology.darkness)
    return density * (1.0 + 0.9 * morphology.network * lines)


def _fill(stage: _Stage, outlines: np.ndarray) -> np.ndarray:
    """Share of each pixel, 0..1, within polygons, rows of corners x + iy in image sides."""
    fineness = max(2, math.ceil(4 * MIN_RENDER_PX / stage.side_px))  # as PIL draws hard edges
    canvas = Image.new("L", (stage.side_px * fineness,) * 2)
    draw = ImageDraw.Draw(canvas)
    for outline in outlines:
        draw.polygon((outline * canvas.width).view(np.float64).tolist(), fill=255)
    return np.asarray(canvas.reduce(fineness)) / np.float32(255.0)


def _globules(stage: _Stage) -> np.ndarray:
    """Dots and globules, 0..1: few and even in calm lesions, many and uneven in others."""
    rng, unrest = stage.rng, (stage.morphology.asymmetry + stage.morphology.colour_variety) / 2.0
    distance = 0.9 * stage.radius * np.sqrt(rng.uniform(size=MAX_GLOBULES))
    angle_rad = rng.uniform(0.0, math.tau, MAX_GLOBULES)
    size = 0.005 * np.exp((0.15 + 0.4 * unrest) * rng.standard_normal(MAX_GLOBULES))
    middles = complex(stage.centre_x, stage.centre_y) + distance * np.exp(1j * angle_rad)
    outlines = middles[:, None] + size[:, None] * np.exp(1j * np.linspace(0.0, math.tau, 13))
    return _fill(stage, outlines[: 5 + round(unrest * (MAX_GLOBULES - 5))])


def _add_hairs(stage: _Stage, scene: np.ndarray) -> np.ndarray:
    """Hairs as bent, tapering stripes across the image, most of them lying in one direction."""
    angle_rad = stage.rng.normal(stage.rng.uniform(0.0, math.tau), 0.55, (MAX_HAIRS, 1))
    middle = stage.rng.uniform(-0.1, 1.1, (MAX_HAIRS, 2)).view(np.complex128)
    length, sag, width = stage.rng.uniform(size=(3, MAX_HAIRS, 1))
    # Each outline runs along one edge of the hair to its tip and back along the other.
    step = np.concatenate([np.linspace(-1.0, 1.0, 12), np.linspace(1.0, -1.0, 12)])
    edge = np.repeat([0.5, -0.5], 12) * (1.3 - 0.5 * step**2)
    across = 0.2 * (sag - 0.5) * (step**2 - 0.3) + (0.003 + 0.004 * width) * edge
    hairs = middle + ((0.15 + 0.3 * length) * step + 1j * across) * np.exp(1j * angle_rad)
    shade = 0.88 * _fill(stage, hairs[: round(stage.skin.hairiness * MAX_HAIRS)])
    return scene + shade * (_colour(HAIR_RGB) - scene)


def _add_camera(stage: _Stage, scene: np.ndarray) -> np.ndarray:
    """Dim corners, at strong vignette the black rim of the lens tube, and grainy noise."""
    off_axis, vignette = np.hypot(stage.x - 0.5, stage.y - 0.5), stage.skin.vignette
    light = 1.0 - 0.45 * vignette * _smooth_step((off_axis - 0.15) / 0.6)
    light *= 1.0 - 0.95 * _smooth_step((off_axis - 0.78 + 0.24 * vignette) / 0.03)
    return scene * light * (1.0 + 0.02 * _noise(stage.rng, stage.side_px, 120))
