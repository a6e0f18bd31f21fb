import doctest
import random

import numpy
import pytest
import torch

from layermatch.views import torchvision_views
from layermatch.views.torchvision_views import TransformViews

IMAGES = torch.randint(0, 256, (12, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randaugment():
    v2 = pytest.importorskip("torchvision.transforms.v2", reason="torchvision, the extra `vision`, is not here")
    crop = v2.RandomCrop(16, padding=2, padding_mode="reflect")
    return TransformViews(v2.Compose([crop, v2.RandomHorizontalFlip(), v2.RandAugment(3)]))


def drawing_from_all(image):
    """Draws from the three global generators that a person's transform may use."""
    return image + random.randrange(9) + int(numpy.random.randint(9)) + int(torch.randint(9, ()))  # noqa: NPY002


@pytest.mark.parametrize("views", [TransformViews(drawing_from_all), None])
def test_views_are_a_function_of_the_generator_alone(views):
    views = views or randaugment()
    first = views(IMAGES, generator=generator(1), shift=2, mirror=True)
    random.seed(5)
    numpy.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    assert torch.equal(first, views(IMAGES, generator=generator(1)))
    assert not torch.equal(first, views(IMAGES, generator=generator(2)))
    assert first.dtype == torch.uint8
    assert first.shape == IMAGES.shape


@pytest.mark.parametrize("views", [TransformViews(drawing_from_all), None])
@pytest.mark.parametrize("parts", [2, 3])
def test_parts_one_after_the_other_are_the_whole_batch(views, parts):
    views = views or randaugment()
    found = [views(part, generator=generator(3), part=(place, parts)) for place, part in enumerate(IMAGES.chunk(parts))]
    assert torch.equal(torch.cat(found), views(IMAGES, generator=generator(3)))


def test_each_image_has_draws_of_its_own():
    views = randaugment()(IMAGES[:1].expand(40, -1, -1, -1), generator=generator())
    assert len({row.numpy().tobytes() for row in views}) > 30


def test_global_generators_are_as_they_were_even_after_an_error():
    state = random.getstate(), torch.get_rng_state(), numpy.random.get_state()[1].copy()  # noqa: NPY002
    TransformViews(drawing_from_all)(IMAGES, generator=generator())

    def failing(image):
        raise OSError(f"drew {int(torch.randint(9, ()))} {random.random()}")

    with pytest.raises(OSError, match="drew"):
        TransformViews(failing)(IMAGES, generator=generator())
    assert random.getstate() == state[0]
    assert torch.equal(torch.get_rng_state(), state[1])
    assert (numpy.random.get_state()[1] == state[2]).all()  # noqa: NPY002


@pytest.mark.parametrize(
    ("transform", "found"),
    [
        (lambda image: image.float() / 255, r"torch.float32 \(3, 16, 16\)"),
        (lambda image: image[0], r"torch.uint8 \(16, 16\)"),
        (lambda image: image[:1], r"torch.uint8 \(1, 16, 16\)"),
        (lambda image: image.numpy(), "ndarray"),
    ],
)
def test_what_a_transform_may_not_give_is_named(transform, found):
    with pytest.raises(ValueError, match=rf"The transform gave {found} for an image"):
        TransformViews(transform)(IMAGES, generator=generator())


def test_no_image_is_a_batch_too():
    assert TransformViews(drawing_from_all)(IMAGES[:0], generator=generator()).shape == (0, 3, 16, 16)


def test_the_example_runs():
    found = doctest.testmod(torchvision_views)
    assert found.attempted > 0
    assert found.failed == 0
