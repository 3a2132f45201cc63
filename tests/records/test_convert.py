"""Tests of the conversion: what becomes of one photo, and of a folder of them."""

import io

import numpy as np
import pandas as pd
import pytest
from helpers_image import make_examples, to_jpeg
from PIL import Image

import kaggle_pipeline.records.convert as convert_module
from kaggle_pipeline.config.experiment import RecordsConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.datasets.synthetic import SPEC
from kaggle_pipeline.records.convert import convert, convert_image, plan_shards

RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)


def config(**changes):
    return RecordsConfig(**{"image_size_px": 32, "records_per_shard": 4, "workers": 1, **changes})


def stripes(width, height, colours):
    """Vertical stripes of equal width."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for part, colour in zip(np.array_split(np.arange(width), len(colours)), colours, strict=True):
        pixels[:, part] = colour
    return pixels


def opened(content):
    """The picture in JPEG bytes as int16 pixels."""
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        return np.asarray(image).astype(np.int16)


def is_near(pixels, colour):
    return bool((np.abs(pixels - np.array(colour)).max(axis=-1) < 30).all())


class TestConvertImage:
    """One photo."""

    @pytest.mark.parametrize("fit", ["crop", "stretch"])
    @pytest.mark.parametrize(
        ("width", "height", "side"), [(100, 64, 32), (40, 90, 32), (24, 40, 24), (40, 24, 24)]
    )
    def test_it_is_square_and_never_enlarged(self, tmp_path, fit, width, height, side):
        path = tmp_path / "a.jpg"
        path.write_bytes(to_jpeg(stripes(width, height, [RED, BLUE])))
        assert opened(convert_image(path, config(fit=fit))).shape == (side, side, 3)

    def test_crop_keeps_the_centre_and_stretch_keeps_all(self, tmp_path):
        path = tmp_path / "a.jpg"
        path.write_bytes(to_jpeg(stripes(128, 64, [GREEN, RED, BLUE, GREEN])))
        cropped = opened(convert_image(path, config(fit="crop")))
        assert is_near(cropped[:, 2:14], RED) and is_near(cropped[:, 18:30], BLUE)
        stretched = opened(convert_image(path, config(fit="stretch")))
        for start, colour in zip((0, 8, 16, 24), (GREEN, RED, BLUE, GREEN), strict=True):
            assert is_near(stretched[:, start + 2 : start + 6], colour)

    @pytest.mark.parametrize("side", [24, 32])
    def test_a_fitting_jpeg_is_copied_byte_for_byte(self, tmp_path, side):
        content = to_jpeg(stripes(side, side, [RED, BLUE]), quality=40, comment=b"as it was")
        (tmp_path / "a.jpg").write_bytes(content)
        assert convert_image(tmp_path / "a.jpg", config()) == content

    @pytest.mark.parametrize("size", [32, 64], ids=["fitting", "to be shrunk"])
    def test_an_exif_rotated_photo_comes_out_upright(self, tmp_path, size):
        exif = Image.Exif()
        exif[0x0112] = 6  # turn clockwise by a quarter to see it upright
        (tmp_path / "a.jpg").write_bytes(to_jpeg(stripes(size, size, [RED, BLUE]), exif=exif))
        content = convert_image(tmp_path / "a.jpg", config())
        pixels = opened(content)
        assert is_near(pixels[2:14], RED) and is_near(pixels[18:30], BLUE)
        assert Image.open(io.BytesIO(content)).getexif().get(0x0112, 1) == 1

    @pytest.mark.parametrize("name", ["a.png", "a.jpg"])
    def test_a_png_becomes_a_jpeg_whatever_it_is_called(self, tmp_path, name):
        Image.fromarray(stripes(32, 32, [RED, BLUE])).save(tmp_path / name, "PNG")
        pixels = opened(convert_image(tmp_path / name, config()))
        assert is_near(pixels[:, 2:14], RED) and is_near(pixels[:, 18:30], BLUE)

    def test_a_grey_jpeg_becomes_a_coloured_one(self, tmp_path):
        Image.new("L", (32, 32), 77).save(tmp_path / "a.jpg", "JPEG")
        assert is_near(opened(convert_image(tmp_path / "a.jpg", config())), (77, 77, 77))

    def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same(self, tmp_path, monkeypatch):
        rng = np.random.default_rng(0)
        small = Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8))
        photo = np.asarray(small.resize((600, 400), Image.Resampling.BICUBIC))
        path = tmp_path / "a.jpg"
        path.write_bytes(to_jpeg(photo))
        sizes, read = [], convert_module.read_image

        def note(path, smallest_side_px=None):
            image = read(path, smallest_side_px=smallest_side_px)
            sizes.append(image.size)
            return image

        monkeypatch.setattr(convert_module, "read_image", note)
        found = opened(convert_image(path, config(image_size_px=64, quality=100)))
        monkeypatch.setattr(convert_module, "read_image", lambda path, **_: read(path))
        whole = opened(convert_image(path, config(image_size_px=64, quality=100)))
        assert sizes == [(150, 100)]  # a quarter: no side below 1.5 of those wanted
        assert np.abs(found - whole).mean() < 2 and found.std() > 30

    def test_quality_is_obeyed(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
        (tmp_path / "a.jpg").write_bytes(to_jpeg(noise))
        fine, coarse = (convert_image(tmp_path / "a.jpg", config(quality=q)) for q in (95, 30))
        assert len(coarse) < len(fine) / 2

    @pytest.mark.parametrize("content", [b"", b"no photo", to_jpeg(RED)[:-200]])
    def test_an_unreadable_file_is_named(self, tmp_path, content):
        (tmp_path / "broken.jpg").write_bytes(content)
        with pytest.raises(PipelineError, match=rf"cannot read image {tmp_path}/broken\.jpg"):
            convert_image(tmp_path / "broken.jpg", config())


class TestPlan:
    """Which row goes to which shard."""

    def examples(self, train=10, test=3):
        table = make_examples(train + test)
        table.loc[table.index[train:], "split"] = "test"
        return table

    @pytest.mark.parametrize(
        ("train", "per_shard", "sizes"),
        [(10, 2, [2] * 5), (10, 3, [3, 3, 2, 2]), (10, 100, [3, 3, 2, 2]), (3, 100, [1, 1, 1])],
    )
    def test_shards_differ_in_size_by_one_at_most(self, train, per_shard, sizes):
        plan = plan_shards(self.examples(train, test=0), config(records_per_shard=per_shard))
        assert [name for name, _ in plan] == [
            f"train{i:02d}-{size}.tfrec" for i, size in enumerate(sizes)
        ]
        assert [len(rows) for _, rows in plan] == sizes

    def test_every_row_is_in_one_shard_of_its_split(self):
        examples = self.examples()
        plan = plan_shards(examples, config())
        ids = [image_id for _, rows in plan for image_id in rows.index]
        assert sorted(ids) == list(examples.index)
        for name, rows in plan:
            assert name.startswith(rows["split"].iloc[0]) and rows["split"].nunique() == 1

    def test_the_plan_does_not_follow_the_order_of_the_table(self):
        examples = self.examples()
        first = plan_shards(examples, config())
        again = plan_shards(examples.sample(frac=1, random_state=3), config())
        for (name, rows), (name_again, rows_again) in zip(first, again, strict=True):
            assert name == name_again
            pd.testing.assert_frame_equal(rows, rows_again)

    def test_rows_are_mixed(self):
        (_, rows), *_ = plan_shards(self.examples(100, 0), config(records_per_shard=50))
        assert not rows.index.is_monotonic_increasing


@pytest.fixture
def photos(tmp_path):
    """Ten training and three test photos of 40 x 32 px, and their table."""
    table = make_examples(13)
    table.loc[table.index[10:], ["split", "target"]] = ["test", np.nan]
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, path in enumerate(table["image_path"]):
        (folder / path).write_bytes(to_jpeg(np.full((32, 40, 3), 10 + 15 * number)))
    return table, folder


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tfrec")}


def contents(folder):
    """All files but the record of when they were written."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "written.json"}


