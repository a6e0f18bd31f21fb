"""Batches of images on disk: the same bits as in memory with any number of workers, from any step; what dies is named."""

import multiprocessing
import os
import signal

import numpy
import pytest
import torch
from PIL import Image

from forked import METHOD
from layermatch.data.batches import Batches
from layermatch.data.streaming import StreamedBatches, choose_workers, image_parts
from scarce_common_utils.errors import UserError
from scarce_common_utils.images import open_images
from scarce_common_utils.random_state import capture_random_state

OPTIONS = {"labelled_indices": torch.tensor([1, 2, 30]), "seed": 0, "batch_size": 4, "unlabelled_ratio": 2}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The same images in memory and on disk."""
    root, rng = tmp_path_factory.mktemp("photos"), numpy.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir()
        for number in range(25):
            pixels = rng.integers(0, 256, (12 + number, 30 - number, 3), dtype=numpy.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:02}.jpg")
    for number in range(5):
        Image.new("RGB", (9, 9), (number, 0, 0)).save(root / f"loose{number}.png")
    return [open_images(str(root), image_size=10, in_memory=in_memory)[0] for in_memory in (True, False)]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("workers", "start_method"), [(0, None), (1, "fork"), (2, "fork"), (2, METHOD)])
def test_any_number_of_workers_gives_the_bits_of_memory(sets, workers, start_method):
    memory, disk = sets
    kept = Batches(memory.images, memory.labels, **OPTIONS)
    streamed = StreamedBatches(disk, **OPTIONS, stop=6, workers=workers, start_method=start_method)
    first = 0 if start_method == "fork" else 3
    assert all(same(streamed(step), kept(step)) for step in range(first, 6))
    assert {int(truth) for step in range(6) for truth in kept(step).truth} == {-1, 0, 1}
    assert not multiprocessing.active_children()


def test_a_run_goes_on_at_any_step_and_a_step_can_be_asked_for_again(sets):
    memory, disk = sets
    kept = Batches(memory.images, memory.labels, **OPTIONS)
    streamed = StreamedBatches(disk, **OPTIONS, workers=1, start_method="fork")
    assert all(same(streamed(step), kept(step)) for step in (5, 6, 6, 2, 3, 40))
    streamed.close()
    assert same(streamed(7), kept(7))
    streamed.close()


def test_reading_ahead_asks_for_the_steps_to_come_and_for_none_past_the_last(sets, monkeypatch):
    streamed = StreamedBatches(sets[1], **OPTIONS, stop=8, workers=1, start_method="fork")
    asked, whole = [], streamed.places.whole
    monkeypatch.setattr(streamed.places, "whole", lambda step: asked.append(step) or whole(step))
    streamed(2)
    assert {3, 4} <= set(asked)
    asked.clear()
    for step in range(3, 8):
        streamed(step)
    assert max(asked) == 7
    assert not multiprocessing.active_children()


def test_slices_of_processes_and_a_method_without_unlabelled_images(sets):
    memory, disk = sets
    for options in ({"part": (1, 2)}, {"with_unlabelled": False}):
        kept = Batches(memory.images, memory.labels, **OPTIONS, **options)
        assert same(StreamedBatches(disk, **OPTIONS, **options)(3), kept(3))


def test_no_global_generator_is_drawn_from(sets):
    before = capture_random_state()
    streamed = StreamedBatches(sets[1], **OPTIONS, stop=1, workers=1, start_method="fork")
    streamed(0)
    list(image_parts(sets[1]))
    after = capture_random_state()
    assert torch.equal(before["torch"], after["torch"])
    assert before["python"] == after["python"]


@pytest.mark.parametrize("at_once", [7, 512])
def test_parts_of_an_evaluation_are_all_images_in_order(sets, at_once):
    memory, disk = sets
    for images in (memory, disk):
        parts = list(image_parts(images, at_once=at_once))
        assert torch.equal(torch.cat([pixels for pixels, _ in parts]), memory.images)
        assert torch.equal(torch.cat([labels for _, labels in parts]), memory.labels)
        assert len(parts) == -(-len(memory) // at_once)


def test_a_killed_worker_is_named_and_a_handler_of_signals_is_left_alone(sets, monkeypatch):
    # As in a process that made no loader before: torch sets its handler once.
    monkeypatch.setattr("torch.utils.data._utils.signal_handling._SIGCHLD_handler_set", False)
    before = signal.getsignal(signal.SIGCHLD)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    streamed = StreamedBatches(sets[1], **OPTIONS, workers=2, start_method="fork")
    streamed(0)
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    signal.signal(signal.SIGCHLD, before)
    victim = sorted(multiprocessing.active_children(), key=lambda child: child.pid)[1]
    os.kill(victim.pid, signal.SIGKILL)
    victim.join(10)
    with pytest.raises(UserError, match=rf"Worker 2 of 2 \(process {victim.pid}\).* was killed by SIGKILL\.") as caught:
        list(map(streamed, range(1, 20)))
    assert "Go on with --resume and fewer --workers" in str(caught.value)
    assert not multiprocessing.active_children()
    kept = Batches(sets[0].images, sets[0].labels, **OPTIONS)
    assert same(streamed(1), kept(1))  # in new workers
    streamed.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_goes_bad_during_training_is_named(tmp_path, workers):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / name / f"{number}.png")
    disk, _ = open_images(str(tmp_path), in_memory=False)
    gone = tmp_path / disk.names[0]
    gone.write_bytes(b"")
    options = OPTIONS | {"labelled_indices": torch.tensor([0, 1])}
    with pytest.raises(UserError, match=rf"{gone} cannot be read any more \(.*\)\. Mend or replace it") as caught:
        StreamedBatches(disk, **options, workers=workers, start_method="fork" if workers else None)(0)
    assert "Traceback" not in str(caught.value)


def test_an_error_that_is_no_death_stays_what_it_is(sets, monkeypatch):
    def fail(self, indices):
        raise RuntimeError("our own mistake")

    monkeypatch.setattr(type(sets[1]), "read", fail)
    with pytest.raises(RuntimeError, match="our own mistake"):
        StreamedBatches(sets[1], **OPTIONS)(0)


def test_the_number_of_workers():
    assert [choose_workers(asked, cores) for asked, cores in ((None, 2), (None, 64), (0, 64), (20, 2))] == [2, 8, 0, 20]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("workers", [0, 2])
def test_on_a_gpu_the_bits_are_those_of_memory(sets, workers):
    memory, disk = sets
    kept = Batches(memory.images.cuda(), memory.labels.cuda(), **OPTIONS)
    streamed = StreamedBatches(disk, **OPTIONS, device="cuda", workers=workers, stop=5)
    for step in range(5):
        found = streamed(step)
        assert {part.device.type for part in found} == {"cuda"}
        assert same(found, kept(step))
