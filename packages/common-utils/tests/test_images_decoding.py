"""What becomes of each kind of image, in memory and on disk alike, and what is refused by name."""

import io
import struct
import zlib

import numpy
import pytest
import torch
from PIL import Image

from scarce_common_utils import image_decoding
from scarce_common_utils.errors import UserError
from scarce_common_utils.image_decoding import decode, fit, read_header, read_through, spread_out
from scarce_common_utils.images import load_images, open_images

RED, GREY = (200, 10, 30), 120


def made(mode, size=(6, 4)):
    """An image of one colour in each mode, and what is expected of it."""
    if mode == "1":
        return Image.new("1", size, 1), [255]
    if mode in ("L", "LA"):
        return Image.new(mode, size, GREY if mode == "L" else (GREY, 7)), [GREY]
    if mode == "I;16":
        return Image.fromarray(numpy.full(size[::-1], GREY * 256 + 255, dtype=numpy.uint16)), [GREY]
    if mode == "P":
        return Image.new("RGB", size, RED).convert("P", palette=Image.Palette.ADAPTIVE), list(RED)
    if mode == "RGBA":
        return Image.new("RGBA", size, (*RED, 7)), list(RED)
    if mode == "CMYK":
        return Image.new("CMYK", size, (255 - RED[0], 255 - RED[1], 255 - RED[2], 0)), list(RED)
    return Image.new("RGB", size, RED), list(RED)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("1", "png"),
        ("L", "png"),
        ("LA", "png"),
        ("I;16", "png"),
        ("I;16", "tiff"),
        ("P", "gif"),
        ("P", "png"),
        ("RGB", "bmp"),
        ("RGB", "webp"),
        ("RGBA", "png"),
        ("RGBA", "tiff"),
        ("CMYK", "tiff"),
    ],
)
def test_each_kind_becomes_what_the_docstring_says(tmp_path, mode, suffix, recwarn):
    image, expected = made(mode)
    path = tmp_path / f"a.{suffix}"
    image.save(path, **({"lossless": True} if suffix == "webp" else {}))
    header, array = read_header(path), decode(path)
    assert header == (4, 6, len(expected) == 1)
    assert array.dtype == numpy.uint8
    assert array.shape == ((4, 6) if len(expected) == 1 else (4, 6, 3))
    assert numpy.abs(array.reshape(-1, len(expected)).astype(int) - expected).max() <= (1 if mode == "CMYK" else 0)
    assert numpy.array_equal(decode(path.read_bytes()), array)
    assert numpy.array_equal(decode({"bytes": None, "path": str(path)}), array)
    # What the collector finds unclosed, of whatever ran before, is no warning of this image.
    assert not [str(one.message) for one in recwarn.list if one.category is not ResourceWarning]


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path, recwarn):
    image = Image.new("P", (4, 1))
    image.putpalette([*RED, 0, 0, 0, 1, 2, 3, 9, 9, 9])
    image.putdata([0, 1, 2, 3])
    image.save(tmp_path / "a.png", transparency=bytes([0, 128, 255, 7]))
    assert decode(tmp_path / "a.png")[0].tolist() == [list(RED), [0, 0, 0], [1, 2, 3], [9, 9, 9]]
    # What the collector finds unclosed, of whatever ran before, is no warning of this image.
    assert not [str(one.message) for one in recwarn.list if one.category is not ResourceWarning]


def test_a_photo_is_decoded_at_its_full_size(tmp_path):
    pixels = numpy.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=numpy.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as opened:
        assert numpy.array_equal(decode(tmp_path / "a.jpg"), numpy.asarray(opened))


