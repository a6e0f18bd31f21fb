"""From the options of `layermatch train` to everything that a run needs; refuses what cannot work, and writes nothing."""

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from layermatch.classifier import SplitModel
from layermatch.commands.criterion import build_criterion, momentum, threshold, unlabelled_ratio
from layermatch.commands.launch import Place
from layermatch.commands.network import build_split, check_model
from layermatch.data.batches import Batches
from layermatch.data.streaming import StreamedBatches, choose_workers, image_parts
from layermatch.training.defaults import default_threads
from layermatch.training.evaluation import IMAGES_AT_ONCE, Evaluation, evaluate
from layermatch.training.loop import Plan
from layermatch.training.schedule import half_life_momentum
from layermatch.training.state import TrainingState
from layermatch.training.step import ViewSettings
from layermatch.training.surroundings import surround
from layermatch.views.normalise import Normalisation, constants_on, measure
from layermatch.views.strong import strong_views
from layermatch.views.weak import weak_views
from scarce_common_utils.errors import UserError
from scarce_common_utils.image_decoding import usable_cores
from scarce_common_utils.image_sets import AnyImages, images_for_statistics
from scarce_common_utils.images import (
    StoredImages,
    Unreadable,
    count_by_class,
    data_digest,
    data_name,
    open_images,
    some_images,
)
from scarce_common_utils.streams import stream
from scarce_common_utils.subsets import few_labels

if TYPE_CHECKING:
    from layermatch.commands.options import TrainConfig

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Job:
    """All parts of a run; `training` and `test` are the images, `split` what split.json holds.

    `unreadable` are the images that were left out, of both parts.
    """

    config: "TrainConfig"
    name: str
    data_name: str
    training: AnyImages
    test: AnyImages
    split: dict[str, Any]
    state: TrainingState
    plan: Plan
    batches: Batches
    views: ViewSettings
    normalisation: Normalisation
    place: Place
    workers: int
    unreadable: tuple[Unreadable, ...] = ()

    def autocast(self) -> torch.autocast:
        """Context of a forward pass in the run's precision."""
        precision = PRECISIONS[self.config.precision]
        # A disabled context may not name float32 as its dtype on every device.
        dtype = torch.bfloat16 if precision is torch.float32 else precision
        return torch.autocast(self.place.device.type, dtype, enabled=precision is not torch.float32)

    @property
    def averaged(self) -> SplitModel:
        """The averaged model, which is what is evaluated and written."""
        return self.state.teacher

    def evaluation(self) -> Evaluation:
        """Of the averaged model on the test images."""
        return evaluate(
            self.averaged,
            image_parts(self.test, at_once=IMAGES_AT_ONCE, workers=self.workers),
            classes=len(self.test.class_names),
            constants=self.views.constants,
            channels=self.views.channels,
            autocast=self.autocast(),
        )

    def example_views(self, count: int = 8) -> dict[str, Tensor]:
        """Some images, their weak and their strong views, UInt8[count C H W] on the CPU, with the draws of step 0."""
        images = some_images(self.training, count)
        options: dict[str, Any] = {"shift": self.views.shift, "mirror": self.views.mirror}
        weak = weak_views(images, generator=stream(self.config.seed, "weak", 0), **options)
        strong = strong_views(images, generator=stream(self.config.seed, "strong", 0), **options)
        return {"image": images, "weak view": weak, "strong view": strong}


def choose_threads(config: "TrainConfig", side: int) -> int:
    """Torch's threads: as asked, else one where the layers are too small to be shared, else torch's own choice."""
    return default_threads(config.model, side) if config.threads is None else config.threads


