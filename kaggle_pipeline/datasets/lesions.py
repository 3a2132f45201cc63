"""Procedural, dermoscopy-like images of skin lesions, so that tests and demos need no data.

In: a `Morphology` (the lesion), a `Skin` (patient and camera), an image size in pixels, a numpy
generator. Out: an RGB image and the lesion's mask. They imitate lesions and prove nothing about
real ones. The fields of `Morphology` follow the ABCD rule of dermatoscopy (Asymmetry, Border,
Colour: white, red, light and dark brown, blue-grey, black; Differential structures):

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
from PIL import Image, ImageDraw

MIN_SIZE_PX = 16
# A smaller scene is drawn at a multiple of its size and averaged, or thin lines would alias.
MIN_RENDER_PX = 128
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
NOISE_REACH_RADII = 2.2  # the lesion's own noise ends this far from its centre
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


@dataclass(frozen=True)
class Skin:
    """What a patient's (and a camera's) images have in common; every field in [0, 1]."""

    tone: float  # 0 light .. 1 dark
    redness: float
    hairiness: float
    vignette: float


def draw_lesion(
    morphology: Morphology, skin: Skin, size_px: int, rng: np.random.Generator
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
    oversampling = math.ceil(MIN_RENDER_PX / size_px)
    stage = _Stage(morphology, skin, int(size_px) * oversampling, rng)
    depth = _border_depth(stage)
    scene = _add_camera(stage, _add_hairs(stage, _add_lesion(stage, _bare_skin(stage), depth)))
    pixels = (np.clip(scene, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    image = Image.merge("RGB", [Image.fromarray(channel) for channel in pixels])
    mask = Image.fromarray((depth > 0.0).astype(np.uint8) * 255)
    return np.array(image.reduce(oversampling)), np.asarray(mask.reduce(oversampling)) >= 128


class _Stage:
    """What layers share; float32 maps (side_px, side_px) and scenes (3, side_px, side_px)."""

    def __init__(
        self, morphology: Morphology, skin: Skin, side_px: int, rng: np.random.Generator
    ) -> None:
        self.morphology, self.skin, self.side_px, self.rng = morphology, skin, side_px, rng
        # The larger the lesion, the less it may stray from the middle.
        stray = 0.15 * (1.0 - morphology.diameter)
        self.centre_x, self.centre_y = (0.5 + stray * rng.uniform(-1.0, 1.0, 2)).tolist()
        self.radius = max(morphology.diameter / 2.0, 0.01)
        self.turn_rad = self.random_angle_rad()
        # Pixel centres in the image (0..1), and in the lesion's own frame in lesion radii.
        ticks = (np.arange(side_px, dtype=np.float32) + np.float32(0.5)) / side_px
        self.x, self.y = ticks[None, :], ticks[:, None]
        x, y = (self.x - self.centre_x) / self.radius, (self.y - self.centre_y) / self.radius
        cos, sin = math.cos(self.turn_rad), math.sin(self.turn_rad)
        self.u, self.v = cos * x + sin * y, cos * y - sin * x
        self.textures = [_lesion_noise(self) for _ in range(3)]

    def random_angle_rad(self) -> float:
        return self.rng.uniform(0.0, 2.0 * math.pi)


def _noise(rng: np.random.Generator, side_px: int, *cells: int) -> np.ndarray:
    """Smooth noise map of about unit deviation; `cells` are the grain counts of its octaves."""
    total = np.zeros((cells[0], cells[0]), dtype=np.float32)
    for octave, (count, finer) in enumerate(zip(cells, (*cells[1:], side_px), strict=True)):
        total += 0.5**octave * rng.standard_normal((count, count), dtype=np.float32)
        total = np.array(Image.fromarray(total).resize((finer, finer), Image.Resampling.BICUBIC))
    return total


def _lesion_noise(stage: _Stage) -> np.ndarray:
    """Noise that moves, turns and grows with the lesion; zero far away from it."""
    grid = Image.fromarray(_noise(stage.rng, 72, 7, 24))
    step = grid.width / (2.0 * NOISE_REACH_RADII * stage.radius * stage.side_px)
    cos, sin = step * math.cos(stage.turn_rad), step * math.sin(stage.turn_rad)
    x_px, y_px = stage.centre_x * stage.side_px, stage.centre_y * stage.side_px
    u_px, v_px = cos * x_px + sin * y_px, cos * y_px - sin * x_px
    to_grid = (cos, sin, grid.width / 2.0 - u_px, -sin, cos, grid.width / 2.0 - v_px)
    size, method = (stage.side_px, stage.side_px), Image.Transform.AFFINE
    return np.asarray(grid.transform(size, method, to_grid, Image.Resampling.BILINEAR))


def _outline_radii(stage: _Stage) -> np.ndarray:
    """Radius by angle (720 steps over a turn), in radii of the disc of equal area."""
    steps, morphology = 720, stage.morphology
    heights, phases_rad = stage.rng.uniform((0.6, 0.0), (1.4, 2.0 * math.pi), (25, 2)).T
    # Order 2 makes an ellipse, which is symmetric; orders 3 to 5 bend the shape, higher ones
    # notch its border; order 1 would only shift it.
    heights[:2] = 0.0
    heights[2:6] *= 0.008 + morphology.asymmetry * np.array([0.07, 0.15, 0.09, 0.05])
    heights[2] += 0.04
    heights[6:] *= 0.040 * morphology.border_irregularity
    waves = heights * np.exp(1j * phases_rad) * (steps / 2)
    bends, notches = (
        np.fft.irfft(waves[:6], steps),
        np.fft.irfft(np.append([0] * 6, waves[6:]), steps),
    )
    # Notches that are as deep all around would make a leaf, so they fade on one side.
    angle_rad = np.linspace(0.0, 2.0 * math.pi, steps, endpoint=False)
    radii = 1.0 + bends + notches * (0.55 + 0.45 * np.cos(angle_rad + phases_rad[0]))
    radii = np.maximum(radii, 0.25)
    return (radii / math.sqrt((radii**2).mean())).astype(np.float32)


def _border_depth(stage: _Stage) -> np.ndarray:
    """How far each pixel lies within the border, in lesion radii; negative outside."""
    sway = 0.012 + 0.085 * stage.morphology.border_irregularity
    u, v = stage.u + sway * stage.textures[0], stage.v + sway * stage.textures[1]
    radii = _outline_radii(stage)
    step = (np.arctan2(v, u) / (2.0 * math.pi) + 1.0) * radii.size
    return radii[step.astype(np.int32) % radii.size] - np.hypot(u, v)


def _smooth_step(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, and a smooth rise between."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def _colour(rgb: tuple[float, float, float]) -> np.ndarray:
    """A colour as an array that broadcasts against maps."""
    return np.array(rgb, dtype=np.float32)[:, None, None]


def _absorb(scene: np.ndarray, *pigments: tuple[np.ndarray, tuple[float, ...]]) -> np.ndarray:
    """Light that pigments (density map, absorbance per unit) leave over, by Beer and Lambert."""
    return scene * np.exp(-sum(density * _colour(absorbance) for density, absorbance in pigments))


def _bare_skin(stage: _Stage) -> np.ndarray:
    """Skin without a lesion: mottling, blood, and a faint mesh of furrows."""
    tone, redness = stage.skin.tone, stage.skin.redness
    cells = (4, 10), (5, 13), (40,)
    mottling, flush, mesh = (_noise(stage.rng, stage.side_px, *counts) for counts in cells)
    # Thin lines where smooth noise crosses zero look like the furrows between skin fields.
    furrows = np.exp(-((mesh / 0.22) ** 2))
    melanin = 0.04 * mottling + 0.06 * (0.5 + tone) * furrows
    blood = 0.03 + 0.22 * redness + (0.02 + 0.05 * redness) * flush
    base = (1.0 - tone) * _colour(LIGHT_SKIN_RGB) + tone * _colour(DARK_SKIN_RGB)
    return _absorb(base, (melanin, MELANIN_ABSORBANCE), (blood, BLOOD_ABSORBANCE))


def _add_lesion(stage: _Stage, scene: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Lay pigments over the skin, then whitish hazes."""
    # A regular border fades out, an irregular one is sharp, and both vary along their way.
    fade = 0.20 - 0.17 * stage.morphology.border_irregularity
    fade = fade * np.clip(1.0 + 0.5 * stage.textures[0], 0.3, 2.0)
    cover = _smooth_step(0.5 + 0.5 * depth / fade)
    inner = cover * _smooth_step(depth / 0.25)
    patches, globules = _colour_patches(stage), _globules(stage)
    veil = stage.morphology.veil * _patch(stage, stage.textures[2], 0.4, 0.85)
    melanin = _melanin(stage, depth) * _network(stage) * (1.0 - 0.6 * patches["red"])
    melanin += 0.7 * patches["dark_brown"] + 0.4 * globules
    black = 0.9 * patches["black"] + 0.35 * globules + 0.3 * veil
    blood = 0.03 + 0.8 * patches["red"]
    top = cover * (1.0 - 0.8 * patches["white"])
    scene = _absorb(scene, (top * melanin, MELANIN_ABSORBANCE), (top * black, BLACK_ABSORBANCE))
    scene = _absorb(scene, (cover * blood, BLOOD_ABSORBANCE))
    # The hazes lie below the surface, whose own pigment dims them.
    dimming = 1.0 - 0.4 * stage.skin.tone
    scene += 0.45 * inner * patches["white"] * (dimming * _colour(SCAR_RGB) - scene)
    haze = inner * np.maximum(0.45 * patches["blue_grey"], 0.7 * veil)
    scene += haze * (dimming * _colour(VEIL_RGB) - scene)
    return scene


