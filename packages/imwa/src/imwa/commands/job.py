"""From the options of `imwa train` to everything that a run needs; refuses what cannot work, and writes nothing."""

import copy
import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from imwa.batch_norm import recompute_batch_norm
from imwa.commands.network import build_model, check_classifier
from imwa.driver import IMWA
from imwa.long_tail.logit_adjustment import PostHocAdjusted
from imwa.long_tail.retraining import ClassBalancedOrder, find_classifier, retrain_classifier
from imwa.replica import Replica
from imwa.training.batches import Order, augmented, normalised, pixel_constants
from imwa.training.company import Company
from imwa.training.ema import MovingAverage
from imwa.training.ensemble import Ensemble
from imwa.training.evaluation import Evaluation, evaluate, logits_of
from imwa.training.initial import digest_of_file
from imwa.training.loop import Schedule
from imwa.training.objective import Objective, build_objective
from imwa.training.reading import Reading
from imwa.training.stages import Stage, cost_of, stages_of
from imwa.training.state import TrainingState
from scarce_common_utils.errors import UserError
from scarce_common_utils.image_sets import AnyImages
from scarce_common_utils.images import count_by_class, data_digest, data_name, images_for_statistics, open_images
from scarce_common_utils.options import choose_device
from scarce_common_utils.random_state import seed_random_state
from scarce_common_utils.streams import stream, stream_seed
from scarce_common_utils.subsets import long_tail

if TYPE_CHECKING:
    from imwa.commands.train import TrainConfig

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LARGEST_SIDE_OF_ONE_THREAD = 16
RETRAINING_RATE = 0.2 / 512  # for each image of a batch: cRT's 0.2 at a batch of 512 (arXiv 1910.09217)
BATCHES_FOR_NORMS = 20  # shuffled, augmented batches over which BatchNorm statistics are measured anew
PER_METHOD = {"single": ("one", "one"), "mwa": ("replicas", "one"), "imwa": ("replicas", "episodes")}


