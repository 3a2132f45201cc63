"""Tests of the procedural lesion images: each parameter must show in what it is named after."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from kaggle_pipeline.synthetic.lesion_painter import Morphology, Skin, draw_lesion

CALM = Morphology(
    asymmetry=0.1,
    border_irregularity=0.1,
    colour_variety=0.1,
    diameter=0.45,
    darkness=0.4,
    network=0.4,
    veil=0.0,
)
SUSPICIOUS = Morphology(0.8, 0.8, 0.9, 0.5, 0.6, 0.4, 0.6)
BARE_SKIN = Skin(tone=0.2, redness=0.3, hairiness=0.0, vignette=0.0)
SEEDS = range(5)


@cache
def draw(morphology=CALM, skin=BARE_SKIN, size_px=96, seed=0):
    """Draw with defaults; every test shares these images, so none may change them."""
    return draw_lesion(morphology, skin, size_px, np.random.default_rng(seed))


def mean_over_seeds(measure, morphology=CALM, skin=BARE_SKIN):
    """Mean of `measure(image, mask)`; the same seeds give the same lesions every time."""
    return np.mean([measure(*draw(morphology, skin, seed=seed)) for seed in SEEDS])


def mirror_mismatch(_image, mask):
    """Share of the lesion that its best mirror image (any axis through the centroid) misses."""
    rows, columns = np.nonzero(mask)
    offsets = (columns - columns.mean()) + 1j * (rows - rows.mean())
    shares = []
    for axis_rad in np.arange(0.0, np.pi, np.pi / 12):
        mirrored = np.conj(offsets) * np.exp(2j * axis_rad)
        mirrored_rows = np.rint(mirrored.imag + rows.mean()).astype(int)
        mirrored_columns = np.rint(mirrored.real + columns.mean()).astype(int)
        inside = np.clip([mirrored_rows, mirrored_columns], 0, mask.shape[0] - 1)
        shares.append(1.0 - mask[inside[0], inside[1]].mean())
    return min(shares)


def half_turn_mismatch(_image, mask):
    """Share of the lesion that misses its own rotation by 180 degrees about the centroid."""
    rows, columns = np.nonzero(mask)
    turned = np.rint([2 * rows.mean() - rows, 2 * columns.mean() - columns]).astype(int)
    turned = np.clip(turned, 0, mask.shape[0] - 1)
    return 1.0 - mask[turned[0], turned[1]].mean()


def compactness(_image, mask):
    """Perimeter (edges between pixels) squared over area; 16 for an upright square."""
    perimeter_px = np.sum(mask[1:] != mask[:-1]) + np.sum(mask[:, 1:] != mask[:, :-1])
    return perimeter_px**2 / mask.sum()


def colour_spread(image, mask):
    """Root of the summed variances of red, green and blue well within the lesion."""
    inner = ndimage.binary_erosion(mask, iterations=4)
    return np.sqrt(image[inner].astype(float).var(axis=0).sum())


def blueness(image, mask):
    """Mean blue minus mean red of the lesion."""
    red, _, blue = image[mask].astype(float).mean(axis=0)
    return blue - red


def brightness_step(image, mask):
    """Mean brightness of the skin around the lesion minus that of the lesion."""
    around = ndimage.binary_dilation(mask, iterations=14) & ~ndimage.binary_dilation(
        mask, iterations=5
    )
    return image[around].mean() - image[mask].mean()


def thin_dark_share(image, mask):
    """Share of the skin outside the lesion that a closing wider than a hair brightens a lot."""
    grey = image.astype(float).mean(axis=2)
    closed = ndimage.minimum_filter(ndimage.maximum_filter(grey, 5), 5)
    thin = closed - grey > 30.0
    return thin[~ndimage.binary_dilation(mask, iterations=5)].mean()


def test_same_generator_state_gives_same_lesion():
    """Equal seeds give equal pixels, other seeds other ones."""
    image, mask = draw(SUSPICIOUS, seed=3)
    rng = np.random.default_rng(3)
    image_again, mask_again = draw_lesion(SUSPICIOUS, BARE_SKIN, 96, rng)
    np.testing.assert_array_equal(image, image_again)
    np.testing.assert_array_equal(mask, mask_again)
    assert (image != draw(SUSPICIOUS, seed=4)[0]).mean() > 0.5


def test_number_of_draws_depends_on_no_argument():
    """A series of lesions stays comparable when one of them changes."""
    states = []
    for morphology, skin, size_px in (
        (CALM, BARE_SKIN, 16),
        (SUSPICIOUS, Skin(0.7, 0.1, 1.0, 1.0), 150),
    ):
        rng = np.random.default_rng(5)
        draw_lesion(morphology, skin, size_px, rng)
        states.append(rng.bit_generator.state)
    assert states[0] == states[1]


@pytest.mark.parametrize("size_px", [16, 33, 64, 97, np.int64(130)])
def test_shape_and_dtype(size_px):
    """Even, odd and numpy sizes give arrays of just that size."""
    image, mask = draw(SUSPICIOUS, size_px=size_px)
    assert image.shape == (size_px, size_px, 3)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert mask.shape == (size_px, size_px)
    assert mask.dtype == bool
    assert 0.05 < mask.mean() < 0.5


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_extreme_parameters_are_drawn(value):
    """All parameters at an end of their range still give an image."""
    image, mask = draw(Morphology(*[value] * 7), Skin(*[value] * 4), size_px=64)
    assert image.std() > 1.0
    assert mask.mean() == pytest.approx(np.pi / 4 * value, abs=0.15)


@pytest.mark.parametrize("diameter", [0.25, 0.5, 0.7])
@pytest.mark.parametrize("base", [CALM, SUSPICIOUS], ids=["calm", "suspicious"])
def test_mask_area_is_that_of_the_disc_of_the_diameter(base, diameter):
    """The outline may bend and fray, but keeps the area that the diameter states."""
    area = mean_over_seeds(lambda _, mask: mask.mean(), replace(base, diameter=diameter))
    assert area == pytest.approx(np.pi / 4 * diameter**2, rel=0.12)


@pytest.mark.parametrize("tone", [0.0, 1.0])
@pytest.mark.parametrize("base", [CALM, SUSPICIOUS], ids=["calm", "suspicious"])
def test_lesion_is_darker_than_the_skin_around_it(base, tone):
    """This holds for every seed, on dark skin and under veils too."""
    skin = replace(BARE_SKIN, tone=tone)
    steps = [brightness_step(*draw(base, skin, seed=seed)) for seed in SEEDS]
    assert min(steps) > 8.0


def test_darkness_darkens_the_lesion():
    """More darkness deepens the step in brightness at the border."""
    light, dark = (
        mean_over_seeds(brightness_step, replace(CALM, darkness=level)) for level in (0.1, 0.9)
    )
    assert dark > light + 20.0


def test_tone_darkens_the_skin():
    """Tone shows outside the lesion."""
    light, dark = (
        mean_over_seeds(lambda image, mask: image[~mask].mean(), skin=replace(BARE_SKIN, tone=tone))
        for tone in (0.0, 1.0)
    )
    assert dark < light - 60.0


@pytest.mark.parametrize("measure", [mirror_mismatch, half_turn_mismatch])
def test_asymmetry_shows_in_the_outline(measure):
    """Mirror images and half turns cover asymmetric lesions worse."""
    levels = [mean_over_seeds(measure, replace(CALM, asymmetry=a)) for a in (0.0, 0.5, 1.0)]
    assert levels[0] < 0.05
    assert levels[0] + 0.01 < levels[1] < levels[2] - 0.01


def test_border_irregularity_lengthens_the_border():
    """Perimeter squared over area rises."""
    levels = [
        mean_over_seeds(compactness, replace(CALM, border_irregularity=b)) for b in (0.0, 0.5, 1.0)
    ]
    assert levels[0] * 1.15 < levels[1]
    assert levels[1] * 1.15 < levels[2]


def test_colour_variety_spreads_the_colours():
    """The colours within the lesion lie farther apart."""
    levels = [
        mean_over_seeds(colour_spread, replace(CALM, colour_variety=c)) for c in (0.0, 0.5, 1.0)
    ]
    assert levels[0] * 1.3 < levels[1]
    assert levels[1] * 1.1 < levels[2]


def test_veil_makes_the_lesion_bluer():
    """Blue gains on red."""
    levels = [mean_over_seeds(blueness, replace(CALM, veil=veil)) for veil in (0.0, 0.5, 1.0)]
    assert levels[0] + 4.0 < levels[1] < levels[2] - 4.0


def test_network_adds_fine_contrast_within_the_lesion():
    """The lines of the network show at the scale of a few pixels."""

    def fine_contrast(image, mask):
        grey = image.astype(float).mean(axis=2)
        inner = ndimage.binary_erosion(mask, iterations=4)
        return (grey - ndimage.gaussian_filter(grey, 2.0))[inner].std()

    without, with_network = (
        mean_over_seeds(fine_contrast, replace(CALM, network=network)) for network in (0.0, 1.0)
    )
    assert with_network > 1.5 * without


def test_hairs_are_thin_and_dark_and_leave_the_mask_alone():
    """Hairs hide neither the skin at large nor the truth about the lesion."""
    levels = [
        mean_over_seeds(thin_dark_share, skin=replace(BARE_SKIN, hairiness=hairiness))
        for hairiness in (0.0, 0.4, 1.0)
    ]
    assert levels[0] < 0.001
    assert levels[0] + 0.01 < levels[1] < levels[2] - 0.01
    hairy = draw(skin=replace(BARE_SKIN, hairiness=1.0))
    np.testing.assert_array_equal(hairy[1], draw()[1])


def test_vignette_darkens_the_corners_but_not_the_middle():
    """At full strength the corners are nearly black."""
    plain, dim = (draw(skin=replace(BARE_SKIN, vignette=v))[0].astype(float) for v in (0.0, 1.0))
    assert dim[:4, :4].mean() < 0.3 * plain[:4, :4].mean()
    assert dim[44:52, 44:52].mean() == pytest.approx(plain[44:52, 44:52].mean(), rel=0.02)


@pytest.mark.parametrize("base", [CALM, SUSPICIOUS], ids=["calm", "suspicious"])
def test_same_lesion_at_64_and_256_px(base):
    """One generator state is one lesion, whatever the resolution."""
    skin = replace(BARE_SKIN, hairiness=0.5, vignette=0.6)
    for seed in range(3):
        small, small_mask = draw(base, skin, 64, seed)
        large, large_mask = draw(base, skin, 256, seed)
        shrunk = np.asarray(Image.fromarray(large).reduce(4), dtype=float)
        assert np.corrcoef(small.ravel(), shrunk.ravel())[0, 1] > 0.97
        shrunk_mask = large_mask.reshape(64, 4, 64, 4).mean(axis=(1, 3)) >= 0.5
        assert (small_mask & shrunk_mask).sum() > 0.93 * (small_mask | shrunk_mask).sum()
        other = draw(base, skin, 64, seed + 100)[0]
        assert np.corrcoef(other.ravel(), shrunk.ravel())[0, 1] < 0.93


@pytest.mark.parametrize("size_px", [15, 0, -64, 64.0, "64", None, True])
def test_bad_size_is_refused(size_px):
    """Too small, or not a whole number."""
    with pytest.raises(ValueError, match="size_px"):
        draw(size_px=size_px)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_parameters_outside_the_unit_range_are_refused(value):
    """Both dataclasses are checked, NaN included."""
    with pytest.raises(ValueError, match="veil"):
        draw(replace(CALM, veil=value))
    with pytest.raises(ValueError, match="tone"):
        draw(skin=replace(BARE_SKIN, tone=value))