def _melanin(stage: _Stage, depth: np.ndarray) -> np.ndarray:
    """Melanin of the ground colour: denser in the middle or, in asymmetric lesions, on a side."""
    asymmetry, angle_rad = stage.morphology.asymmetry, stage.random_angle_rad()
    slope = np.clip(math.cos(angle_rad) * stage.u + math.sin(angle_rad) * stage.v, -1.2, 1.2)
    variation = 0.22 * _smooth_step(depth) + 0.4 * asymmetry * slope
    variation += (0.08 + 0.12 * asymmetry) * stage.textures[2]
    return (0.42 + 0.85 * stage.morphology.darkness) * np.clip(1.0 + variation, 0.25, 2.0)


def _patch(stage: _Stage, texture: np.ndarray, farthest: float, reach: float) -> np.ndarray:
    """One ragged spot, 0..1, centred within `farthest` of the lesion centre (both in radii)."""
    distance, angle_rad = farthest * math.sqrt(stage.rng.uniform()), stage.random_angle_rad()
    u = stage.u - distance * math.cos(angle_rad)
    v = stage.v - distance * math.sin(angle_rad)
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
    return patches


def _network(stage: _Stage) -> np.ndarray:
    """Factor on the melanin, about 1: a honeycomb of brown lines around lighter holes."""
    # Three plane waves at 120 degrees add up to a lattice of spots, the holes; noise bends it.
    bend = (0.6 + 0.6 * stage.morphology.border_irregularity) * NETWORK_SPACING
    x, y = stage.x + bend * stage.textures[1], stage.y + bend * stage.textures[0]
    rad_per_side = 2.0 * math.pi / (NETWORK_SPACING * math.sqrt(0.75))
    waves = np.zeros_like(x)
    for third in range(3):
        angle_rad = stage.turn_rad + third * 2.0 * math.pi / 3.0
        cos, sin = rad_per_side * math.cos(angle_rad), rad_per_side * math.sin(angle_rad)
        waves += np.cos(cos * x + sin * y + stage.random_angle_rad())
    presence = np.clip(0.7 + 0.5 * stage.textures[2], 0.0, 1.0)
    lines = _smooth_step((0.9 - waves) / 1.8) - 0.55
    return 1.0 + 0.9 * stage.morphology.network * presence * lines