def resolved(config: "TrainConfig", *, side: int) -> "TrainConfig":
    """The configuration with what depends on the run filled in: threads, threshold, ratio, momentums and intervals."""
    return replace(
        config,
        threads=choose_threads(config, side),
        threshold=threshold(config),
        unlabelled_ratio=unlabelled_ratio(config),
        momentum=momentum(config),
        ema_momentum=half_life_momentum(config.steps) if config.ema_momentum is None else config.ema_momentum,
        evaluate_every=config.evaluate_every or max(1, config.steps // 20),
        checkpoint_every=config.checkpoint_every or max(1, config.steps // 10),
    )


def build_job(
    config: "TrainConfig", place: Place, *, data: tuple[AnyImages, AnyImages, list[Unreadable]] | None = None
) -> Job:
    """Read the data, draw the split, build the model and its surroundings.

    The job's own configuration is the given one with its defaults that depend on the run filled in. Where several
    processes train, each builds the same job, and its batches are that process's part. `data` are images that were read already,
    in the place of what `read_data` gives.

    Raises:
        UserError: the data, the split, the model or the device cannot be used; the value and the mend are named.
    """
    device = place.device
    training, test, unreadable = read_data(config) if data is None else data
    labelled = draw_labelled(config, training)
    config = resolved(config, side=max(training.shape[-2:]))
    size = torch.Size(training.shape)
    split = build_split(config, classes=len(training.class_names), size=size, rank=place.processes.rank)
    channels = check_model(config, split, size=size)
    # Pixel work needs 64-bit numbers, which MPS does not have.
    pixels = torch.device("cpu") if device.type == "mps" else device
    split.to(device)
    if config.channels_last:
        split.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  (in torch's docs, not in its stubs)
    state = build_state(config, split, place, classes=len(training.class_names), images=len(training))
    normalisation = measure(images_for_statistics(training))
    views = ViewSettings(
        seed=config.seed,
        shift=max(1, min(training.shape[-2:]) // 8),
        mirror=training.mirrored,
        constants=constants_on(normalisation, pixels),
        channels=channels,
        layout=layout(config),
        strong=partial(strong_views, form=config.views) if "strong" in state.criterion.needs else None,
    )
    workers = choose_workers(config.workers, max(1, usable_cores() // place.processes.count))
    name = data_name(config.data)
    return Job(
        config=config,
        name=f"layermatch-{name}-{config.method}-seed-{config.seed}",
        data_name=name,
        training=training,
        test=on_device(test, pixels),
        split={
            "seed": config.seed,
            "training_sha256": data_digest(training),
            "test_sha256": data_digest(test),
            "labelled": labelled.tolist(),
            # Read by people; indices decide. A file's path in the data folder, else the image's number.
            "labelled_names": [training.names[index] for index in labelled.tolist()] if training.names else [],
        }
        | ({"unreadable": [image.name for image in unreadable]} if config.skip_unreadable else {}),
        state=state,
        plan=build_plan(config),
        batches=build_batches(
            config, on_device(training, pixels), labelled, state=state, pixels=pixels, workers=workers
        ),
        views=views,
        normalisation=normalisation,
        place=place,
        workers=workers,
        unreadable=tuple(unreadable),
    )


def read_data(config: "TrainConfig") -> tuple[AnyImages, AnyImages, list[Unreadable]]:
    """Training and test images, the same for every method, so that runs compare in pairs; and those left out of them."""
    unreadable: list[Unreadable] = []
    training, test = open_images(
        config.data,
        image_size=config.image_size,
        test_share=config.test_share,
        seed=config.seed,
        download=config.download,
        data_folder=config.data_folder,
        selection=config.selection(unlabelled=True),
        in_memory=config.in_memory,
        unreadable=unreadable if config.skip_unreadable else None,
    )
    return training, test, unreadable


def on_device(images: AnyImages, device: torch.device) -> AnyImages:
    """Images in memory, moved to the device; images on disk as they are."""
    if isinstance(images, StoredImages):
        return images
    return replace(images, images=images.images.to(device), labels=images.labels.to(device))


def build_batches(
    config: "TrainConfig",
    images: AnyImages,
    labelled: Tensor,
    *,
    state: TrainingState,
    pixels: torch.device,
    workers: int,
) -> Batches:
    """This process's part of the batches, from memory or from disk."""
    assert config.unlabelled_ratio is not None
    processes = state.processes
    options: dict[str, Any] = {
        "labelled_indices": labelled,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "unlabelled_ratio": config.unlabelled_ratio,
        "with_unlabelled": state.criterion.needs_unlabelled,
        "part": (processes.rank, processes.count),
    }
    if isinstance(images, StoredImages):
        return StreamedBatches(images, **options, device=pixels, stop=config.steps, workers=workers)
    return Batches(images.images, images.labels, **options)


def layout(config: "TrainConfig") -> torch.memory_format:
    """How images and kernels lie in memory."""
    return torch.channels_last if config.channels_last else torch.contiguous_format


def draw_labelled(config: "TrainConfig", training: AnyImages) -> Tensor:
    """Places of the images whose labels may be used, Int64[L]."""
    known = training.labels >= 0
    if config.labels_per_class is not None:
        generator = stream(config.seed, "split")
        names = training.class_names
        return few_labels(
            training.labels, config.labels_per_class, generator=generator, class_names=names, place=training.place
        )
    if bool(known.all()):
        raise UserError(
            f"Each of the {len(training)} images of {training.place} has a label. Say how many of each class may be used, "
            "such as --labels-per-class 4; all images count as unlabelled besides."
        )
    counts = count_by_class(training.labels, len(training.class_names))
    if 0 in counts:
        raise UserError(
            f"Class {training.class_names[counts.index(0)]!r} has no labelled image in {training.place}, so nothing can learn "
            "it. Give some of its images a label, or leave it out with --classes."
        )
    return known.nonzero().flatten()


def build_state(config: "TrainConfig", split: SplitModel, place: Place, *, classes: int, images: int) -> TrainingState:
    """Criterion, optimizer, model average and counters around a model that is on its device."""
    assert config.ema_momentum is not None
    return surround(
        split,
        build_criterion(config, split.classifier, classes=classes, images=images).to(place.device),
        classes=classes,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        ema_momentum=config.ema_momentum,
        scaled=config.precision == "fp16",
        compiled=config.compile,
        wrap=place.wrap,
        processes=place.processes,
    )


def build_plan(config: "TrainConfig") -> Plan:
    """Steps and intervals; the metrics are read a hundred times a run."""
    assert config.evaluate_every is not None
    assert config.checkpoint_every is not None
    return Plan(
        steps=config.steps,
        learning_rate=config.learning_rate,
        log_every=max(1, config.steps // 100),
        evaluate_every=config.evaluate_every,
        checkpoint_every=config.checkpoint_every,
        micro_batches=config.accumulate,
        on_nonfinite=config.on_nonfinite,
    )