def test_kinds_without_a_known_range_are_refused(tmp_path):
    Image.fromarray(numpy.full((4, 4), 0.5, dtype=numpy.float32)).save(tmp_path / "float.tiff")
    Image.fromarray(numpy.full((4, 4), 70_000, dtype=numpy.int32)).save(tmp_path / "wide.tiff")
    with pytest.raises(ValueError, match="floating-point numbers"):
        read_header(tmp_path / "float.tiff")
    with pytest.raises(ValueError, match="32-bit integers"):
        decode(tmp_path / "wide.tiff")
    with pytest.raises(ValueError, match="there is no image"):
        decode({"bytes": None, "path": None})


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotation_in_exif_is_applied_as_pillow_does(tmp_path, orientation):
    from PIL import ImageOps

    rng = numpy.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (10, 16, 3), dtype=numpy.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as opened:
        upright = numpy.asarray(ImageOps.exif_transpose(opened))
    assert numpy.array_equal(decode(tmp_path / "a.jpg"), upright)
    assert read_header(tmp_path / "a.jpg")[:2] == upright.shape[:2]


def png_that_claims(width, height):
    """A few bytes that say they are an image of that size."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ):
        parts.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
    return b"".join(parts)


@pytest.mark.parametrize("side", [10_000, 60_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_of_absurd_size_is_refused_by_name(tmp_path, side):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{number}.png")
    (tmp_path / "dog" / "bomb.png").write_bytes(png_that_claims(side, side))
    for in_memory in (True, False):
        with pytest.raises(UserError, match=r"1 of 7 images .*\n.*dog/bomb\.png .*89 million pixels; make it smaller"):
            open_images(str(tmp_path), in_memory=in_memory)


def test_fit_resizes_the_shorter_side_and_crops_the_centre():
    array = numpy.zeros((20, 60, 3), dtype=numpy.uint8)
    array[:, 20:40] = 255
    assert fit(array, shape=(3, 20, 60)).shape == (3, 20, 60)
    grey = numpy.arange(16, dtype=numpy.uint8).reshape(4, 4)
    repeated = fit(grey, shape=(3, 4, 4))
    assert all(numpy.array_equal(channel, grey) for channel in repeated)
    wide = Image.fromarray(array).resize((30, 10), Image.Resampling.BILINEAR).crop((10, 0, 20, 10))
    assert numpy.array_equal(fit(array, shape=(3, 10, 10)), numpy.asarray(wide).transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_reading_through_sees_a_file_that_was_cut(tmp_path, suffix):
    rng = numpy.random.default_rng(0)
    buffer = io.BytesIO()
    kind = {"jpg": "JPEG"}.get(suffix, suffix.upper())
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=numpy.uint8)).save(buffer, kind)
    whole = buffer.getvalue()
    read_through(whole)
    with pytest.raises(Exception, match=r"."):
        read_through(whole[: len(whole) // 2])


@pytest.mark.parametrize("count", [1, 2, 3, 10, 97, 1000])
def test_any_first_part_lies_evenly_over_all(count):
    order = spread_out(count)
    assert sorted(order) == list(range(count))
    if count >= 97:
        gaps = torch.tensor([0, *sorted(order[:20]), count]).diff()
        assert int(gaps.max()) < count / 5


def test_items_are_taken_in_blocks_and_keep_their_order(monkeypatch):
    monkeypatch.setattr(image_decoding, "IMAGES_AT_ONCE", 3)
    found = list(image_decoding.attempt_all(range(10), lambda item: 1 // (item - 4)))
    assert [index for index, _ in found] == list(range(10))
    assert [index for index, value in found if isinstance(value, ZeroDivisionError)] == [4]
    assert list(image_decoding.attempt_all(range(10), str, seconds=-1.0)) == []


def test_grey_and_colour_together_give_three_channels(tmp_path):
    for name, mode in (("cat", "L"), ("dog", "RGBA")):
        (tmp_path / name).mkdir()
        for number in range(3):
            made(mode, size=(8, 8))[0].save(tmp_path / name / f"{number}.png")
    train, _ = load_images(str(tmp_path))
    assert train.shape == (3, 8, 8)
    assert train.images[train.labels == 0].unique().tolist() == [GREY]
