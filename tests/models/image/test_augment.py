"""Tests of the augmentation: what each setting does to an image, and what it never does."""

from dataclasses import replace

import numpy as np
import pytest
from helpers_image import STILL

from kaggle_pipeline.config.image import AugmentConfig

tf = pytest.importorskip("tensorflow")

import keras  # noqa: E402
from keras import ops  # noqa: E402

from kaggle_pipeline.models.image.input import augment  # noqa: E402
from kaggle_pipeline.models.image.input.augment import (  # noqa: E402
    affine_maps,
    augment_batch,
    augmentation_shapes,
    colour_maps,
    draw_augmentation,
)
from kaggle_pipeline.models.image.input.augment_ops import KERAS, change, with_augmentation  # noqa: E402

ALL = AugmentConfig()
ONE_EACH = {
    "dihedral": True,
    "rotation_degrees": 40.0,
    "zoom": 0.3,
    "shear_degrees": 15.0,
    "shift": 0.2,
    "brightness": 0.2,
    "contrast": 0.4,
    "saturation": 0.5,
    "hue_degrees": 40.0,
}


def noise(count=6, side=32, seed=0):
    """Noisy images, smooth enough that a small turn changes but does not scramble them."""
    small = np.random.default_rng(seed).integers(0, 256, (count, side // 4, side // 4, 3))
    return small.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)


def grey(value, count=64, side=24):
    return np.full((count, side, side, 3), value, np.uint8)


def changed(images, seed=(1, 0), **switched_on):
    """The images augmented with these settings alone, as a NumPy array."""
    return augment_batch(tf.constant(images), tf.constant(seed), replace(STILL, **switched_on))


def symmetries(image):
    return [np.rot90(side, k) for side in (image, image[:, ::-1]) for k in range(4)]


def test_all_switched_off_is_the_identity():
    images = noise()
    np.testing.assert_array_equal(changed(images), images)


@pytest.mark.parametrize("side", [31, 32])
def test_shape_and_dtype_are_kept_and_the_seed_decides(side):
    images = noise(side=32)[:, :side, :side]
    first, again, other_step, other_run = (
        augment_batch(tf.constant(images), tf.constant(seed), ALL)
        for seed in ([3, 7], [3, 7], [3, 8], [4, 7])
    )
    assert first.shape == images.shape and first.dtype == tf.uint8
    np.testing.assert_array_equal(first, again)
    for other in (images, other_step, other_run):
        assert (np.asarray(first) != np.asarray(other)).mean() > 0.5


def test_in_tf_data_it_gives_what_it_gives_eagerly():
    images = noise()
    stream = tf.data.Dataset.range(3).map(
        lambda step: augment_batch(tf.constant(images), tf.stack([5, step]), ALL),
        num_parallel_calls=2,
    )
    assert stream.element_spec == tf.TensorSpec(images.shape, tf.uint8)
    for step, found in enumerate(stream):
        eager = augment_batch(tf.constant(images), tf.constant([5, step]), ALL)
        np.testing.assert_array_equal(found, eager)


@pytest.mark.parametrize("setting", ONE_EACH)
def test_every_setting_does_something_of_its_own_to_each_image(setting):
    same = np.repeat(noise(count=1), 8, axis=0)
    found = np.asarray(changed(same, **{setting: ONE_EACH[setting]}))
    assert len(np.unique(found, axis=0)) >= (4 if setting == "dihedral" else 8)


@pytest.mark.parametrize("side", [15, 16])
def test_dihedral_alone_gives_the_eight_symmetries(side):
    image = np.random.default_rng(2).integers(0, 256, (side, side, 3)).astype(np.uint8)
    wanted = [view.tobytes() for view in symmetries(image)]
    assert len(set(wanted)) == 8
    found = np.asarray(changed(np.repeat(image[None], 200, axis=0), dihedral=True))
    counts = {view: 0 for view in wanted}
    for view in found:
        counts[view.tobytes()] += 1  # a KeyError: not a symmetry of the image
    assert min(counts.values()) >= 10  # of 25 expected


@pytest.mark.parametrize(
    "moves", [{"rotation_degrees": 180.0}, {"shift": 0.3}, {"zoom": 0.5}, {"shear_degrees": 30.0}]
)
def test_no_border_of_another_colour_moves_in(moves):
    np.testing.assert_array_equal(changed(grey(200), **moves), grey(200))


def test_rotation_stays_within_its_range():
    seed = tf.constant([0, 1])
    maps = np.asarray(affine_maps(500, 32, seed, replace(STILL, rotation_degrees=30.0)))
    degrees = np.rad2deg(np.arctan2(maps[:, 3], maps[:, 0]))
    assert -30 <= degrees.min() < -25 and 25 < degrees.max() <= 30
    np.testing.assert_allclose(np.hypot(maps[:, 0], maps[:, 3]), 1, rtol=1e-5)


def test_zoom_keeps_the_centre_and_stays_within_its_range():
    maps = np.asarray(affine_maps(500, 33, tf.constant([0, 1]), replace(STILL, zoom=0.25)))
    scale = 1 / maps[:, 0]
    assert 0.75 <= scale.min() < 0.8 and 1.2 < scale.max() <= 1.25
    np.testing.assert_allclose(maps[:, 0] * 16 + maps[:, 1] * 16 + maps[:, 2], 16, rtol=1e-5)
    np.testing.assert_allclose(maps[:, 3] * 16 + maps[:, 4] * 16 + maps[:, 5], 16, rtol=1e-5)


def test_shift_stays_within_its_share_of_the_side():
    maps = np.asarray(affine_maps(500, 40, tf.constant([0, 1]), replace(STILL, shift=0.1)))
    moved = maps[:, [2, 5]]
    assert 3.5 < np.abs(moved).max() <= 4 and moved.min() < 0 < moved.max()


def test_brightness_stays_within_its_range():
    found = np.asarray(changed(grey(128), brightness=0.1)).astype(int)
    assert np.ptp(found, axis=(1, 2, 3)).max() == 0  # a whole image at once
    difference = found[:, 0, 0, 0] - 128
    assert -26 <= difference.min() < -15 and 15 < difference.max() <= 26


def test_contrast_is_about_middle_grey():
    found = np.asarray(changed(grey(228), contrast=0.2)).astype(int)
    middle = np.asarray(changed(grey(127), contrast=0.2)).astype(int)
    assert 127.5 + 0.8 * 100.5 - 1 <= found.min() < 215 and 240 < found.max() <= 249
    assert np.abs(middle - 127).max() <= 1


@pytest.mark.parametrize("value", [0, 255])
def test_extremes_saturate_and_never_wrap_round(value):
    found = np.asarray(changed(grey(value), brightness=0.1, contrast=0.1)).astype(int)
    assert np.abs(found - value).max() <= 0.1 * 255 + 0.1 * 127.5 + 1


def test_hue_and_saturation_keep_grey_grey():
    config = replace(STILL, hue_degrees=180.0, saturation=0.9)
    matrices, offsets = colour_maps(50, tf.constant([0, 1]), config)
    np.testing.assert_allclose(np.asarray(matrices).sum(axis=2), 1, atol=1e-5)
    np.testing.assert_allclose(offsets, 0, atol=1e-4)
    found = changed(grey(90), hue_degrees=180.0, saturation=0.9)
    np.testing.assert_array_equal(found, grey(90))


def test_hue_turns_colours_about_the_grey_axis():
    matrices, _ = colour_maps(200, tf.constant([0, 1]), replace(STILL, hue_degrees=30.0))
    matrices = np.asarray(matrices, float)
    np.testing.assert_allclose(
        matrices @ matrices.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (200, 3, 3)), atol=1e-5
    )
    degrees = np.rad2deg(np.arccos(np.clip((np.trace(matrices, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert 27 < degrees.max() <= 30.01


def test_saturation_keeps_the_luma():
    matrices, _ = colour_maps(50, tf.constant([0, 1]), replace(STILL, saturation=0.9))
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(luma @ np.asarray(matrices), np.tile(luma, (50, 1)), atol=1e-5)


def test_dropout_paints_grey_boxes_of_their_size():
    side, boxes, share = 40, 2, 0.2
    found = np.asarray(changed(grey(0, 200, side), dropout_boxes=boxes, dropout_size=share))
    assert set(np.unique(found)) == {0, 128}
    painted = (found[..., 0] == 128).sum(axis=(1, 2))
    assert painted.max() <= boxes * (side * share + 1) ** 2
    # A box whose centre is in the corner still paints a quarter of itself.
    assert painted.min() >= (side * share / 2 - 1) ** 2
    assert len(np.unique(painted)) > 10
    one = (
        np.asarray(changed(grey(0, 200, side), dropout_boxes=1, dropout_size=share))[..., 0] == 128
    )
    for box in one:
        rows, columns = np.nonzero(box)
        assert box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()


@pytest.mark.parametrize("off", [{"dropout_boxes": 3}, {"dropout_size": 0.3}])
def test_no_boxes_or_boxes_of_no_size_paint_nothing(off):
    images = noise()
    np.testing.assert_array_equal(changed(images, **off), images)


def test_large_images_go_another_way_to_the_same_pixels(monkeypatch):
    images, seed = tf.constant(noise(count=4, side=128)), tf.constant([1, 2])
    compiled = np.asarray(augment_batch(images, seed, ALL)).astype(int)
    monkeypatch.setattr(augment, "_COMPILED_FROM_PX", 1000)
    plain = np.asarray(augment_batch(images, seed, ALL)).astype(int)
    assert np.abs(compiled - plain).max() <= 1
    assert (compiled != plain).mean() < 1e-3  # where a half is rounded
    assert (np.abs(plain - np.asarray(images)) > 10).mean() > 0.3


@pytest.mark.parametrize("side", [31, 32])
def test_the_device_makes_of_the_draws_what_the_host_does(side):
    images, seed = noise(side=32)[:, :side, :side], tf.constant([4, 2])
    host = np.asarray(augment_batch(tf.constant(images), seed, ALL)).astype(int)
    drawn = draw_augmentation(len(images), side, seed, ALL)
    assert {name: tuple(draw.shape[1:]) for name, draw in drawn.items()} == augmentation_shapes(ALL)
    given = {name: ops.convert_to_tensor(np.asarray(draw)) for name, draw in drawn.items()}
    device = change(ops.convert_to_tensor(images), given, KERAS, ALL.dropout_size)
    device = ops.convert_to_numpy(device).astype(int)
    assert np.abs(device - host).max() <= 1 and (device != host).mean() < 1e-3


def test_what_is_switched_off_is_not_drawn():
    assert augmentation_shapes(STILL) == {} == draw_augmentation(2, 32, tf.constant([1, 2]), STILL)
    only = replace(STILL, hue_degrees=5.0)
    assert set(draw_augmentation(2, 32, tf.constant([1, 2]), only)) == {"colour"}


def test_a_network_that_changes_its_images_answers_to_the_changed_ones():
    pixels = keras.Input((16, 16, 3), dtype="uint8", name="image")
    network = keras.Model(pixels, keras.layers.Flatten()(ops.cast(pixels, "float32")))
    model = with_augmentation(network, ALL.dropout_size, augmentation_shapes(ALL))
    assert [weight.path for weight in model.weights] == [weight.path for weight in network.weights]
    images, seed = noise(count=3, side=16), tf.constant([1, 2])
    drawn = draw_augmentation(3, 16, seed, ALL)
    given = {name: np.asarray(draw) for name, draw in drawn.items()}
    found = ops.convert_to_numpy(model({"image": images, **given}))
    wanted = np.asarray(augment_batch(tf.constant(images), seed, ALL), float)
    assert np.abs(found.reshape(wanted.shape) - wanted).max() <= 1
