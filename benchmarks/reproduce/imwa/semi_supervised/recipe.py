"""The semi-supervised recipe: FixMatch with ABC's balanced classifier over the field's profiles, its arms and its table.

    python -m reproduce.imwa.recipes semi-supervised                       built-in digits, a small profile of ours
    ... --data FOLDER                                                      Fashion-MNIST out of the reproductions' data files
    ... --data torchvision:CIFAR10 --profile abc-100 --model wrn-28-2      any set that `imwa train` takes, any profile
    ... --scale paper                                                      CIFAR-LT-SSL as DARP and ABC published it
    ... --scale paper --steps 2                                            the same on made images: does it run

Network, schedule and EMA of `--scale paper` are DARP's and ABC's; M and E are ours. At `--scale cpu` all settings are ours, and
each seed draws which class is rare and which images are taken.
"""

import hashlib
import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
from torch import nn

from layermatch import published_wide_resnet
from layermatch.models.small_cnn import SmallCNN
from layermatch.views.normalise import constants_on, measure
from reproduce.data_files import differing_files
from reproduce.imwa.semi_supervised.profiles import OURS, PUBLISHED, Parts, Profile, draw_parts, profile_of
from reproduce.imwa.semi_supervised.run import Ground, Numbers, run_arm
from reproduce.imwa.semi_supervised.tables import report
from reproduce.imwa.semi_supervised.training import Pool, Settings
from scarce_common_utils.command_line import Option
from scarce_common_utils.errors import UserError
from scarce_common_utils.image_sets import ImageSet, count_by_class, data_digest
from scarce_common_utils.images import data_name, load_images
from scarce_common_utils.options import choose_device
from scarce_common_utils.random_state import seed_random_state
from scarce_common_utils.records import Record, read_record, record_path, write_record
from scarce_common_utils.run_folder import to_stderr
from scarce_common_utils.streams import stream, stream_seed

FASHION = "images/fashion_mnist.npz"
CIFAR = {10: "torchvision:CIFAR10", 100: "torchvision:CIFAR100"}
TRIED = ("darp-100", "darp-100-reversed", "crest-100-10", "abc-cifar100")  # on made images: one of each kind
MADE_SIDE, MADE_IN_A_CLASS, MADE_TEST = 32, {10: 5000, 100: 500}, 20


class Defaults(NamedTuple):
    """What a scale sets where the person sets nothing: `model`, B, T, decay of the EMA (None: a tenth of the run), test images."""

    model: str
    batch_size: int
    steps: int
    ema_decay: float | None
    test_images: int | None


SCALES = {"cpu": Defaults("cnn", 32, 1000, None, 2000), "paper": Defaults("wrn-28-2", 64, 250_000, 0.999, None)}


@dataclass(frozen=True, kw_only=True)
class SemiSupervisedConfig:
    """Options of the recipe."""

    scale: Annotated[
        Literal["cpu", "paper"], Option("cpu: small, ours; paper: the field's protocol on CIFAR, for GPUs")
    ] = "cpu"
    data: Annotated[
        str | None,
        Option(
            "The folder of the reproductions' data files (Fashion-MNIST), or a source as `imwa train` takes it; by default digits"
        ),
    ] = None
    profile: Annotated[
        tuple[str, ...],
        Option("Counts by name (darp-100, abc-100, crest-100-10, ...) or N1/M1/g_l/g_u; give it once for each"),
    ] = ()
    method: Annotated[
        Literal["abc", "fixmatch"], Option("FixMatch with ABC's balanced classifier, or FixMatch alone")
    ] = "abc"
    arms: Annotated[
        tuple[Literal["single", "single-mt", "batch-mb", "mwa", "mwa-shared", "imwa"], ...], Option("Which arms run")
    ] = ("single", "single-mt", "batch-mb", "mwa", "mwa-shared", "imwa")
    seeds: Annotated[
        tuple[int, ...], Option("One run of each arm a seed; give it once for each; on made images 0 alone")
    ] = (0, 1, 2)
    steps: Annotated[
        int | None, Option("T, of each replica; by default 1,000, at --scale paper 250,000", at_least=2)
    ] = None
    replicas: Annotated[int, Option("M", at_least=1)] = 3
    episodes: Annotated[int, Option("E of the arm imwa", at_least=1)] = 10
    batch_size: Annotated[
        int | None, Option("Labelled images a step; by default 32, at --scale paper 64", at_least=1)
    ] = None
    unlabelled_ratio: Annotated[int, Option("Unlabelled images for a labelled one (ABC: 1)", at_least=1)] = 1
    learning_rate: Annotated[float, Option("Of Adam, constant", above=0.0)] = 0.002
    threshold: Annotated[float, Option("Confidence from which a pseudo-label counts", at_least=0.0, at_most=1.0)] = 0.95
    ema_decay: Annotated[
        float | None,
        Option("By default a memory of a tenth of the run, at --scale paper 0.999", at_least=0.0, at_most=1.0),
    ] = None
    optimizer_state: Annotated[
        Literal["average", "local", "reset"], Option("What becomes of Adam's moments when an episode ends")
    ] = "average"
    model: Annotated[
        Literal["cnn", "wrn-28-2"] | None, Option("By default cnn (three layers), at --scale paper wrn-28-2")
    ] = None
    image_size: Annotated[int | None, Option("Side that images are brought to", at_least=8, unit="pixels")] = None
    test_images: Annotated[
        int | None, Option("First of the test images alone; by default 2,000, at --scale paper all", at_least=10)
    ] = None
    data_folder: Annotated[Path, Option("Where torchvision:NAME keeps its files")] = Path("data")
    device: Annotated[str, Option("cpu, cuda or auto")] = "auto"
    out: Annotated[Path, Option("Folder for checkpoints and records")] = Path("runs/reproduce/imwa-semi-supervised")
    given: frozenset[str] = frozenset()

    @property
    def made(self) -> bool:
        """A few steps of the paper's protocol are a trial, for which nothing is fetched."""
        return self.scale == "paper" and self.steps is not None and self.data is None


