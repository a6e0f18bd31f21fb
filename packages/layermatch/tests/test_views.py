import numpy
import pytest
import torch

from host_reads import HostReads
from layermatch.views.cutout import FIXMATCH_PYTORCH, cut_out, cutout_boxes
from layermatch.views.normalise import constants_on, measure, normalise
from layermatch.views.operations import OPERATIONS
from layermatch.views.randaugment import POOL, RANGES, AugmentDraws, AugmentForm, augment_draws, augmented
from layermatch.views.strong import FORMS, StrongForm, apply_strong, strong_draws, strong_views
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


def one_operation(name, images, strength):
    """Each image through the operation, with strengths as USB's calls take them."""
    sides = {"translate_x": images.shape[-1], "translate_y": images.shape[-2]}
    if name in sides:
        strength = (strength * sides[name] + 0.5).floor()
    number = torch.full((1, len(images)), OPERATIONS.index(name))
    return augmented(images, AugmentDraws(number, strength[None]))


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (1, 28, 28), (1, 8, 8), (3, 20, 33), (3, 2, 5)])
@pytest.mark.parametrize("name", sorted(RANGES))
def test_each_operation_equals_pillow(name, channels, height, width):
    images = noise(60, channels, height, width)
    strength = torch.linspace(*RANGES[name], 60, dtype=torch.float64)
    strength = strength[torch.randperm(60, generator=generator())]
    found = one_operation(name, images, strength)
    assert found.dtype == torch.uint8
    expected = numpy.stack(
        [
            twin.from_pil(twin.operation(name, twin.to_pil(image), v))
            for image, v in zip(images.numpy(), strength.tolist(), strict=True)
        ]
    )
    assert numpy.array_equal(found.numpy(), expected)


@pytest.mark.parametrize("name", sorted(set(RANGES) - {"identity"}))
def test_each_operation_changes_something(name):
    images = noise(60, 3, 32, 32)
    low, high = RANGES[name]
    strength = torch.full((60,), 0.3 * low + 0.7 * high, dtype=torch.float64)
    assert not torch.equal(one_operation(name, images, strength), images)


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize(
    ("channels", "height", "width", "shift"), [(3, 32, 32, 4), (1, 8, 8, 1), (1, 5, 9, 3), (3, 8, 8, 0), (4, 6, 6, 5)]
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
    with pytest.raises(ValueError, match=r"A shift of 5 pixels does not fit images of 8x5"):
        apply_weak(noise(1, 1, 8, 5), WeakDraws(torch.tensor([0]), torch.tensor([-5]), torch.tensor([False])))
    with pytest.raises(ValueError, match="shift is -1"):
        weak_draws(4, generator=generator(), shift=-1, mirror=False)


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (1, 8, 8), (3, 20, 33)])
def test_cutout_equals_pillows_rectangle(channels, height, width):
    images = noise(100, channels, height, width)
    uniform = torch.rand(3, 100, generator=generator(), dtype=torch.float64)
    for form, draw in (
        (FORMS["usb"].cutout, twin.cutout),
        (FIXMATCH_PYTORCH, lambda image, _, x, y: twin.level_cutout(image, x, y)),
    ):
        expected = [
            twin.from_pil(draw(twin.to_pil(image), *numbers))
            for image, numbers in zip(images.numpy(), uniform.T.tolist(), strict=True)
        ]
        boxes = cutout_boxes(uniform, size=(height, width), form=form)
        assert numpy.array_equal(cut_out(images, boxes, form=form).numpy(), numpy.stack(expected))


@pytest.mark.parametrize("draws", [1, 2, 3])
def test_randaugment_equals_pillow_image_by_image(draws):
    images = noise(80, 3, 32, 32)
    found = augmented(
        images, augment_draws(80, generator=generator(), size=(32, 32), form=AugmentForm(draws=draws))
    ).numpy()
    uniform = torch.rand(2, draws, 80, generator=generator(), dtype=torch.float64)
    wrong = 0
    for index in range(80):
        picture = twin.augmented(twin.to_pil(images[index].numpy()), uniform[:, :, index].T.tolist())
        wrong += not numpy.array_equal(twin.from_pil(picture), found[index])
    assert wrong == 0