@dataclass(frozen=True, kw_only=True)
class Job:
    """All parts of a run.

    `training` holds the images trained on, `test` those tested on, `pixels` and `test_pixels` read them, `unlabelled` is how many
    of the training part have no label and are left out, `split` what split.json holds.
    """

    config: "TrainConfig"
    name: str
    data_name: str
    training: AnyImages
    test: AnyImages
    pixels: Reading
    test_pixels: Reading
    unlabelled: int
    counts: list[int]
    split: dict[str, Any]
    state: TrainingState
    schedule: Schedule
    order: Order
    shift: int
    constants: tuple[Tensor, Tensor]
    channels: int
    device: torch.device

    @property
    def replicas(self) -> int:
        """M of the run: 1 for a single run."""
        return max(stage.replicas for stage, _ in self.state.stages)

    @property
    def cost(self) -> int:
        """Optimizer steps over all replicas."""
        return cost_of([stage for stage, _ in self.state.stages])

    def autocast(self) -> AbstractContextManager[Any]:
        """Context of a forward pass in the run's precision."""
        precision = PRECISIONS[self.config.precision]
        # A disabled context may not name float32 as its dtype on every device.
        dtype = torch.bfloat16 if precision is torch.float32 else precision
        return torch.autocast(self.device.type, dtype, enabled=precision is not torch.float32)

    def prepare(self, images: Tensor) -> Tensor:
        """UInt8[B C H W] -> what the model takes, on its device."""
        return normalised(images, self.constants, channels=self.channels).to(self.device)

    def objective(self) -> Objective:
        """What the run trains on."""
        return build_objective(
            self.config.loss,
            counts=self.counts,
            deferred=self.config.reweighting == "deferred",
            steps=self.config.steps,
            device=self.device,
            tau=1.0 if self.config.tau is None else self.config.tau,
        )

    def batch(self, replica: Replica, step: int) -> tuple[Tensor, Tensor]:
        """Images and labels of a replica's step."""
        index, later = replica.index, step + 1 < self.config.steps
        places, following = self.order(step, replica=index), self.order(step + 1, replica=index) if later else None
        return self._batch(places, replica.generator, self.pixels.taken(places, replica=index, following=following))

    def evaluation(self, model: nn.Module) -> Evaluation:
        """Of a model on the test images."""
        classes = len(self.test.class_names)
        images, labels = self.test_pixels, self.test.labels.to(self.device)
        return evaluate(model, images, labels=labels, classes=classes, prepare=self.prepare, autocast=self.autocast())

    def recomputed(self, model: nn.Module) -> Evaluation:
        """Of a copy of the model whose BatchNorm statistics are measured anew."""
        clone = copy.deepcopy(model)
        self.measure_norms(clone)
        return self.evaluation(clone)

    def measure_norms(self, model: nn.Module) -> None:
        """Measure the model's BatchNorm statistics on shuffled, augmented training batches, in place."""

        def forward(model: nn.Module, images: Tensor) -> None:
            with self.autocast():
                model(images)

        recompute_batch_norm(model, self._batches_for_norms(), forward_fn=forward)

    def predict(self, model: nn.Module) -> Tensor:
        """Logits of the test images, Float[N K]."""
        return logits_of(model, self.test_pixels, prepare=self.prepare, autocast=self.autocast())

    def finished(self, model: nn.Module) -> dict[str, float]:
        """What is measured of the last average alone."""
        numbers = {"recomputed_accuracy": self.recomputed(model).accuracy}
        if self.state.ema is not None:
            held = self.state.ema.model
            numbers |= {
                "ema_accuracy": self.evaluation(held).accuracy,
                "ema_recomputed_accuracy": self.recomputed(held).accuracy,
            }
        together = self.state.ensemble.accuracy(self.test.labels) if self.state.ensemble is not None else None
        return numbers if together is None else {**numbers, "ensemble_accuracy": together}

    def adjusted(self, model: nn.Module) -> nn.Module:
        """The model with post-hoc adjusted logits."""
        assert self.config.tau is not None
        return PostHocAdjusted(model, self.counts, tau=self.config.tau)

    def retrained(self, model: nn.Module) -> nn.Module:
        """A copy of the model whose classifier is trained anew on classes in equal shares; once, from the average."""
        config, clone = self.config, copy.deepcopy(model)
        assert config.retrain_steps is not None
        order = ClassBalancedOrder(self.training.labels, seed=config.seed, batch_size=config.batch_size)
        generator = stream(config.seed, "retraining views")

        def batch(step: int) -> tuple[Tensor, Tensor]:
            places = order(step)
            return self._batch(places, generator, self.pixels(places))

        seed_random_state(stream_seed(config.seed, "retraining init"))
        retrain_classifier(
            clone,
            find_classifier(clone, len(self.counts)),
            batches=batch,
            steps=config.retrain_steps,
            learning_rate=config.retrain_learning_rate or RETRAINING_RATE * config.batch_size,
        )
        return clone

    def training_images(self, places: Tensor) -> Tensor:
        """UInt8[n C H W]: training images as they are, at `places`, Int64[n] on the CPU."""
        return self.pixels(places)

    def _batches_for_norms(self) -> Iterator[Tensor]:
        generator = stream(self.config.seed, "batch norm")
        for _ in range(BATCHES_FOR_NORMS):
            places = torch.randint(0, len(self.training), (self.config.batch_size,), generator=generator)
            yield self._batch(places, generator, self.pixels(places))[0]

    def _batch(self, places: Tensor, generator: torch.Generator, pixels: Tensor) -> tuple[Tensor, Tensor]:
        images = augmented(pixels, generator=generator, shift=self.shift, mirror=self.training.mirrored)
        return self.prepare(images), self.training.labels[places].to(self.device)