def semi_supervised(config: SemiSupervisedConfig) -> None:
    """Train classifiers from few labelled and many unlabelled long-tailed images, and print a table of their accuracy."""
    for text in chosen_profiles(config):
        profile = profile_of(text)
        training, test = read_images(config, profile)
        device = choose_device(config.device)
        numbers = numbers_of(config, training)
        name = f"ssl-{'made' if config.made else data_name(source_of(config, profile))}-{text.replace('/', '-')}-{config.method}"
        digest = digest_of(config, numbers, profile, training=training, test=test)
        records, parts = [], None
        for seed in seeds_of(config):
            parts = draw_parts(
                profile,
                training.labels,
                classes=len(training.class_names),
                seed=None if config.scale == "paper" else seed,
            )
            ground = ground_of(parts, training, test, device=device, channels=training.shape[0])
            for arm in config.arms:
                shell = Record(experiment=name, arm=arm, seed=seed, numbers={}, digest=digest)
                path = record_path(config.out / "records", shell)
                if not path.is_file() or read_record(path).digest != digest:
                    folder = config.out / "checkpoints" / name / arm / f"seed-{seed:03d}"
                    network = network_of(config, training, seed=seed)
                    record = run_arm(
                        arm, numbers, ground=ground, network=network, seed=seed, folder=folder, shell=shell
                    )
                    write_record(path, record)
                records.append(read_record(path))
        assert parts is not None
        heading = f"{name}: {len(parts.labelled)} labelled, {len(parts.unlabelled)} unlabelled, {len(test)} test images"
        print(report(heading, records, numbers=numbers, arms=config.arms) + "\n")
    if config.made:
        print("Images were made and batches small: this says that the protocol runs, nothing else.")
    print(f"Records: {config.out / 'records'}")


def chosen_profiles(config: SemiSupervisedConfig) -> tuple[str, ...]:
    """Names or texts of the profiles that run.

    Raises:
        UserError: none is given, and the data have none of their own.
    """
    if config.profile:
        return config.profile
    if config.made:
        return TRIED
    if config.scale == "paper":
        return (
            tuple(PUBLISHED) if config.data is None else tuple(name for name, p in PUBLISHED.items() if p.classes == 10)
        )
    if config.data in (None, "digits"):
        return tuple(OURS)
    if fashion_file(config) is not None:
        return ("darp-100",)
    raise UserError(
        f"--profile is missing: how many images of {config.data} are labelled and unlabelled? Choose one of {', '.join(PUBLISHED)}, "
        "or write N1/M1/g_l/g_u."
    )


def seeds_of(config: SemiSupervisedConfig) -> tuple[int, ...]:
    """Those that run."""
    return config.seeds[:1] if config.made and "seeds" not in config.given else config.seeds


def fashion_file(config: SemiSupervisedConfig) -> Path | None:
    """Fashion-MNIST in the folder of the reproductions' data files, where --data is one."""
    path = None if config.data is None else Path(config.data) / FASHION
    return path if path is not None and path.is_file() else None