def _fill(stage: _Stage, outlines: np.ndarray) -> np.ndarray:
    """Share of each pixel, 0..1, within polygons of shape (count, corners, 2), in image sides."""
    # PIL draws hard edges, so it draws on a finer canvas.
    fineness = max(2, math.ceil(3 * MIN_RENDER_PX / stage.side_px))
    canvas = Image.new("L", (stage.side_px * fineness,) * 2)
    draw = ImageDraw.Draw(canvas)
    for outline in outlines:
        draw.polygon((outline * canvas.width).ravel().tolist(), fill=255)
    return np.asarray(canvas.reduce(fineness)) / np.float32(255.0)


def _globules(stage: _Stage) -> np.ndarray:
    """Dots and globules, 0..1: few and even in calm lesions, many and uneven in others."""
    rng, morphology = stage.rng, stage.morphology
    distance = 0.9 * stage.radius * np.sqrt(rng.uniform(size=MAX_GLOBULES))
    angle_rad = rng.uniform(0.0, 2.0 * math.pi, MAX_GLOBULES)
    unrest = (morphology.asymmetry + morphology.colour_variety) / 2.0
    size = 0.005 * np.exp((0.15 + 0.4 * unrest) * rng.standard_normal(MAX_GLOBULES))
    corner_rad = np.linspace(0.0, 2.0 * math.pi, 12, endpoint=False)
    x = distance * np.cos(angle_rad) + size * np.cos(corner_rad)[:, None] + stage.centre_x
    y = distance * np.sin(angle_rad) + size * np.sin(corner_rad)[:, None] + stage.centre_y
    count = 5 + round(unrest * (MAX_GLOBULES - 5))
    return _fill(stage, np.stack([x, y], axis=-1).swapaxes(0, 1)[:count])