def strong_by_hand(image, draws, rows, form):
    """One image, from its row of weak draws and its uniform numbers of the operations and of Cutout."""
    augment, cut = (twin.level_augmented, lambda picture, _, x, y: twin.level_cutout(picture, x, y))
    if form != "fixmatch-pytorch":
        augment, cut = twin.augmented, twin.cutout
    weak = [int(draws.down), int(draws.right), bool(draws.mirror)]
    if form != "torchssl":
        image = twin.shifted(image, *weak)
    image = twin.from_pil(cut(augment(twin.to_pil(numpy.ascontiguousarray(image)), rows[0]), *rows[1]))
    return twin.shifted(image, *weak) if form == "torchssl" else image


@pytest.mark.parametrize("form", ["usb", "torchssl", "fixmatch-pytorch"])
@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (1, 12, 10)])
def test_each_form_of_the_strong_view_equals_pillow(form, channels, height, width):
    images = noise(150, channels, height, width)
    found = strong_views(images, generator=generator(3), shift=3, mirror=True, form=form).numpy()
    drawn = generator(3)
    weak = weak_draws(150, generator=drawn, shift=3, mirror=True)
    shape = (3, 2, 150) if form == "fixmatch-pytorch" else (2, 3, 150)
    operations = torch.rand(shape, generator=drawn, dtype=torch.float64)
    squares = torch.rand(3, 150, generator=drawn, dtype=torch.float64)
    wrong = [
        index
        for index in range(150)
        if not numpy.array_equal(
            found[index],
            strong_by_hand(
                images[index].numpy(),
                WeakDraws(*(each[index] for each in weak)),
                (operations[:, :, index].T.tolist(), squares[:, index].tolist()),
                form,
            ),
        )
    ]
    assert wrong == []


def test_the_forms_draw_what_they_say():
    usb = augment_draws(6000, generator=generator(), size=(32, 32))
    assert usb.operations.shape == (3, 6000)
    assert (torch.bincount(usb.operations.flatten(), minlength=14) / 18_000 - 1 / 14).abs().max() < 0.01
    bright = usb.magnitudes[usb.operations == OPERATIONS.index("brightness")]
    assert 0.05 <= bright.min() < 0.06 < 0.94 < bright.max() <= 0.95
    level = augment_draws(6000, generator=generator(), size=(32, 32), form=FORMS["fixmatch-pytorch"].augment)
    assert level.operations.shape == (2, 6000)
    left_out = (level.operations == OPERATIONS.index("identity")).double().mean()
    assert abs(left_out - (0.5 + 0.5 / 14)) < 0.02
    turned = level.magnitudes[level.operations == OPERATIONS.index("rotate")]
    assert sorted(set(turned.tolist())) == [-27 + 3 * step for step in range(9)] + [3 + 3 * step for step in range(9)]
    moved = level.magnitudes[level.operations == OPERATIONS.index("translate_x")]
    assert set(moved.abs().tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}
    bits = level.magnitudes[level.operations == OPERATIONS.index("posterize")]
    assert set(bits.tolist()) == {4.0, 5.0, 6.0, 7.0}


@pytest.mark.parametrize("parts", [2, 3, 4])
@pytest.mark.parametrize("form", sorted(FORMS))
def test_parts_one_after_the_other_are_the_whole_batch(form, parts):
    images, options = noise(24, 3, 16, 16), {"shift": 2, "mirror": True}
    whole = strong_views(images, generator=generator(5), form=form, **options)
    found = [
        strong_views(part, generator=generator(5), form=form, part=(place, parts), **options)
        for place, part in enumerate(images.chunk(parts))
    ]
    assert torch.equal(torch.cat(found), whole)
    weak = [
        weak_views(part, generator=generator(6), part=(place, parts), **options)
        for place, part in enumerate(images.chunk(parts))
    ]
    assert torch.equal(torch.cat(weak), weak_views(images, generator=generator(6), **options))
    assert not torch.equal(found[1], strong_views(images.chunk(parts)[1], generator=generator(5), form=form, **options))