def build_job(
    config: "TrainConfig", together: Company | None = None, *, data: tuple[AnyImages, AnyImages] | None = None
) -> Job:
    """Read the data, draw the long tail, build the model, the optimizer and the driver.

    `data` are training and test images that were read already.

    Raises:
        UserError: the data, the imbalance, the model or the device cannot be used; the value and the mend are named.
    """
    together = together or Company()
    device = together.place(choose_device(config.device))
    everything, test = data or open_images(
        config.data,
        image_size=config.image_size,
        test_share=config.test_share,
        seed=config.seed,
        download=config.download,
        data_folder=config.data_folder,
        selection=config.selection(),
        in_memory=config.in_memory,
    )
    places, ranks = draw_long_tail(config, everything)
    training = everything.take(places)
    config = resolved(config, side=max(training.shape[1:]))
    model, channels = build_model(config, training)
    check_classifier(config, model, classes=len(training.class_names))
    model.to(device)
    # Pixel work needs numbers that MPS does not have.
    pixels = torch.device("cpu") if device.type == "mps" else device
    mean, deviation = pixel_constants(images_for_statistics(training))
    short_name = data_name(config.data)
    split = {
        "seed": config.seed,
        "imbalance": config.imbalance,
        "labels_sha256": hashlib.sha256(everything.labels.numpy().tobytes()).hexdigest(),
        "classes_by_rank": [training.class_names[number] for number in ranks],
        "training": places.tolist(),
        "images_sha256": data_digest(everything),
        "test_sha256": data_digest(test),
    }
    if config.init_from is not None:
        split["init_from_sha256"] = digest_of_file(config.init_from)
    return Job(
        config=config,
        name=f"imwa-{short_name}-{config.method}-seed-{config.seed}",
        data_name=short_name,
        training=training,
        test=test,
        pixels=Reading(training, device=pixels),
        test_pixels=Reading(test, device=pixels),
        unlabelled=int((everything.labels < 0).sum()),
        counts=count_by_class(training.labels, len(training.class_names)),
        split=split,
        state=_build_state(config, model, device, together),
        schedule=_build_schedule(config),
        order=Order(len(training), batch_size=config.batch_size, seed=config.seed),
        shift=max(1, min(training.shape[1:]) // 8),
        constants=(mean.to(pixels), deviation.to(pixels)),
        channels=channels,
        device=device,
    )


def draw_long_tail(config: "TrainConfig", images: AnyImages) -> tuple[Tensor, list[int]]:
    """Places of the images to train on, Int64, and the classes from the most to the least frequent.

    Which class is rare is drawn anew for each seed (it decides much), or follows the labels as the published CIFAR-LT
    sets do; see --class-order.

    Raises:
        UserError: an imbalance that leaves a class without an image.
    """
    names = images.class_names
    if config.imbalance is None:
        counts = count_by_class(images.labels, len(names))
        empty = [name for name, count in zip(names, counts, strict=True) if count == 0]
        if empty:
            raise UserError(
                f"Class {empty[0]!r} has no training image in {images.place}. Add images, or leave the class out."
            )
        return (images.labels >= 0).nonzero().flatten(), sorted(range(len(names)), key=lambda k: (-counts[k], k))
    ranks = list(range(len(names)))
    if config.class_order == "drawn":
        ranks = torch.randperm(len(names), generator=stream(config.seed, "split", "class order")).tolist()
    generator = stream(config.seed, "split", "long tail")
    return long_tail(images.labels, config.imbalance, generator=generator, class_names=names, order=ranks), ranks


def resolved(config: "TrainConfig", *, side: int) -> "TrainConfig":
    """The configuration with what depends on the run filled in: threads and intervals."""
    one_thread = config.model == "small" and side <= LARGEST_SIDE_OF_ONE_THREAD
    total = cost_of(plan_stages(config))
    return replace(
        config,
        threads=config.threads or (1 if one_thread else torch.get_num_threads()),
        evaluate_every=config.evaluate_every or max(1, config.steps // 10),
        checkpoint_every=config.checkpoint_every or max(1, total // 10),
    )


def plan_of(config: "TrainConfig") -> tuple[int, int]:
    """Replicas and episodes of the method: a single run has one of each, vanilla averaging one episode."""
    values = {"one": 1, "replicas": config.replicas, "episodes": config.episodes}
    replicas, episodes = PER_METHOD[config.method]
    return values[replicas], min(values[episodes], config.steps)


def plan_stages(config: "TrainConfig") -> list[Stage]:
    """The run's stages: one, or a shared start or a single end around that of the replicas."""
    replicas, episodes = plan_of(config)
    return stages_of(
        config.steps,
        replicas=replicas,
        episodes=episodes,
        shared_start=config.shared_start,
        average_until=config.average_until,
    )


def _build_state(config: "TrainConfig", model: nn.Module, device: torch.device, together: Company) -> TrainingState:
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
    )
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    ema = None if config.ema_decay is None else MovingAverage(model, decay=config.ema_decay)

    def driver(stage: Stage) -> IMWA:
        return IMWA(
            model,
            optimizer,
            replicas=stage.replicas,
            episodes=stage.episodes,
            steps=stage.stop - stage.start,
            seed=config.seed,
            optimizer_state=config.optimizer_state,
            carry={"scaler": scaler},
            average={} if ema is None else {"ema": ema.model},
            group=together.group if stage.replicas > 1 else None,  # one replica is trained by every process alike
            deterministic=config.deterministic,
            batch_norm=config.batch_norm,
            on_nan=config.on_nan.replace("-", " "),
        )

    return TrainingState(
        model,
        optimizer,
        scaler,
        [(stage, driver(stage)) for stage in plan_stages(config)],
        losses=torch.zeros(2, device=device),
        ema=ema,
        ensemble=Ensemble() if config.ensemble else None,
    )


def _build_schedule(config: "TrainConfig") -> Schedule:
    """Steps and intervals; the loss is read a hundred times a replica."""
    assert config.evaluate_every is not None
    assert config.checkpoint_every is not None
    return Schedule(
        steps=config.steps,
        rate=config.learning_rate,
        schedule=config.schedule,
        log_every=max(1, config.steps // 100),
        evaluate_every=config.evaluate_every,
        checkpoint_every=config.checkpoint_every,
        warm_up=round(config.warm_up * config.steps),
    )