def _add_hairs(stage: _Stage, scene: np.ndarray) -> np.ndarray:
    """Hairs as bent, tapering stripes across the image, most of them lying in one direction."""
    rng = stage.rng
    angle_rad = stage.random_angle_rad() + 0.55 * rng.standard_normal((MAX_HAIRS, 1))
    middle = rng.uniform(-0.1, 1.1, (MAX_HAIRS, 1, 2))
    length, sag, width = rng.uniform(size=(3, MAX_HAIRS, 1))
    # Each outline runs along one edge of the hair to its tip and back along the other.
    step = np.concatenate([np.linspace(-1.0, 1.0, 17), np.linspace(1.0, -1.0, 17)])
    edge = np.repeat([0.5, -0.5], 17) * (1.3 - 0.5 * step**2)
    along = (0.15 + 0.3 * length) * step
    across = 0.2 * (sag - 0.5) * (step**2 - 0.3) + (0.003 + 0.004 * width) * edge
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    hairs = middle + np.stack([cos * along - sin * across, sin * along + cos * across], axis=-1)
    shade = 0.88 * _fill(stage, hairs[: round(stage.skin.hairiness * MAX_HAIRS)])
    return scene + shade * (_colour(HAIR_RGB) - scene)


def _add_camera(stage: _Stage, scene: np.ndarray) -> np.ndarray:
    """Dim corners, at strong vignette the black rim of the lens tube, and grainy noise."""
    off_axis, vignette = np.hypot(stage.x - 0.5, stage.y - 0.5), stage.skin.vignette
    light = 1.0 - 0.45 * vignette * _smooth_step((off_axis - 0.15) / 0.6)
    light *= 1.0 - 0.95 * _smooth_step((off_axis - 0.78 + 0.24 * vignette) / 0.03)
    return scene * light * (1.0 + 0.014 * _noise(stage.rng, stage.side_px, 120))
