"""Tests of the input pipeline: every image finds its row by id, as often as asked and in order."""

import io
from dataclasses import replace

import numpy as np
import pytest
from helpers_image import make_examples, tiny_config, to_jpeg, write_payloads, write_records
from PIL import Image

from kaggle_pipeline.config.image import AugmentConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.datasets.synthetic import SPEC
from kaggle_pipeline.records.tfrecords import encode_record, parse_id_and_image

tf = pytest.importorskip("tensorflow")

from keras import ops  # noqa: E402

from kaggle_pipeline.models.image.input import pipeline as module  # noqa: E402
from kaggle_pipeline.models.image.input import record_reader  # noqa: E402
from kaggle_pipeline.models.image.input.augment_ops import KERAS, change  # noqa: E402
from kaggle_pipeline.models.image.input.batch_spec import batch_spec  # noqa: E402
from kaggle_pipeline.models.image.input.pipeline import (  # noqa: E402
    Source,
    TrainingRows,
    decode_photo,
    prediction_batches,
    reading_errors,
    training_batches,
)
from kaggle_pipeline.models.image.input.record_reader import PADDING  # noqa: E402
from kaggle_pipeline.models.image.network import build_network  # noqa: E402

COUNT = 13
EXAMPLES = make_examples(COUNT)
IDS = EXAMPLES.index.to_numpy()
RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)


def grey_of(number):
    """The shade that tells image ``number`` from the others."""
    return 12 + 18 * number


def number_of(images):
    """Which images these are, by their shade."""
    shades = np.asarray(images, float).mean(axis=(1, 2, 3))
    numbers = (shades - 12) / 18
    assert np.abs(numbers - np.rint(numbers)).max(initial=0) < 0.2
    return np.rint(numbers).astype(int)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """13 images in 3 shards, each a grey of its own."""
    jpegs = {image_id: to_jpeg([grey_of(i)] * 3) for i, image_id in enumerate(IDS)}
    paths = write_records(tmp_path_factory.mktemp("records"), EXAMPLES, jpegs, SPEC)
    return Source(SPEC, paths, image_size_px=32)


def one_record(folder, jpeg, **options):
    """A source of a single image."""
    payload = encode_record(IDS[0], EXAMPLES.iloc[0], jpeg, SPEC)
    path = write_payloads(folder / "train00-1.tfrec", [payload])
    return Source(SPEC, [path], **{"image_size_px": 32, **options})


def only_image(source):
    (batch,) = prediction_batches(source, IDS[:1], 1)
    return batch["image"].numpy()[0].astype(int)


def collect(stream):
    """The rows and images of a prediction stream, without the filling."""
    batches = [(batch["row"].numpy(), batch["image"].numpy()) for batch in stream]
    rows = np.concatenate([rows for rows, _ in batches])
    images = np.concatenate([images for _, images in batches])
    return rows, images


