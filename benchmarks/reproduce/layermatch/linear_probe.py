"""`linear-probe --run FOLDER`: how good a run's features are, apart from its classifier.

A logistic regression is fitted with the true labels of all training images to the frozen features of the run's averaged model, each
feature scaled to mean 0 and deviation 1, and tested on the run's test images. It is a measurement, with labels that the run had not.
Letters   N images, D features.
"""

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from scarce_common_utils.command_line import Command, Option, run_commands
from scarce_common_utils.errors import UserError
from scarce_common_utils.images import load_images
from scarce_common_utils.records import Record, write_record

IMAGES_AT_ONCE = 512
LARGEST_ITERATIONS = 300


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Options of the probe."""

    run: Annotated[Path, Option("Finished run folder of `layermatch train`")]
    out: Annotated[Path, Option("Folder for result.json")]
    seed: Annotated[int, Option("Seed of the record", at_least=0)] = 0
    given: frozenset[str] = frozenset()


def probe(config: ProbeConfig) -> None:
    """Fit and test a logistic regression on the frozen features of a run."""
    began = time.monotonic()
    options, described = _options(config.run), _json(config.run / "model" / "config.json")
    training, test = load_images(
        options["data"], image_size=options["image_size"], test_share=options["test_share"], seed=options["seed"]
    )
    split = _network(config.run, described)
    inputs, targets = features(split, training.images, described), training.labels
    mean, deviation = inputs.mean(0), inputs.std(0).clamp(min=1e-6)
    known = targets >= 0
    score = _regression(
        ((inputs[known] - mean) / deviation, targets[known]),
        ((features(split, test.images, described) - mean) / deviation, test.labels),
    )
    record = Record(
        experiment="layermatch-linear-probe",
        arm="probe",
        seed=config.seed,
        numbers={"probe_accuracy": score},
        units={"probe_accuracy": "%"},
        versions={
            name: metadata.version(name) for name in ("layermatch", "scarce-common-utils", "torch", "scikit-learn")
        },
        seconds=time.monotonic() - began,
        threads=torch.get_num_threads(),
    )
    write_record(config.out / "result.json", record)
    print(f"probe accuracy {score:.2f} %")


@torch.no_grad()
def features(split: nn.Module, images: Tensor, described: dict[str, Any]) -> Tensor:
    """Float32[N D] of UInt8[N C H W], in eval mode."""
    mean, deviation = (torch.tensor(described[name]).view(1, -1, 1, 1) for name in ("mean", "deviation"))
    parts = [split.eval()((part.float() - mean) / deviation) for part in images.split(IMAGES_AT_ONCE)]
    return torch.cat(parts)


def main(words: Sequence[str]) -> int:
    """Exit code of the command line."""
    return run_commands("linear-probe", "0.1.0", {"probe": Command(probe, ProbeConfig)}, ["probe", *words])


def _network(run: Path, described: dict[str, Any]) -> nn.Module:
    """The run's averaged network before its classifier."""
    from safetensors.torch import load_file

    from layermatch import small_wide_resnet, split_classifier
    from layermatch.models.small_cnn import SmallCNN

    classes, channels = len(described["class_names"]), described["channels"]
    if described["model"] == "cnn":
        model: nn.Module = SmallCNN(classes, channels=channels)
    elif described["model"] == "small":
        model = small_wide_resnet(classes, channels=channels, side=max(described["image_size"]))
    else:
        raise UserError(f"The run's model is {described['model']!r}; the probe knows cnn and small.")
    model.load_state_dict(load_file(run / "model" / "model.safetensors"))
    return split_classifier(model)


def _regression(training: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Accuracy in percent on the test part."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(max_iter=LARGEST_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last digits of a probe do not matter
        fitted.fit(training[0].numpy(), training[1].numpy())
    return 100.0 * float(fitted.score(test[0].numpy(), test[1].numpy()))


def _options(run: Path) -> dict[str, Any]:
    content = _json(run / "config.json")
    return content.get("options", content)


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); is it the folder of a finished run?") from error
