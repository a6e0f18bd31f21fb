"""Each view as a loop over images: the fourteen operations by Pillow itself (USB's calls), shift, mirror and Cutout by loops.

Sources: FixMatch, arXiv 2001.07685, table 12; the ranges and calls are those of USB's randaugment.py.
"""

import numpy
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

AFFINE = Image.Transform.AFFINE


def operation(name, image, v):
    """`image` PIL in mode L or RGB -> PIL."""
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


def shifted(array, down, right, mirror):
    """Pad by reflection, crop, mirror: numpy, one image (C, H, W)."""
    pad = max(abs(down), abs(right))
    _, height, width = array.shape
    padded = numpy.pad(array, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
    crop = padded[:, pad + down : pad + down + height, pad + right : pad + right + width]
    return crop[:, :, ::-1] if mirror else crop
