"""What is done to each package: one small run on built-in data, in the forms that a fault may meet, with all that is random in it on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Job(NamedTuple):
    """A package's command.

    Attributes:
        package: its name, and its script's.
        words: of the run, without a folder.
        forms: words that are added, one list a form: workers, accumulation and the like.
        steps: that the run counts in all.
        refusals: words of a resume that would change its result, each with what the sentence must hold.
        loads: modules that the parent of the children imports.
        golden: words of 100 steps of the method on built-in data.
    """

    package: str
    words: tuple[str, ...]
    forms: tuple[tuple[str, ...], ...]
    steps: int
    refusals: tuple[tuple[tuple[str, ...], str], ...]
    loads: tuple[str, ...]
    golden: tuple[str, ...]


# What every command imports, at once or on its way: torch's compiler comes with the first optimizer, and costs 2 CPU seconds.
SHARED = (
    *("torch", "torch._dynamo", "torch.utils.serialization.config", "safetensors.torch", "numpy"),
    *("importlib.resources.readers", "sklearn.datasets", "sklearn.datasets.data", "sklearn.datasets.descr"),
    *("matplotlib.figure", "matplotlib.font_manager", "matplotlib.backends.backend_agg"),
    *("PIL.Image", "PIL.PngImagePlugin", "PIL.BmpImagePlugin", "PIL.GifImagePlugin", "PIL.JpegImagePlugin"),
    *("PIL.PpmImagePlugin", "cyclopts.core", "cyclopts.exceptions", "cyclopts.validators", "cyclopts._run"),
)
IMAGES = "images"  # stands for the folder of pictures that `make_images` writes

JOBS = {
    "layermatch": Job(
        "layermatch",
        (
            *("train", "--model", "cnn", "--labels-per-class", "4", "--steps", "12", "--batch-size", "8"),
            *("--unlabelled-ratio", "2", "--checkpoint-every", "3", "--evaluate-every", "5", "--threads", "1"),
            *("--tracker", "none", "--device", "cpu"),
        ),
        (
            ("digits",),
            (IMAGES, "--no-in-memory", "--workers", "2"),
            (IMAGES, "--accumulate", "4", "--avg-clustering", "prototypes"),
            (IMAGES, "--weighting", "freematch", "--avg-clustering", "temporal"),
        ),
        12,
        (
            (("--steps", "30"), "--steps is 30"),
            (("--seed", "5"), "--seed is 5"),
            (("--model", "small"), "--model is 'small'"),
            (("--method", "fixmatch"), "--method is 'fixmatch'"),
            (("--labels-per-class", "5"), "--labels-per-class is 5"),
            (("--avg-clustering", "teacher"), "--avg-clustering is 'teacher'"),
            (("--batch-size", "9"), "--batch-size is 9"),
        ),
        (
            *("layermatch.commands.train", "scarce_common_utils.images", "layermatch.commands.outcome"),
            *("layermatch.commands.predict", "layermatch.commands.evaluate", "tqdm.auto", "yaml"),
            *("accelerate", "accelerate.accelerator", "accelerate.tracking", "accelerate.commands.config.config_args"),
        ),
        (
            *("train", "digits", "--model", "cnn", "--labels-per-class", "4", "--steps", "100", "--batch-size", "8"),
            *("--unlabelled-ratio", "2", "--threads", "1", "--tracker", "none", "--device", "cpu"),
        ),
    ),
    "imwa": Job(
        "imwa",
        (
            *("train", "--imbalance", "5", "--replicas", "2", "--episodes", "3", "--steps", "9", "--threads", "1"),
            *("--checkpoint-every", "4", "--evaluate-every", "6", "--batch-size", "8", "--device", "cpu"),
        ),
        (
            ("digits",),
            (IMAGES, "--no-in-memory", "--optimizer-state", "local", "--no-diagnostics"),
            (IMAGES, "--optimizer-state", "reset", "--batch-norm", "pooled", "--ema-decay", "0.9"),
            (IMAGES, "--shared-start", "0.25", "--ensemble", "--no-diagnostics"),
        ),
        18,
        (
            (("--steps", "30"), "--steps is 30"),
            (("--seed", "5"), "--seed is 5"),
            (("--replicas", "3"), "--replicas is 3"),
            (("--episodes", "2"), "--episodes is 2"),
            (("--loss", "balanced-softmax"), "--loss is 'balanced-softmax'"),
            (("--model", "resnet32"), "--model is 'resnet32'"),
            (("--optimizer-state", "reset"), "--optimizer-state is 'reset'"),
        ),
        ("imwa.commands.train", "imwa.commands.average", "imwa.files", "scarce_common_utils.images"),
        (
            *("train", "digits", "--imbalance", "5", "--replicas", "2", "--episodes", "5", "--steps", "100"),
            *("--batch-size", "8", "--threads", "1", "--device", "cpu"),
        ),
    ),
    "randommask": Job(
        "randommask",
        (
            *("pretrain", "--steps", "12", "--tokens", "16", "--batch-size", "2", "--checkpoint-every", "3"),
            *("--dropout", "0.1", "--evaluation-windows", "4", "--threads", "1", "--device", "cpu"),
        ),
        (
            (),
            ("--workers", "2"),
            ("--accumulation", "4"),
            ("--windows", "strided", "--reverse-complement", "0.5", "--method", "uniform"),
        ),
        12,
        (
            (("--steps", "30"), "--steps is 30"),
            (("--seed", "5"), "--seed is 5"),
            (("--k", "5"), "--k is 5"),
            (("--method", "dnabert"), "--method is 'dnabert'"),
            (("--size", "small"), "--size is 'small'"),
            (("--tokens", "40"), "--tokens is 40"),
            (("--batch-size", "5"), "--batch-size is 5"),
        ),
        (
            *("randommask.commands.pretrain", "randommask.commands.finetune", "randommask.commands.embed"),
            *("randommask.commands.gue", "randommask.commands.observe", "randommask.commands.overlap"),
            *("randommask.training.pretraining", "randommask.training.evaluation", "randommask.training.report"),
            *("randommask.training.quiet", "randommask.models.masked_bert", "randommask.models.starts"),
            *("randommask.models.presets", "randommask.commands.score", "randommask.tokenizer"),
        ),
        ("pretrain", "--steps", "100", "--tokens", "32", "--batch-size", "4", "--threads", "1", "--device", "cpu"),
    ),
}


def words_of(job: Job, form: int, *, images: Callable[[], Path]) -> list[str]:
    """Words of the run in one of its forms."""
    return [str(images()) if word == IMAGES else word for word in (*job.words, *job.forms[form])]


def make_images(folder: Path) -> Path:
    """Write 200 of the built-in digits as pictures in folders by class, once."""
    from PIL import Image
    from sklearn.datasets import load_digits

    if not folder.is_dir():
        digits: Any = load_digits()  # a Bunch, which its stubs take for a pair
        aside = folder.with_name("images-being-made")
        for number, (pixels, label) in enumerate(zip(digits.images[:200], digits.target[:200], strict=True)):
            path = aside / str(label) / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * 15.9375).astype("uint8")).save(path)
        aside.rename(folder)
    return folder
