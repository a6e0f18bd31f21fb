"""Each view as a loop over images: the fourteen operations by Pillow itself, shift, mirror and Cutout by loops.

Sources: FixMatch, arXiv 2001.07685, table 12; the ranges and calls are those of USB's randaugment.py, and, where a name
begins with `level`, those of FixMatch-pytorch's.
"""

import numpy
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

AFFINE = Image.Transform.AFFINE
RANGES = {
    "autocontrast": (0.0, 0.0),
    "brightness": (0.05, 0.95),
    "colour": (0.05, 0.95),
    "contrast": (0.05, 0.95),
    "equalize": (0.0, 0.0),
    "identity": (0.0, 0.0),
    "posterize": (4.0, 8.0),
    "rotate": (-30.0, 30.0),
    "sharpness": (0.05, 0.95),
    "shear_x": (-0.3, 0.3),
    "shear_y": (-0.3, 0.3),
    "solarize": (0.0, 256.0),
    "translate_x": (-0.3, 0.3),
    "translate_y": (-0.3, 0.3),
}
NAMES = list(RANGES)


def operation(name, image, v):
    """`image` PIL in mode L or RGB -> PIL; USB's calls."""
    size = image.size
    calls = {
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "brightness": lambda: ImageEnhance.Brightness(image).enhance(v),
        "colour": lambda: ImageEnhance.Color(image).enhance(v),
        "contrast": lambda: ImageEnhance.Contrast(image).enhance(v),
        "equalize": lambda: ImageOps.equalize(image),
        "identity": lambda: image,
        "posterize": lambda: ImageOps.posterize(image, max(1, int(v))),
        "rotate": lambda: image.rotate(v),
        "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(v),
        "shear_x": lambda: image.transform(size, AFFINE, (1, v, 0, 0, 1, 0)),
        "shear_y": lambda: image.transform(size, AFFINE, (1, 0, 0, v, 1, 0)),
        "solarize": lambda: ImageOps.solarize(image, v),
        "translate_x": lambda: image.transform(size, AFFINE, (1, 0, v * size[0], 0, 1, 0)),
        "translate_y": lambda: image.transform(size, AFFINE, (1, 0, 0, 0, 1, v * size[1])),
    }
    return calls[name]()


def level_operation(name, image, level, sign):
    """The same by FixMatch-pytorch's calls, level 1 to 9 of 10 and a sign that geometry alone looks at."""
    share = level * 0.9 / 10 + 0.05
    moved = sign * (level * 0.3 / 10)
    calls = {
        "brightness": lambda: ImageEnhance.Brightness(image).enhance(share),
        "colour": lambda: ImageEnhance.Color(image).enhance(share),
        "contrast": lambda: ImageEnhance.Contrast(image).enhance(share),
        "posterize": lambda: ImageOps.posterize(image, int(level * 4 / 10) + 4),
        "rotate": lambda: image.rotate(sign * int(level * 30 / 10)),
        "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(share),
        "solarize": lambda: ImageOps.solarize(image, 256 - int(level * 256 / 10)),
        "translate_x": lambda: image.transform(image.size, AFFINE, (1, 0, int(moved * image.size[0]), 0, 1, 0)),
        "translate_y": lambda: image.transform(image.size, AFFINE, (1, 0, 0, 0, 1, int(moved * image.size[1]))),
    }
    return calls[name]() if name in calls else operation(name, image, moved)


def augmented(image, uniform):
    """USB's RandAugment for uniform numbers [(operation, magnitude), ...]."""
    for which, where in uniform:
        name = NAMES[int(which * 14)]
        low, high = RANGES[name]
        image = operation(name, image, low + (high - low) * where)
    return image


def level_augmented(image, uniform):
    """FixMatch-pytorch's RandAugmentMC for uniform numbers [(operation, level and sign, whether), ...]."""
    for which, where, whether in uniform:
        if whether < 0.5:
            place = int(where * 18)
            image = level_operation(NAMES[int(which * 14)], image, place % 9 + 1, 1 if place < 9 else -1)
    return image


def to_pil(array):
    """uint8 (C, H, W) -> PIL."""
    return Image.fromarray(array[0] if len(array) == 1 else numpy.ascontiguousarray(array.transpose(1, 2, 0)))


def from_pil(image):
    array = numpy.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def cutout(image, share, x, y, largest=0.5):
    """USB's CutoutAbs on a PIL image for uniform numbers share, x, y in [0, 1)."""
    width, height = image.size
    side = share * largest * width
    left = int(max(0, x * width - side / 2.0))
    top = int(max(0, y * height - side / 2.0))
    right, bottom = min(width, left + side), min(height, top + side)
    image = image.copy()
    fill = (125, 123, 114) if image.mode == "RGB" else 123
    ImageDraw.Draw(image).rectangle((left, top, right, bottom), fill)
    return image


def level_cutout(image, x, y):
    """FixMatch-pytorch's CutoutAbs, whose side is 16 of 32 pixels."""
    width, height = image.size
    side = width / 2
    left, top = int(max(0, x * width - side / 2.0)), int(max(0, y * height - side / 2.0))
    right, bottom = int(min(width, left + side)), int(min(height, top + side))
    image = image.copy()
    ImageDraw.Draw(image).rectangle((left, top, right, bottom), (127, 127, 127) if image.mode == "RGB" else 127)
    return image


def shifted(array, down, right, mirror):
    """Pad by reflection, crop, mirror: numpy, one image (C, H, W)."""
    pad = max(abs(down), abs(right))
    _, height, width = array.shape
    padded = numpy.pad(array, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
    crop = padded[:, pad + down : pad + down + height, pad + right : pad + right + width]
    return crop[:, :, ::-1] if mirror else crop
