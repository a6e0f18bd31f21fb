"""Pixels by places: on disk as in memory, ahead or not; a file that goes bad in the middle is named."""

import numpy
import pytest
import torch
from PIL import Image

from imwa.training.reading import Reading
from scarce_common_utils.errors import UserError
from scarce_common_utils.images import open_images

CPU = torch.device("cpu")


@pytest.fixture
def sets(tmp_path):
    """The same 40 images on disk and in memory."""
    rng = numpy.random.default_rng(0)
    for name in ("ape", "bee"):
        (tmp_path / name).mkdir()
        for number in range(25):
            Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=numpy.uint8)).save(tmp_path / name / f"{number}.png")
    return [open_images(str(tmp_path), in_memory=kept)[0] for kept in (False, True)]


def test_on_disk_and_in_memory_agree_to_the_bit(sets):
    disk, memory = (Reading(images, device=CPU) for images in sets)
    places = torch.tensor([3, 0, 39, 3, *range(30)])
    assert torch.equal(disk(places), memory(places))
    assert torch.equal(disk(places), sets[1].images[places])
    for size in (7, 40, 100):
        parts, others = list(disk.split(size)), list(memory.split(size))
        assert [len(part) for part in parts] == [len(part) for part in others]
        assert torch.equal(torch.cat(parts), sets[1].images)
    assert disk.device == CPU


def test_what_is_read_ahead_is_used_once_and_only_where_it_is_asked_for(sets):
    disk, images = Reading(sets[0], device=CPU), sets[1].images
    read = []
    disk._stored = Spy(sets[0], read)
    one, two, other = torch.tensor([1, 2]), torch.tensor([5, 6]), torch.tensor([7, 8])
    assert torch.equal(disk.taken(one, replica=0, following=two), images[one])
    assert torch.equal(disk.taken(other, replica=1, following=None), images[other])  # another replica comes between
    assert torch.equal(disk.taken(two, replica=0, following=one), images[two])
    assert torch.equal(
        disk.taken(other, replica=0, following=None), images[other]
    )  # not what was expected, as after a resume
    disk._pool.shutdown()
    assert sorted(read) == sorted([[1, 2], [5, 6], [7, 8], [1, 2], [7, 8]])


class Spy:
    """Remembers the places that are read."""

    def __init__(self, images, read):
        self.images, self.seen = images, read

    def read(self, places):
        self.seen.append(places.tolist())
        return self.images.read(places)


def test_a_file_that_went_bad_is_named(sets, tmp_path):
    disk = Reading(sets[0], device=CPU)
    (tmp_path / sets[0].names[4]).write_bytes(b"no image")
    with pytest.raises(UserError, match=rf"{sets[0].names[4]} cannot be read any more"):
        disk(torch.tensor([4]))
    with pytest.raises(UserError, match="cannot be read any more"):
        list(disk.split(10))