class TestPrediction:
    """Every id once."""

    @pytest.mark.parametrize("batch_size", [1, 4, COUNT, 32])
    def test_every_id_comes_once_and_filling_is_flagged(self, source, batch_size):
        stream = prediction_batches(source, IDS, batch_size)
        assert stream.element_spec["image"].shape == (batch_size, 32, 32, 3)
        assert stream.element_spec["row"].shape == (batch_size,)
        rows, images = collect(stream)
        real = rows != PADDING
        assert len(rows) == -(-COUNT // batch_size) * batch_size
        assert sorted(rows[real]) == list(range(COUNT))
        np.testing.assert_array_equal(number_of(images[real]), rows[real])
        assert not images[~real].any()

    def test_rows_are_positions_in_the_ids_asked_for(self, source):
        wanted = np.array([7, 2, 11])
        rows, images = collect(prediction_batches(source, IDS[wanted], 2))
        real = rows != PADDING
        assert sorted(rows[real]) == [0, 1, 2]
        np.testing.assert_array_equal(number_of(images[real]), wanted[rows[real]])

    def test_the_order_of_the_shards_changes_nothing(self, source):
        by_row = []
        for shards in (source.shards, source.shards[::-1]):
            rows, images = collect(prediction_batches(replace(source, shards=shards), IDS, 1))
            by_row.append(images[np.argsort(rows)])
        np.testing.assert_array_equal(*by_row)

    def test_an_unwanted_image_is_not_decoded(self, source, tmp_path):
        payload = encode_record("broken", EXAMPLES.iloc[0], b"no jpeg", SPEC)
        broken = write_payloads(tmp_path / "train09-1.tfrec", [payload])
        both = replace(source, shards=[broken, *source.shards])
        rows, _ = collect(prediction_batches(both, IDS, 4))
        assert sorted(rows[rows >= 0]) == list(range(COUNT))
        with pytest.raises(tf.errors.InvalidArgumentError):
            collect(prediction_batches(both, [*IDS, "broken"], 4))

    def test_an_id_that_is_not_there_leaves_its_row_out(self, source):
        rows, _ = collect(prediction_batches(source, ["nobody", IDS[4]], 2))
        assert sorted(rows) == [PADDING, 1]


class TestDecoding:
    """JPEG to square."""

    def test_a_fitting_image_is_decoded_as_pillow_does(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).repeat(4, 0).repeat(4, 1)
        jpeg = to_jpeg(pixels)
        found = only_image(one_record(tmp_path, jpeg))
        wanted = np.asarray(Image.open(io.BytesIO(jpeg))).astype(int)
        assert np.abs(found - wanted).max() <= 2

    @pytest.mark.parametrize(("swap", "colour"), [(False, RED), (True, BLUE)])
    def test_red_and_blue_are_swapped_where_asked(self, tmp_path, swap, colour):
        found = only_image(one_record(tmp_path, to_jpeg(RED), swap_red_blue=swap))
        assert np.abs(found - np.array(colour)).max() <= 4

    @pytest.mark.parametrize("size", [16, 32, 48])
    @pytest.mark.parametrize("upright", [False, True])
    def test_the_central_square_of_another_shape_is_resized(self, tmp_path, size, upright):
        pixels = np.full((32, 64, 3), GREEN, np.uint8)
        pixels[:, 16:32], pixels[:, 32:48] = RED, BLUE
        pixels = pixels.transpose(1, 0, 2) if upright else pixels
        found = only_image(one_record(tmp_path, to_jpeg(pixels), image_size_px=size))
        found = found.transpose(1, 0, 2) if upright else found
        assert found.shape == (size, size, 3)
        middle = size // 2
        for part, colour in ((found[:, 1 : middle - 3], RED), (found[:, middle + 3 : -1], BLUE)):
            assert np.abs(part - np.array(colour)).max() < 25

    @pytest.mark.parametrize(("width", "size"), [(96, 48), (200, 48), (96, 30), (50, 48)])
    def test_an_image_shrunk_by_its_decoder_is_that_shrunk_afterwards(self, tmp_path, width, size):
        places = np.mgrid[0:96, 0:width] / 15
        waves = 128 + 60 * np.stack([np.sin(places[0]), np.sin(places[1]), np.cos(sum(places))], -1)
        jpeg = to_jpeg(waves)
        found = only_image(one_record(tmp_path, jpeg, image_size_px=size))
        edge = min(96, width)
        left, top = (width - edge) // 2, (96 - edge) // 2
        square = Image.open(io.BytesIO(jpeg)).crop((left, top, left + edge, top + edge))
        wanted = np.asarray(square.resize((size, size), Image.Resampling.BOX)).astype(int)
        # A hundredth of the range: filters differ, a shift by a pixel would be ten times that.
        assert np.abs(found - wanted)[2:-2, 2:-2].mean() < 2.5

    @pytest.mark.parametrize("first", [32, 64, 40])
    def test_the_first_images_size_decides_nothing_for_the_others(self, tmp_path, first):
        sizes = [(first, first), (32, 32), (64, 64), (48, 64), (64, 65), (30, 30)]
        payloads = [
            encode_record(image_id, EXAMPLES.iloc[0], to_jpeg(np.full((*size, 3), RED)), SPEC)
            for image_id, size in zip(IDS, sizes, strict=False)
        ]
        path = write_payloads(tmp_path / f"train00-{len(sizes)}.tfrec", payloads)
        source = Source(SPEC, [path], image_size_px=32)
        rows, images = collect(prediction_batches(source, IDS[: len(sizes)], 3))
        assert list(rows) == list(range(len(sizes)))
        assert np.abs(images.astype(int) - np.array(RED)).max() <= 4

    def test_a_damaged_first_shard_is_told_in_one_line(self, tmp_path):
        path = tmp_path / "train00-1.tfrec"
        path.write_bytes(b"no record" * 10)
        batches = prediction_batches(Source(SPEC, [path], image_size_px=32), IDS[:1], 1)
        with pytest.raises(PipelineError, match="a record cannot be read"), reading_errors():
            list(batches)

    def test_a_second_photo_traces_nothing(self, monkeypatch):
        jpeg = to_jpeg(RED)
        first = decode_photo(jpeg, 24)
        monkeypatch.setattr(
            "kaggle_pipeline.models.image.input.decode.partial", None
        )  # a trace would call it
        np.testing.assert_array_equal(decode_photo(jpeg, 24), first)

    def test_shrinking_is_antialiased(self, tmp_path):
        stripes = np.zeros((64, 64, 3), np.uint8)
        stripes[:, ::2] = 255
        found = only_image(one_record(tmp_path, to_jpeg(stripes, quality=100), image_size_px=16))
        assert np.abs(found[2:-2, 2:-2] - 127.5).max() < 20


def rows_of(repeats=None):
    """Training rows whose target and weight tell the image's number."""
    return TrainingRows(
        ids=IDS,
        targets=np.arange(COUNT, dtype=np.float32)[:, None] / 16,
        weights=np.arange(COUNT, dtype=np.float32) + 100,
        repeats=np.ones(COUNT, np.int64) if repeats is None else np.asarray(repeats),
    )


def stream_of(
    source,
    rows,
    *,
    first_epoch=0,
    epochs=3,
    batch_size=4,
    steps=None,
    seed=1,
    on_device=False,
    **changes,
):
    """All batches, as a ``tf.data.Dataset``."""
    return training_batches(
        source,
        rows,
        tiny_config(**{"epochs": epochs, "cache_mb": 0, **changes}),
        batch_size=batch_size,
        steps_per_epoch=steps or rows.shown // batch_size,
        first_epoch=first_epoch,
        seed=seed,
        on_device=on_device,
    )


def train(source, rows, **options):
    """All batches, as a list with one (images, targets, weights) of NumPy arrays a step."""
    return list(stream_of(source, rows, **options).as_numpy_iterator())


def numbers_by_epoch(batches, epochs):
    numbers = np.concatenate([number_of(images) for images, _, _ in batches])
    return np.split(numbers, epochs)


class TestTraining:
    """The endless, repeatable stream."""

    repeats = np.array([1, 3] * 6 + [1])  # 25 images shown

    @pytest.mark.parametrize("cache_mb", [0, 1])
    def test_an_epoch_shows_each_image_as_often_as_asked(self, source, cache_mb):
        rows = rows_of(self.repeats)
        batches = train(source, rows, batch_size=5, cache_mb=cache_mb)
        assert len(batches) == 3 * 5
        for numbers in numbers_by_epoch(batches, 3):
            np.testing.assert_array_equal(np.bincount(numbers, minlength=COUNT), self.repeats)

    def test_an_epoch_longer_than_the_data_goes_round_again(self, source):
        batches = train(source, rows_of(self.repeats), batch_size=5, steps=10, epochs=2)
        for numbers in numbers_by_epoch(batches, 2):
            np.testing.assert_array_equal(np.bincount(numbers, minlength=COUNT), 2 * self.repeats)
            assert not np.array_equal(numbers[:25], numbers[25:])

    def test_a_row_repeated_no_times_is_never_shown(self, source):
        repeats = np.ones(COUNT, int)
        repeats[5] = 0
        (numbers,) = numbers_by_epoch(train(source, rows_of(repeats), epochs=1), 1)
        assert sorted(numbers) == [i for i in range(COUNT) if i != 5]

    def test_targets_and_weights_follow_the_image(self, source):
        for images, targets, weights in train(source, rows_of(self.repeats)):
            assert images.shape == (4, 32, 32, 3) and images.dtype == np.uint8
            numbers = number_of(images)
            np.testing.assert_array_equal(targets, numbers[:, None].astype(np.float32) / 16)
            np.testing.assert_array_equal(weights, numbers + np.float32(100))

    @pytest.mark.parametrize(("first", "cache_mb"), [(1, 0), (2, 1)])
    def test_a_fresh_start_at_an_epoch_sees_what_an_uninterrupted_run_sees(
        self, source, first, cache_mb
    ):
        rows = rows_of(self.repeats)
        options = {"batch_size": 4, "steps": 6, "augment": AugmentConfig(), "cache_mb": cache_mb}
        whole = train(source, rows, **options)
        rest = train(source, rows, first_epoch=first, **options)
        assert len(rest) == (3 - first) * 6
        for batch, again in zip(whole[first * 6 :], rest, strict=True):
            for part, part_again in zip(batch, again, strict=True):
                np.testing.assert_array_equal(part, part_again)

    @pytest.mark.parametrize("at_once", [1, 3, 32])
    def test_records_looked_up_together_are_shown_as_often(self, source, monkeypatch, at_once):
        monkeypatch.setattr(record_reader, "_AT_ONCE", at_once)
        for numbers in numbers_by_epoch(train(source, rows_of(self.repeats), batch_size=5), 3):
            np.testing.assert_array_equal(np.bincount(numbers, minlength=COUNT), self.repeats)

    def test_images_in_memory_come_in_the_order_of_those_that_are_read(self, source):
        read, decoded = (
            numbers_by_epoch(train(source, rows_of(self.repeats), batch_size=5, cache_mb=mb), 3)
            for mb in (0, 1)
        )
        np.testing.assert_array_equal(read, decoded)

    @pytest.mark.parametrize("cache_mb", [0, 1])
    def test_an_epoch_shorter_than_the_data_gives_each_image_the_same_chance(
        self, source, cache_mb
    ):
        epochs, steps = 400, 1
        options = {"epochs": epochs, "steps": steps, "batch_size": 4, "cache_mb": cache_mb}
        numbers = np.concatenate(
            numbers_by_epoch(train(source, rows_of(self.repeats), **options), epochs)
        )
        shares = 4 * self.repeats / self.repeats.sum()  # expected an epoch
        found = np.bincount(numbers, minlength=COUNT) / epochs
        # Four deviations of a mean of `epochs` Poisson draws.
        assert (np.abs(found - shares) < 4 * np.sqrt(shares / epochs)).all()

    @pytest.mark.parametrize("cache_mb", [0, 1])
    def test_an_image_without_a_record_is_named(self, source, cache_mb):
        rows = rows_of()
        rows = replace(rows, ids=np.where(rows.ids == IDS[4], "nobody", rows.ids))
        with pytest.raises(PipelineError, match=r"hold no image nobody \(1 missing\)"):
            train(source, rows, cache_mb=cache_mb)

    def test_a_damaged_record_is_told_before_the_first_step(self, source, tmp_path):
        *whole, last = source.shards
        damaged = tmp_path / last.name
        content = bytearray(last.read_bytes())
        content[-100] ^= 1
        damaged.write_bytes(content)
        with pytest.raises(PipelineError, match="a record cannot be read"), reading_errors():
            stream_of(replace(source, shards=[*whole, damaged]), rows_of())

    def test_many_shards_are_looked_through_by_one_graph(self, tmp_path, monkeypatch):
        jpeg, traced = to_jpeg(RED), []

        def parse_and_count(spec):
            parse = parse_id_and_image(spec)
            return lambda records: traced.append(1) or parse(records)

        monkeypatch.setattr(record_reader, "parse_id_and_image", parse_and_count)
        shards = []
        for i, image_id in enumerate(IDS):
            payload = encode_record(image_id, EXAMPLES.iloc[i], jpeg, SPEC)
            shards.append(write_payloads(tmp_path / f"train{i:02d}-1.tfrec", [payload]))
        rows = record_reader.read_by_row(shards, SPEC, IDS)(tf.data.Dataset.range(COUNT))
        assert [int(row) for row, _ in rows] == list(range(COUNT))
        assert len(traced) <= 4  # not once a shard, for 0.07 s each

    def test_a_shard_given_twice_changes_nothing(self, source):
        once, twice = (
            np.concatenate(numbers_by_epoch(train(replace(source, shards=shards), rows_of()), 3))
            for shards in (source.shards, [*source.shards, source.shards[0]])
        )
        np.testing.assert_array_equal(once, twice)

    def test_an_id_twice_is_refused(self, source):
        with pytest.raises(PipelineError, match="asked for twice"):
            prediction_batches(source, [IDS[0], IDS[0]], 1)

    def test_the_seed_decides_the_order(self, source):
        first, again, other = (
            np.concatenate(numbers_by_epoch(train(source, rows_of(), seed=seed), 3))
            for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_epochs_differ_in_order_and_are_mixed(self, source):
        orders = numbers_by_epoch(train(source, rows_of(), batch_size=COUNT), 3)
        for i, order in enumerate(orders):
            assert sorted(order) == list(range(COUNT))
            assert not any(np.array_equal(order, other) for other in orders[:i])

    def test_the_same_image_is_augmented_anew_in_every_step(self, source):
        batches = train(source, rows_of(), batch_size=COUNT, augment=AugmentConfig(brightness=0.3))
        shades = [np.sort(images.mean(axis=(1, 2, 3))) for images, _, _ in batches]
        assert np.abs(shades[0] - shades[1]).max() > 5

    def test_images_that_fit_are_decoded_once(self, source, monkeypatch):
        decoded, whole = [], module.decoder

        def counted(*shape):
            decode = whole(*shape)

            def count(row, jpeg):
                tf.py_function(lambda one: decoded.append(int(one)), [row], [])
                return decode(row, jpeg)

            return count

        monkeypatch.setattr(module, "decoder", counted)
        for cache_mb, times in ((0, 3), (1, 1)):
            decoded.clear()
            train(source, rows_of(), batch_size=COUNT, cache_mb=cache_mb)
            assert np.bincount(decoded).tolist() == [times] * COUNT

    @pytest.mark.parametrize("cache_mb", [0, 256])
    def test_no_state_keeps_its_parts_from_running_side_by_side(self, source, cache_mb):
        # Beside one, deterministic TensorFlow decodes one image after the other: a third the speed.
        stream = stream_of(source, rows_of(), cache_mb=cache_mb)
        graph = tf.raw_ops.DatasetToGraphV2(input_dataset=stream._variant_tensor).numpy()
        for name in (b"ShuffleDataset", b"LookupTable", b"SeedGenerator", b"PyFunc"):
            assert name not in graph
        assert b"ParallelMapDataset" in graph

    @pytest.mark.parametrize(
        "changes", [{}, {"metadata": True}, {"on_device": True, "augment": AugmentConfig()}]
    )
    def test_a_made_up_batch_is_like_one_of_the_stream_and_fits_the_network(self, source, changes):
        on_device = changes.get("on_device", False)
        config = tiny_config(**{key: value for key, value in changes.items() if key != "on_device"})
        parts = batch_spec(config, SPEC, on_device=on_device)
        rows = rows_of()
        if config.metadata:
            rows = replace(rows, metadata=np.zeros((COUNT, *parts.inputs["metadata"]), np.float32))
        given = next(iter(stream_of(source, rows, **changes)))
        made = parts.made_up(4)
        tf.nest.assert_same_structure(given, made)
        for one, other in zip(tf.nest.flatten(given), tf.nest.flatten(made), strict=True):
            assert (tuple(one.shape), one.dtype.as_numpy_dtype) == (other.shape, other.dtype.type)
        if not on_device:
            assert build_network(config, SPEC)(made[0]).shape == made[1].shape

    def test_the_device_is_given_the_images_and_what_the_host_would_do(self, source):
        options = {"batch_size": 4, "epochs": 2, "augment": AugmentConfig()}
        host = train(source, rows_of(), **options)
        device = train(source, rows_of(), on_device=True, **options)
        for (images, *rest), (given, *others) in zip(host, device, strict=True):
            pixels = given.pop("image")
            assert len(np.unique(pixels[0])) == 1  # a plain grey, as it was
            changed = change(ops.convert_to_tensor(pixels), given, KERAS, 0.1)
            changed = ops.convert_to_numpy(changed).astype(int)
            assert np.abs(changed - images.astype(int)).max() <= 1
            for part, other in zip(rest, others, strict=True):
                np.testing.assert_array_equal(part, other)


class TestMixing:
    """Oversampled copies are mixed as an ideal shuffle mixes them."""

    COUNT, RARE, TIMES, BATCH, EPOCHS = 600, 30, 10, 16, 12
    STEPS = (COUNT + RARE * (TIMES - 1)) // BATCH

    @pytest.fixture(scope="class")
    def epochs(self, tmp_path_factory):
        """Numbers shown, (epochs, steps, batch); the first 30 images are the rare ones."""
        examples = make_examples(self.COUNT)
        jpegs = dict.fromkeys(examples.index, to_jpeg(np.zeros((8, 8, 3))))
        # Dealt out at random, as conversion does.
        dealt = examples.sample(frac=1, random_state=5)
        paths = write_records(tmp_path_factory.mktemp("many"), dealt, jpegs, SPEC, shards=5)
        numbers = np.arange(self.COUNT)
        rows = TrainingRows(
            ids=examples.index.to_numpy(),
            targets=numbers[:, None].astype(np.float32),
            weights=np.ones(self.COUNT, np.float32),
            repeats=np.where(numbers < self.RARE, self.TIMES, 1),
        )
        options = {"batch_size": self.BATCH, "epochs": self.EPOCHS, "image_size_px": 8}
        batches = train(Source(SPEC, paths, image_size_px=8), rows, **options)
        found = np.stack([targets[:, 0] for _, targets, _ in batches]).astype(int)
        return found.reshape(self.EPOCHS, self.STEPS, self.BATCH)

    def figures(self, batches):
        """Of an epoch: deviation of the rare images' number a batch, how many of them differ, and
        how many batches lie between the first and the last showing of one."""
        rare = batches < self.RARE
        differ = np.mean([len(np.unique(one[one < self.RARE])) for one in batches])
        place = np.broadcast_to(np.arange(self.STEPS)[:, None], batches.shape)
        spans = [np.ptp(place[batches == number]) for number in range(self.RARE)]
        return rare.sum(axis=1).std(), differ, np.mean(spans)

    def ideal(self):
        rng = np.random.default_rng(0)
        numbers = np.arange(self.COUNT)
        shown = np.repeat(numbers, np.where(numbers < self.RARE, self.TIMES, 1))
        taken = self.STEPS * self.BATCH
        for _ in range(200):
            yield rng.permutation(shown)[:taken].reshape(self.STEPS, self.BATCH)

    def test_the_three_figures_are_those_of_an_ideal_shuffle(self, epochs):
        found = np.mean([self.figures(one) for one in epochs], axis=0)
        wanted = np.mean([self.figures(one) for one in self.ideal()], axis=0)
        np.testing.assert_allclose(found, wanted, rtol=0.1)

    def test_images_of_one_batch_meet_in_the_next_epoch_no_more_than_by_chance(self, epochs):
        batch_of = np.zeros((self.EPOCHS, self.COUNT), int)
        for epoch, batches in enumerate(epochs):
            batch_of[epoch, batches] = np.arange(self.STEPS)[:, None]
        common = batch_of[:, self.RARE :]
        together = common[:, :, None] == common[:, None, :]
        pairs = np.triu(np.ones(together.shape[1:], bool), 1)
        again = (together[1:] & together[:-1])[:, pairs].sum() / together[:-1][:, pairs].sum()
        assert again == pytest.approx(1 / self.STEPS, rel=0.25)
