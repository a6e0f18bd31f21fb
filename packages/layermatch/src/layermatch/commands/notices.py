"""What a person is told before the first step: images that were left out, and a test part too small to tell much."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scarce_common_utils.images import Unreadable

if TYPE_CHECKING:
    from layermatch.commands.job import Job

FEW_TEST_IMAGES = 100  # half of them right: the accuracy's 95 % interval is 10 points to either side
LEFT_OUT_SHOWN = 10


def notices(job: "Job") -> list[str]:
    """Sentences, each one or more lines."""
    told = [left_out(job.unreadable)] if job.unreadable else []
    count = len(job.test)
    if count < FEW_TEST_IMAGES:
        told.append(
            f"the test part holds {images(count)}, so that each is {100 / count:.1f} points of the accuracy, and chance "
            f"moves it by up to {196 * (0.25 / count) ** 0.5:.0f} to either side. Add test images, or raise --test-share."
        )
    return told


def left_out(unreadable: Sequence[Unreadable]) -> str:
    """How many images were left out, and the first of them."""
    shown = [f"  {image.sentence}" for image in unreadable[:LEFT_OUT_SHOWN]]
    more = [f"  and {len(unreadable) - LEFT_OUT_SHOWN} more"] if len(unreadable) > LEFT_OUT_SHOWN else []
    return "\n".join([f"{images(len(unreadable))} that cannot be read left out:", *shown, *more])


def images(count: int) -> str:
    """A number of images, as a person says it."""
    return f"{count} image" if count == 1 else f"{count} images"