def source_of(config: SemiSupervisedConfig, profile: Profile) -> str:
    """What `load_images` is asked for."""
    fashion = fashion_file(config)
    if fashion is not None:
        return str(fashion)
    return config.data or (CIFAR[profile.classes] if config.scale == "paper" else "digits")


def read_images(config: SemiSupervisedConfig, profile: Profile) -> tuple[ImageSet, ImageSet]:
    """Training and test images.

    Raises:
        UserError: the data cannot be read, or are larger in a class than memory holds.
    """
    if config.made:
        return made_images(profile.classes or 10)
    fashion = fashion_file(config)
    if fashion is not None and differing_files(fashion.parent.parent, [FASHION]):
        to_stderr(f"reproduce: {FASHION} is not the file of benchmarks/README.md; numbers will differ.")
    source = source_of(config, profile)
    training, test = load_images(source, image_size=config.image_size, data_folder=config.data_folder)
    wanted = config.test_images or SCALES[config.scale].test_images
    return training, test if wanted is None else test.take(torch.arange(min(wanted, len(test))))


def made_images(classes: int) -> tuple[ImageSet, ImageSet]:
    """Noise of CIFAR's shape and counts, in label order; 20 test images."""
    generator = stream(0, "split", "made")
    labels = torch.arange(classes).repeat_interleave(MADE_IN_A_CLASS.get(classes, 500))
    names = tuple(f"made {number:03d}" for number in range(classes))

    def images(count: int) -> torch.Tensor:
        size = (count, 3, MADE_SIDE, MADE_SIDE)
        return torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)

    training = ImageSet(images(len(labels)), labels, names, "made images")
    return training, ImageSet(images(MADE_TEST), torch.arange(MADE_TEST) % classes, names, "made images")


def numbers_of(config: SemiSupervisedConfig, training: ImageSet) -> Numbers:
    """Numbers of the run, with the scale's where the person gave none; small batches on made images."""
    scale = SCALES[config.scale]
    settings = Settings(
        steps=config.steps or scale.steps,
        batch_size=config.batch_size or (2 if config.made else scale.batch_size),
        unlabelled_ratio=config.unlabelled_ratio,
        threshold=config.threshold,
        learning_rate=config.learning_rate,
        shift=max(1, min(training.shape[1:]) // 8),
        mirror=training.mirrored,
    )
    return Numbers(
        settings=settings,
        method=config.method,
        replicas=config.replicas,
        episodes=config.episodes,
        decay=scale.ema_decay if config.ema_decay is None else config.ema_decay,
        optimizer_state=config.optimizer_state,
    )


def digest_of(
    config: SemiSupervisedConfig, numbers: Numbers, profile: Profile, *, training: ImageSet, test: ImageSet
) -> str:
    """Of what decides the numbers: settings, profile, images, and the packages' versions."""
    versions = [metadata.version(name) for name in ("imwa", "layermatch", "scarce-common-utils")]
    content = [repr(numbers), repr(profile), config.scale, model_of(config), *versions]
    content += [data_digest(training), data_digest(test)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def ground_of(parts: Parts, training: ImageSet, test: ImageSet, *, device: torch.device, channels: int) -> Ground:
    """The images of both parts and of the test on the device; pixels are normalised by those trained on."""
    labelled, unlabelled = training.take(parts.labelled), training.take(parts.unlabelled)
    measured = measure(torch.cat([labelled.images, unlabelled.images]))
    pool = Pool(
        labelled=labelled.images.to(device),
        labels=labelled.labels.to(device),
        unlabelled=unlabelled.images.to(device),
        constants=constants_on(measured, device),
        channels=channels,
    )
    return Ground(
        pool=pool,
        test_images=test.images.to(device),
        test_labels=test.labels,
        counts=count_by_class(labelled.labels, len(training.class_names)),
        ranks=parts.ranks,
    )


def model_of(config: SemiSupervisedConfig) -> str:
    """Name of the network."""
    return config.model or SCALES[config.scale].model


def network_of(config: SemiSupervisedConfig, training: ImageSet, *, seed: int) -> nn.Module:
    """The network by name, drawn from the stream "init"."""
    seed_random_state(stream_seed(seed, "init"))
    classes, channels = len(training.class_names), training.shape[0]
    if model_of(config) == "cnn":
        return SmallCNN(classes, channels=channels)
    return published_wide_resnet("wrn-28-2", classes, channels=channels)