@pytest.mark.parametrize("sizes", [[1, 23], [5, 5, 14], [24]])
def test_draws_applied_to_any_slices_give_the_same_bits(sizes):
    images = noise(24, 3, 16, 16)
    draws = strong_draws(24, generator=generator(), size=(16, 16), shift=2, mirror=True)
    whole, start, found = apply_strong(images, draws), 0, []
    for size in sizes:
        own = slice(start, start + size)
        weak = WeakDraws(*(each[own] for each in draws.weak))
        augment = AugmentDraws(*(each[:, own] for each in draws.augment))
        found.append(apply_strong(images[own], draws._replace(weak=weak, augment=augment, boxes=draws.boxes[own])))
        start += size
    assert torch.equal(torch.cat(found), whole)


def test_views_are_a_function_of_the_generator_and_each_image_has_its_own_draws():
    images = torch.randint(0, 256, (1, 3, 32, 32), generator=generator(), dtype=torch.uint8).expand(64, -1, -1, -1)
    first = strong_views(images, generator=generator(1), shift=4, mirror=True)
    assert torch.equal(first, strong_views(images, generator=generator(1), shift=4, mirror=True))
    assert not torch.equal(first, strong_views(images, generator=generator(2), shift=4, mirror=True))
    assert len({row.numpy().tobytes() for row in first}) > 60


@pytest.mark.parametrize("form", sorted(FORMS))
def test_views_touch_no_global_generator_and_leave_their_input(form):
    images, state = noise(16, 3, 32, 32), torch.get_rng_state()
    before = images.clone()
    strong_views(images, generator=generator(), shift=4, mirror=True, form=form)
    strong_views(images, generator=generator(), shift=4, mirror=True, form=StrongForm(AugmentForm(pool=("identity",))))
    normalise(images, constants_on(measure(images), torch.device("cpu")), channels=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, before)


@pytest.mark.parametrize("form", sorted(FORMS))
def test_views_read_nothing_from_the_device(form):
    images = noise(40, 3, 16, 16)
    constants = constants_on(measure(images), torch.device("cpu"))
    with HostReads() as reads:
        strong = strong_views(images, generator=generator(), shift=2, mirror=True, form=form)
        normalise(strong, constants, channels=3)
    assert reads.found == []


@pytest.mark.parametrize("form", sorted(FORMS))
def test_no_image_and_one_image_are_batches_too(form):
    images = noise(1, 3, 8, 8)
    assert strong_views(images, generator=generator(), shift=1, mirror=True, form=form).shape == (1, 3, 8, 8)
    assert strong_views(images[:0], generator=generator(), shift=1, mirror=True, form=form).shape == (0, 3, 8, 8)


def test_what_cannot_be_is_refused_by_name():
    images = noise(4, 3, 8, 8)
    options = {"generator": generator(), "shift": 1, "mirror": True}
    with pytest.raises(ValueError, match=r"form is 'usbb', which is not known here. Choose one of usb, torchssl"):
        strong_views(images, form="usbb", **options)
    with pytest.raises(ValueError, match=r"4 channels. Strong views take 1 \(grey\) or 3"):
        strong_views(noise(2, 4, 8, 8), **options)
    with pytest.raises(ValueError, match=r"part is \(2, 2\): its place must be from 0 to 1"):
        strong_views(images, part=(2, 2), **options)
    with pytest.raises(ValueError, match=r"pool holds \['rotat'\]"):
        strong_views(images, form=StrongForm(AugmentForm(pool=("rotat", *POOL))), **options)
    with pytest.raises(ValueError, match=r"probability 1.5"):
        strong_views(images, form=StrongForm(AugmentForm(probability=1.5)), **options)


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


def test_images_of_a_person_s_own_transform_stay_as_they_are_when_normalised():
    images = torch.rand(2, 3, 4, 4)  # float already: the arithmetic must not go into them
    kept = images.clone()
    normalise(images, (torch.zeros(1, 3, 1, 1), torch.full((1, 3, 1, 1), 2.0)), channels=3)
    assert torch.equal(images, kept)
