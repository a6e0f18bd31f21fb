import numpy
import pytest
import torch

from layermatch.views.cutout import cutout
from layermatch.views.normalise import constants_on, measure, normalise
from layermatch.views.operations import FIXMATCH
from layermatch.views.randaugment import randaugment
from layermatch.views.strong import strong_views
from layermatch.views.weak import WeakDraws, apply_weak, weak_draws, weak_views
from reference import views as twin


def noise(count, channels, height, width, seed=0):
    """Half plain noise, half smooth ramps of small range, so that histograms are narrow too."""
    generator = numpy.random.default_rng(seed)
    plain = generator.integers(0, 256, (count, channels, height, width), dtype=numpy.uint8)
    ramp = (
        numpy.arange(width)[None, None, None, :] * generator.integers(0, 6, (count, channels, 1, 1)) + plain // 32 + 40
    )
    plain[::2] = ramp.clip(0, 255).astype(numpy.uint8)[::2]
    plain[-1] = 77  # one colour all over
    return torch.from_numpy(plain)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (1, 28, 28), (1, 8, 8), (3, 20, 33)])
@pytest.mark.parametrize("name", sorted(FIXMATCH))
def test_each_operation_equals_pillow(name, channels, height, width):
    images = noise(60, channels, height, width)
    entry = FIXMATCH[name]
    strength = torch.linspace(entry.low, entry.high, 60, dtype=torch.float64)
    strength = strength[torch.randperm(60, generator=generator())]
    found = entry.operation(images, strength)
    assert found.dtype == torch.uint8
    expected = numpy.stack(
        [
            twin.from_pil(twin.operation(name, twin.to_pil(image), v))
            for image, v in zip(images.numpy(), strength.tolist(), strict=True)
        ]
    )
    assert numpy.array_equal(found.numpy(), expected)


@pytest.mark.parametrize("name", sorted(set(FIXMATCH) - {"identity"}))
def test_each_operation_changes_something(name):
    images = noise(60, 3, 32, 32)
    entry = FIXMATCH[name]
    strength = torch.full((60,), 0.3 * entry.low + 0.7 * entry.high, dtype=torch.float64)
    assert not torch.equal(entry.operation(images, strength), images)


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize(
    ("channels", "height", "width", "shift"), [(3, 32, 32, 4), (1, 8, 8, 1), (1, 5, 9, 3), (3, 8, 8, 0)]
)
def test_weak_views_equal_pad_crop_and_mirror(channels, height, width, shift, mirror):
    images = noise(40, channels, height, width)
    draws = weak_draws(40, generator=generator(), shift=shift, mirror=mirror)
    expected = [
        twin.shifted(image, *draw)
        for image, draw in zip(images.numpy(), zip(*(part.tolist() for part in draws), strict=True), strict=True)
    ]
    assert numpy.array_equal(apply_weak(images, draws).numpy(), numpy.stack(expected))
    assert torch.equal(weak_views(images, generator=generator(), shift=shift, mirror=mirror), apply_weak(images, draws))


def test_weak_draws_cover_their_range_evenly_and_differ_between_images():
    draws = weak_draws(20_000, generator=generator(), shift=2, mirror=True)
    for part in draws[:2]:
        counts = torch.bincount(part + 2, minlength=5)
        assert len(counts) == 5
        assert (counts - 4000).abs().max() < 300
    assert abs(draws.mirror.double().mean() - 0.5) < 0.02
    assert not weak_draws(100, generator=generator(), shift=2, mirror=False).mirror.any()


def test_a_shift_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"A shift of 8 pixels does not fit images of 8x8"):
        apply_weak(noise(1, 1, 8, 8), WeakDraws(torch.tensor([8]), torch.tensor([0]), torch.tensor([False])))
    with pytest.raises(ValueError, match="shift is -1"):
        weak_draws(4, generator=generator(), shift=-1, mirror=False)


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (1, 8, 8), (3, 20, 33)])
def test_cutout_equals_pillows_rectangle(channels, height, width):
    images = noise(100, channels, height, width)
    uniform = torch.rand(3, 100, generator=generator(), dtype=torch.float64).T.tolist()
    expected = [
        twin.from_pil(twin.cutout(twin.to_pil(image), *numbers))
        for image, numbers in zip(images.numpy(), uniform, strict=True)
    ]
    assert numpy.array_equal(cutout(images, generator=generator()).numpy(), numpy.stack(expected))


@pytest.mark.parametrize("draws", [1, 2, 3])
def test_randaugment_equals_pillow_image_by_image(draws):
    images = noise(80, 3, 32, 32)
    found = randaugment(images, generator=generator(), draws=draws)
    uniform = torch.rand(2, draws, 80, generator=generator(), dtype=torch.float64)
    names, wrong = list(FIXMATCH), 0
    for index in range(80):
        picture = twin.to_pil(images[index].numpy())
        for draw in range(draws):
            name = names[int(uniform[0, draw, index] * 14)]
            low, high = FIXMATCH[name][1:]
            picture = twin.operation(name, picture, low + (high - low) * float(uniform[1, draw, index]))
        wrong += not numpy.array_equal(twin.from_pil(picture), found[index].numpy())
    assert wrong == 0


def test_views_are_a_function_of_the_generator_and_each_image_has_its_own_draws():
    images = torch.randint(0, 256, (1, 3, 32, 32), generator=generator(), dtype=torch.uint8).expand(64, -1, -1, -1)
    first = strong_views(images, generator=generator(1), shift=4, mirror=True)
    assert torch.equal(first, strong_views(images, generator=generator(1), shift=4, mirror=True))
    assert not torch.equal(first, strong_views(images, generator=generator(2), shift=4, mirror=True))
    assert len({row.numpy().tobytes() for row in first}) > 60


def test_views_touch_no_global_generator_and_leave_their_input():
    images, state = noise(16, 3, 32, 32), torch.get_rng_state()
    before = images.clone()
    strong_views(images, generator=generator(), shift=4, mirror=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, before)


def test_normalise_gives_mean_zero_and_deviation_one_and_repeats_grey():
    images = noise(50, 3, 16, 16)
    constants = constants_on(measure(images), torch.device("cpu"))
    out = normalise(images, constants, channels=3)
    assert out.dtype == torch.float32
    assert out.mean((0, 2, 3)).abs().max() < 1e-5
    assert (out.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    grey = noise(4, 1, 8, 8)
    wide = normalise(grey, constants_on(measure(grey), torch.device("cpu")), channels=3)
    assert wide.shape == (4, 3, 8, 8)
    assert torch.equal(wide[:, 0], wide[:, 2])
    assert measure(torch.zeros(2, 1, 4, 4, dtype=torch.uint8)).deviation == (1.0,)