class TestConvert:
    """A folder of photos. Each call starts a worker process, so each test makes few."""

    names = {  # noqa: RUF012
        *(f"train{i:02d}-{size}.tfrec" for i, size in enumerate([3, 3, 2, 2])),
        *(f"test{i:02d}-1.tfrec" for i in range(3)),
        "manifest.json",
    }

    def test_every_photo_is_in_the_records_once(self, photos, tmp_path):
        pytest.importorskip("tensorflow")
        from kaggle_pipeline.records.tfrecords import (
            check_index,
            index_records,
            list_shards,
            read_records,
        )

        table, folder = photos
        done = []
        convert(table, SPEC, folder, tmp_path / "out", config(), done.append)
        assert set(contents(tmp_path / "out")) == self.names
        assert sum(done) == len(table)
        shards = list_shards(tmp_path / "out")
        index = pd.DataFrame(index_records(shards, SPEC))
        check_index(index, table, SPEC)
        assert len(index) == len(table)
        grey = dict(zip(table.index, 10 + 15 * np.arange(13), strict=True))
        for shard in shards:
            for record in read_records(shard.path):
                assert is_near(opened(record["image"]), [grey[record["image_name"]]] * 3)

    def test_only_what_is_missing_or_changed_is_written_again(self, photos, tmp_path):
        table, folder = photos
        out = tmp_path / "out"
        convert(table, SPEC, folder, out, config())
        before, bytes_before = stamps(out), contents(out)
        gone = "train01-3.tfrec"
        (out / gone).unlink()
        done = []
        convert(table, SPEC, folder, out, config(), done.append)
        assert {name for name, time in stamps(out).items() if time != before[name]} == {gone}
        assert contents(out) == bytes_before
        assert sum(done) == len(table)

        before = stamps(out)
        shard_of = {i: name for name, rows in plan_shards(table, config()) for i in rows.index}
        changed = table.index[4]
        table.loc[changed, "age_years"] = 85.0
        convert(table, SPEC, folder, out, config())
        rewritten = {name for name, time in stamps(out).items() if time != before[name]}
        assert rewritten == {shard_of[changed]}

    def test_other_settings_are_refused_and_shards_of_other_plans_removed(self, photos, tmp_path):
        table, folder = photos
        out = tmp_path / "out"
        convert(table, SPEC, folder, out, config())
        before = contents(out)
        for changes, said in [
            ({"image_size_px": 48}, "image_size_px = 32, not 48"),
            ({"fit": "stretch"}, "fit = crop, not stretch"),
            ({"quality": 50}, "quality = 95, not 50"),
        ]:
            with pytest.raises(PipelineError, match=f"{out} holds TFRecords made with {said}"):
                convert(table, SPEC, folder, out, config(**changes))
        assert contents(out) == before

        # A shard of more files, and what a killed conversion left.
        (out / "train04-3.tfrec").write_bytes(before["train00-3.tfrec"])
        (out / ".4711.train00-3.tfrec").write_bytes(b"half")
        convert(table, SPEC, folder, out, config())
        assert contents(out) == before

        fewer = table.drop(table.index[:2])
        convert(fewer, SPEC, folder, out, config())
        assert set(stamps(out)) == {name for name, _ in plan_shards(fewer, config())}

    def test_a_shard_that_lies_is_found_and_a_recorded_one_made_anew(self, photos, tmp_path):
        table, folder = photos
        out = tmp_path / "out"
        convert(table, SPEC, folder, out, config())
        path = out / "train00-3.tfrec"
        whole = path.read_bytes()
        path.write_bytes(whole[:-5])
        convert(table, SPEC, folder, out, config())
        assert path.read_bytes() == whole
        path.write_bytes(whole[:-5])
        (out / "written.json").unlink()  # as an earlier version left it
        with pytest.raises(PipelineError, match=rf"{path} is truncated"):
            convert(table, SPEC, folder, out, config())

    def test_a_truncated_photo_is_named_and_nothing_half_written_left(self, photos, tmp_path):
        table, folder = photos
        out = tmp_path / "out"
        plan = plan_shards(table, config())
        name, rows = plan[1]
        broken = folder / rows["image_path"].iloc[-1]
        whole = broken.read_bytes()
        broken.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(PipelineError, match=f"cannot read image {broken}"):
            convert(table, SPEC, folder, out, config())
        assert set(contents(out)) == {plan[0][0], "manifest.json"}
        first = stamps(out)[plan[0][0]]
        broken.write_bytes(whole)
        convert(table, SPEC, folder, out, config())
        assert set(contents(out)) == self.names
        assert stamps(out)[plan[0][0]] == first, f"only {name} and later ones were to be written"

    def test_a_missing_photo_is_named(self, photos, tmp_path):
        table, folder = photos
        unknown = table.assign(image_path=table["image_path"].where(table.index != table.index[3]))
        with pytest.raises(PipelineError, match=r"no image file for train row ISIC_0000003 \(1 of"):
            convert(unknown, SPEC, folder, tmp_path / "out", config())
        assert not (tmp_path / "out").exists()
        (folder / table["image_path"].iloc[3]).unlink()
        with pytest.raises(PipelineError, match=r"ISIC_0000003\.jpg does not exist"):
            convert(table, SPEC, folder, tmp_path / "out", config())
