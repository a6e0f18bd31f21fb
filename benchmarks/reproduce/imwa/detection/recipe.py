"""The detection recipe: supervised, Unbiased Teacher, and Unbiased Teacher iterated by IMWA, over seeds, with their records.

What is ours: IMWA averages student and teacher (its `average=`), both over replicas, with the optimizer's state; the burn-in is
part of T, and an episode ends with it, so that all teachers start equal. Pseudo-boxes are each replica's own. The reported
model is the teacher; the student stands beside it.
"""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

import torch

from imwa import IMWA
from reproduce.imwa.detection.coco import Archive, Boxes, labelled_part, read_split
from reproduce.imwa.detection.detector import build_detector
from reproduce.imwa.detection.evaluation import Precision, evaluate
from reproduce.imwa.detection.teacher import MeanTeacher
from reproduce.imwa.detection.training import Settings, rate, step_loss
from scarce_common_utils.checkpoints import load_checkpoint, newest_checkpoint, save_checkpoint
from scarce_common_utils.command_line import Option
from scarce_common_utils.errors import UserError
from scarce_common_utils.figures import table
from scarce_common_utils.options import choose_device
from scarce_common_utils.progress import Progress
from scarce_common_utils.random_state import seed_random_state
from scarce_common_utils.records import (
    Record,
    difference_text,
    paired_difference,
    read_record,
    record_path,
    summary,
    write_record,
)
from scarce_common_utils.run_folder import to_stderr
from scarce_common_utils.streams import stream, stream_seed

ARMS = ("supervised", "teacher", "teacher-imwa")
BASELINE = "teacher"
NUMBERS = ("ap50", "ap", "student_ap50")
LOG_EVERY = 20
LEAST_SUPERVISED_AP50 = 30.0


