"""Options that several commands share, as frozen keyword-only dataclasses to inherit from."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from scarce_common_utils.command_line import NOT_STORED, Operands, Option
from scarce_common_utils.errors import UserError
from scarce_common_utils.image_folders import read_class_list
from scarce_common_utils.image_sources import FOLDS, Selection

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a run writes, what it draws from, and on what it computes."""

    seed: Annotated[int, Option("Seed of all randomness; the same seed gives the same bits on a CPU", at_least=0)] = 0
    out: Annotated[Path | None, Option("Run folder to make; by default a new one under runs/")] = None
    resume: Annotated[Path | None, Option("Run folder to go on with; data and options come from it")] = None
    config: Annotated[
        Path | None, Option("Run folder whose run to begin anew, in a new folder; options given here come first")
    ] = None
    device: Annotated[str, Option("cpu, cuda, cuda:1, mps; auto takes the accelerator where there is one")] = "auto"
    precision: Annotated[Precision, Option("Numbers of the forward pass: bf16 and fp16 by autocast")] = "float32"
    given: frozenset[str] = frozenset()  # names of the options that the person wrote; filled in by command_line
    inherited: frozenset[str] = frozenset()  # those written in the run that --config named

    @property
    def unsettled(self) -> bool:
        """Whether options still come from another run's folder, so that they cannot be held against each other yet."""
        return self.resume is not None or self.config is not None

    @property
    def written(self) -> frozenset[str]:
        """Names of the options that a person wrote, here or in the run that --config named."""
        return (self.given | self.inherited) - NOT_STORED - {"out"}


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What becomes of the trained model; none of it changes a number."""

    licence: Annotated[
        str | None, Option("Of the written model, for its card, such as cc-by-4.0; by default the card names none")
    ] = None
    push_to_hub: Annotated[
        str | None, Option("Repository of the Hugging Face Hub that the model goes to at the end, such as me/digits")
    ] = None


@dataclass(frozen=True, kw_only=True)
class ImageDataOptions:
    """Which images, and how they are brought to one size."""

    data: Annotated[
        str | None,
        Operands(
            "DATA",
            "A folder of images, a parquet or npz file, a list (.txt, .json), `digits` (built in), torchvision:NAME or hf:NAME; an "
            "existing path comes first",
        ),
    ] = None
    image_size: Annotated[
        int | None,
        Option(
            "Side of the square that images are resized and cropped to; by default their own size, 64 where sizes differ",
            at_least=4,
            at_most=1024,
            unit="pixels",
        ),
    ] = None
    test_share: Annotated[
        float, Option("Share of each class held out where the data have no test part", above=0.0, below=1.0)
    ] = 0.2
    download: Annotated[bool, Option("Let torchvision:NAME fetch its files")] = True
    data_folder: Annotated[Path, Option("Where torchvision:NAME keeps its files")] = Path("data")
    classes: Annotated[
        Path | None, Option("Text file with the names of the classes to keep, one a line, in that order")
    ] = None
    fold: Annotated[
        int | None, Option("Which of STL-10's ten folds of 1,000 labels to use", at_least=0, at_most=FOLDS - 1)
    ] = None
    extra: Annotated[bool, Option("Let SVHN's extra images join the training images")] = False
    image_column: Annotated[str | None, Option("Of a Hugging Face or parquet set; by default it is found")] = None
    label_column: Annotated[str | None, Option("Of a Hugging Face or parquet set; by default it is found")] = None
    image_root: Annotated[Path | None, Option("Folder that a list's paths start from; by default the list's own")] = (
        None
    )
    test_list: Annotated[
        Path | None, Option("Test part of a list; by default the file beside it with test or val for train in its name")
    ] = None

    def selection(self, *, unlabelled: bool = False) -> Selection:
        """What of the data is taken, for `load_images`; `unlabelled` adds images that a set keeps apart without labels.

        Raises:
            UserError: the file of classes cannot be read.
        """
        return Selection(
            classes=None if self.classes is None else read_class_list(self.classes),
            fold=self.fold,
            extra=self.extra,
            unlabelled=unlabelled,
            image_column=self.image_column,
            label_column=self.label_column,
            image_root=self.image_root,
            test_list=self.test_list,
        )


@dataclass(frozen=True, kw_only=True)
class StreamingOptions:
    """Whether images stay on disk, and who decodes them; none of it changes a number."""

    in_memory: Annotated[
        bool | None, Option("Decode all images at the start; by default where they take at most 4 GiB")
    ] = None
    workers: Annotated[
        int | None,
        Option(
            "That decode images left on disk; by default a core each, at most 8; 0 is the run itself",
            at_least=0,
            unit="processes",
        ),
    ] = None


def choose_device(name: str) -> "torch.device":
    """`torch.device` for an option's value; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        UserError: the name is no device, or the device is not here.
    """
    import torch  # here, so that the options alone, and with them a command's help, do not load it

    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator if accelerator is not None and accelerator.type in ("cuda", "mps") else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        if reason.startswith("Expected one of"):
            raise UserError(
                f"--device is {name!r}, which is no device. Choose cpu, cuda, cuda:1, mps or auto."
            ) from error
        raise UserError(f"--device is {name!r}, which cannot be used here ({reason}). Choose cpu, or auto.") from error
    return device