@dataclass(frozen=True, kw_only=True)
class DetectionConfig:
    """Options of the recipe; the source's numbers are named where ours are smaller."""

    data: Annotated[Path | None, Option("Folder in COCO's format, or one tar of it")] = None
    percent: Annotated[
        float, Option("Labelled share of the images with a box (source: 0.5 to 10)", above=0.0, below=100.0)
    ] = 20.0
    seeds: Annotated[tuple[int, ...], Option("One run of each arm a seed; give it once for each")] = (0, 1)
    arms: Annotated[tuple[Literal["supervised", "teacher", "teacher-imwa"], ...], Option("Which arms run")] = ARMS
    steps: Annotated[int, Option("T, of each replica (source: 180,000)", at_least=2)] = 600
    burn_in: Annotated[int | None, Option("Supervised steps first; by default a third (source: 2,000)", at_least=0)] = (
        None
    )
    replicas: Annotated[int, Option("M of teacher-imwa", at_least=1)] = 3
    episodes: Annotated[int, Option("E of teacher-imwa", at_least=1)] = 6
    batch_size: Annotated[int, Option("Labelled, and as many unlabelled, images a step (source: 32)", at_least=1)] = 4
    learning_rate: Annotated[float, Option("Of SGD after its warm-up", above=0.0)] = 0.01
    teacher_decay: Annotated[
        float | None, Option("By default a memory of a tenth of the run (source: 0.9996)", at_least=0.0, at_most=1.0)
    ] = None
    threshold: Annotated[float, Option("Score above which a teacher's box counts", at_least=0.0, at_most=1.0)] = 0.7
    unsupervised_weight: Annotated[float, Option("Of the losses on the teacher's boxes", at_least=0.0)] = 4.0
    side: Annotated[int, Option("Shorter side (source: 640 to 800)", at_least=64, unit="pixels")] = 160
    backbone: Annotated[
        Literal["small", "resnet18", "resnet34", "resnet50"],
        Option("Feature extractor (source: resnet50 with weights)"),
    ] = "small"
    weights: Annotated[Path | None, Option("State of torchvision's classifier of that name")] = None
    device: Annotated[str, Option("cpu, cuda or auto")] = "auto"
    out: Annotated[Path, Option("Folder for checkpoints and records")] = Path("runs/reproduce/imwa-detection")
    given: frozenset[str] = frozenset()

    @property
    def settings(self) -> Settings:
        """What a step needs, with the defaults that depend on the run filled in."""
        return Settings(
            batch_size=self.batch_size,
            # The source draws from 640 to 800; the same ratio below the evaluation's side.
            sides=tuple(round(self.side * share) for share in (0.8, 0.85, 0.9, 0.95, 1.0)),
            longest=round(self.side * 1333 / 800),
            burn_in=self.steps // 3 if self.burn_in is None else self.burn_in,
            threshold=self.threshold,
            unsupervised_weight=self.unsupervised_weight,
            learning_rate=self.learning_rate,
            warm_up=min(1000, self.steps // 10),
            unlabelled=True,
        )

    @property
    def decay(self) -> float:
        """Of the teacher."""
        return 1.0 - 10.0 / max(self.steps, 20) if self.teacher_decay is None else self.teacher_decay


def detection(config: DetectionConfig) -> None:
    """Train detectors from few boxes and many images without, and print a table of their average precision."""
    if config.data is None:
        raise UserError("--data is missing. Give a folder in COCO's format, or one tar of it.")
    archive = Archive(config.data)
    training = read_split(archive, "train")
    test = read_split(archive, "test" if archive.has("annotations/test.json") else "val")
    if test.class_names != training.class_names:
        raise UserError(
            f"The classes of the training part are {training.class_names}, of the test part {test.class_names}; they must agree."
        )
    warn_of_burn_in(config)
    digest = digest_of(config, training)
    records = []
    for seed in config.seeds:
        for arm in config.arms:
            shell = Record(experiment=f"detection-{config.data.stem}", arm=arm, seed=seed, numbers={}, digest=digest)
            path = record_path(config.out / "records", shell)
            if not path.is_file() or read_record(path).digest != digest:
                write_record(path, run_arm(config, arm, seed=seed, training=training, test=test, shell=shell))
            records.append(read_record(path))
    print(report(config, records, training=training, test=test))


def warn_of_burn_in(config: DetectionConfig) -> None:
    """Say so where no episode ends with the burn-in."""
    length = config.steps / config.episodes
    if "teacher-imwa" in config.arms and config.settings.burn_in % length:
        to_stderr(
            f"reproduce: the burn-in ends at step {config.settings.burn_in}, inside an episode of {length:g} steps: teachers of the "
            "replicas start unequal. Choose --burn-in a multiple of the episode's length."
        )


def digest_of(config: DetectionConfig, training: Boxes) -> str:
    """Of the options that decide the numbers, the annotations and the package's version."""
    options = {
        name: value for name, value in asdict(config).items() if name not in ("given", "out", "seeds", "arms", "device")
    }
    options |= {"data": [*training.names, *training.class_names], "version": metadata.version("imwa")}
    return hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()[:16]


def run_arm(config: DetectionConfig, arm: str, *, seed: int, training: Boxes, test: Boxes, shell: Record) -> Record:
    """Train one arm at one seed, from its newest checkpoint where there is one."""
    began = time.monotonic()
    device, settings = choose_device(config.device), config.settings
    labelled, unlabelled = labelled_part(training, config.percent, generator=stream(seed, "split", "boxes"))
    seed_random_state(stream_seed(seed, "init"))
    classes = len(training.class_names)
    student = build_detector(
        classes, backbone=config.backbone, side=config.side, longest=settings.longest, weights=config.weights
    ).to(device)
    teacher = MeanTeacher(student, decay=config.decay)
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=config.learning_rate, momentum=0.9, weight_decay=1e-4)
    several = arm == "teacher-imwa"
    settings = replace(settings, unlabelled=arm != "supervised")
    iterative = IMWA(
        student,
        optimizer,
        replicas=config.replicas if several else 1,
        episodes=config.episodes if several else 1,
        steps=config.steps,
        seed=seed,
        average={"teacher": teacher},
    )
    folder = config.out / "checkpoints" / arm / f"seed-{seed:03d}"
    done = resumed(folder, iterative, digest=shell.digest)
    total = config.steps * iterative.plan.replicas
    every, shown = max(1, total // 10), dict[str, float]()
    with Progress(total, "steps", label=f"{arm}, seed {seed}", start=done) as bar:
        for replica in iterative:
            for step in replica.steps:
                student.train()
                for group in optimizer.param_groups:
                    group["lr"] = rate(step, settings)
                loss = step_loss(
                    student,
                    teacher,
                    data=training,
                    labelled=labelled,
                    unlabelled=unlabelled,
                    step=step,
                    generator=replica.generator,
                    settings=settings,
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                done += 1
                if done % LOG_EVERY == 0:
                    shown["loss"] = float(loss.detach())
                    check_finite(shown["loss"], arm=arm, step=step)
                bar.advance(1, **shown)
                if done % every == 0:
                    state = {"digest": shell.digest, "done": done, "iterative": iterative.state_dict()}
                    save_checkpoint(folder, step=done, state=state)
    best, own = (evaluate(m, test, side=config.side, longest=settings.longest) for m in (teacher.model, student))
    return Record(
        experiment=shell.experiment,
        arm=arm,
        seed=seed,
        digest=shell.digest,
        numbers=numbers_of(best, own, test),
        units=dict.fromkeys(numbers_of(best, own, test), "%"),
        versions={name: metadata.version(name) for name in ("imwa", "torch", "torchvision", "torchmetrics")},
        seconds=time.monotonic() - began,
        threads=torch.get_num_threads(),
        device=device.type,
    )


def resumed(folder: Path, iterative: IMWA, *, digest: str) -> int:
    """Steps done: those of the newest checkpoint of this very configuration, loaded, or 0."""
    path = newest_checkpoint(folder, report=to_stderr)
    if path is None:
        return 0
    state = load_checkpoint(path)
    if state["digest"] != digest:
        return 0
    iterative.load_state_dict(state["iterative"])
    return int(state["done"])


def check_finite(loss: float, *, arm: str, step: int) -> None:
    """Raise a UserError that names the step where the loss is not finite."""
    if not math.isfinite(loss):
        raise UserError(f"The loss of {arm} is {loss} at step {step}. Lower --learning-rate.")


def numbers_of(teacher: Precision, student: Precision, test: Boxes) -> dict[str, float | None]:
    """Numbers of a record, in percent: of the teacher, its classes, and of the student."""
    classes = {f"ap_{name}": value for name, value in zip(test.class_names, teacher.by_class, strict=True)}
    return {
        "ap": teacher.ap,
        "ap50": teacher.ap50,
        "ap75": teacher.ap75,
        "student_ap": student.ap,
        "student_ap50": student.ap50,
        **classes,
    }


def report(config: DetectionConfig, records: Sequence[Record], *, training: Boxes, test: Boxes) -> str:
    """Table of means over seeds, paired differences from the plain teacher, and what may not be said."""
    labelled = len(labelled_part(training, config.percent, generator=stream(config.seeds[0], "split", "boxes"))[0])
    rows = []
    for arm in config.arms:
        cells = []
        for number in NUMBERS:
            mean, deviation, _ = summary(records, arm=arm, number=number)
            cells.append(f"{mean:.1f}" if deviation is None else f"{mean:.1f} ± {deviation:.1f}")
        cost = config.replicas if arm == "teacher-imwa" else 1
        seconds = [record.seconds for record in records if record.arm == arm]
        rows.append([arm, *cells, str(cost), f"{sum(seconds) / len(seconds):.0f}"])
    parts = [
        f"{labelled} labelled of {len(training)} training images, {len(test)} test images, {config.steps} steps, seeds "
        f"{', '.join(map(str, config.seeds))}. AP of the teacher, in percent.",
        table(["arm", "AP50", "AP", "student AP50", "cost", "s"], rows),
    ]
    if len(config.seeds) > 1 and BASELINE in config.arms:
        others = [arm for arm in config.arms if arm != BASELINE]
        lines = [
            f"{arm} - {BASELINE}, AP50: {difference_text(paired_difference(records, arm=arm, baseline=BASELINE, number='ap50'))}"
            for arm in others
        ]
        parts += lines
    if "supervised" in config.arms:
        supervised = summary(records, arm="supervised", number="student_ap50").mean
        if supervised < LEAST_SUPERVISED_AP50:
            parts.append(
                f"No evidence at this scale: the supervised detector's AP50 is {supervised:.1f} %, under {LEAST_SUPERVISED_AP50:g} %."
            )
    return "\n".join(parts)
