"""Options of the three commands, in a module that loads no torch: help, and the answer to a misspelt option, come at once.

The dataclasses would stand at the top of their commands' files, were it not for that.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from scarce_common_utils.command_line import Operands, Option
from scarce_common_utils.options import ImageDataOptions, ModelOptions, RunOptions, StreamingOptions

# Names that other projects (USB, TorchSSL, FixMatch-pytorch) have for our options, for the error of an unknown option.
HINTS = {
    "p_cutoff": "--threshold",
    "ulb_loss_ratio": "--unlabelled-weight",
    "lambda_u": "--unlabelled-weight",
    "uratio": "--unlabelled-ratio",
    "mu": "--unlabelled-ratio",
    "ema_m": "--ema-momentum",
    "num_labels": "--labels-per-class (a number for each class)",
    "lb_num_labels": "--labels-per-class (a number for each class)",
    "num_train_iter": "--steps",
    "total_steps": "--steps",
    "epoch": "--steps (there are no epochs)",
    "num_eval_iter": "--evaluate-every",
    "num_save_iter": "--checkpoint-every",
    "lr": "--learning-rate",
    "algorithm": "--method",
    "alg": "--method",
    "net": "--model",
    "arch": "--model",
    "img_size": "--image-size",
    "dataset": "DATA, without a flag",
    "data_dir": "DATA, without a flag (--data-folder is where torchvision:NAME keeps its files)",
    "save_dir": "--out",
    "save_name": "--out",
    "load_path": "--resume (a run folder)",
    "gpu": "--device",
    "gpu_id": "--device",
    "amp": "--precision bf16, or fp16",
    "use_amp": "--precision bf16, or fp16",
    "use_tensorboard": "--tracker tensorboard",
    "use_wandb": "--tracker wandb",
    "multiprocessing_distributed": "accelerate launch, or torchrun, before the command",
    "world_size": "accelerate launch, or torchrun, before the command",
    "ent_loss_ratio": "--variant (0.001 is usb's, 0.01 torchssl's)",
    "gradient_accumulation_steps": "--accumulate",
    "no_grad_relu": "--grad-relu off",
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunOptions, ImageDataOptions, StreamingOptions, ModelOptions):
    """Options of `layermatch train`."""

    labels_per_class: Annotated[
        int | None, Option("Labels that may be used of each class; all where some images have none", at_least=1)
    ] = None
    method: Annotated[
        Literal["supervised", "pseudolabel", "fixmatch", "flexmatch", "freematch", "softmatch", "layermatch"],
        Option("What the unlabelled images are used for"),
    ] = "layermatch"
    model: Annotated[
        str,
        Option(
            "small (a WideResNet for 8x8 to 64x64), cnn (three layers), wrn-28-2, wrn-28-8, wrn-37-2, or a torchvision name"
        ),
    ] = "small"
    steps: Annotated[int, Option("Optimizer steps", at_least=1)] = 1000
    batch_size: Annotated[int, Option("Labelled images a step", at_least=1)] = 16
    unlabelled_ratio: Annotated[
        int | None, Option("Unlabelled images for each labelled one; by default 7, and 1 for pseudolabel", at_least=1)
    ] = None
    threshold: Annotated[
        float | None,
        Option("Confidence from which a pseudo-label counts; by default 0.95", at_least=0.0, at_most=1.0),
    ] = None
    weighting: Annotated[
        Literal["fixed", "flexmatch", "freematch", "softmatch"],
        Option("Whose rule says how much a pseudo-label counts (layermatch)"),
    ] = "fixed"
    variant: Annotated[
        Literal["usb", "torchssl"], Option("Which published code freematch and softmatch follow where the two differ")
    ] = "usb"
    unlabelled_weight: Annotated[float, Option("Factor of the unlabelled loss", at_least=0.0)] = 1.0
    learning_rate: Annotated[float, Option("At the first step; falls by cosine 7/16 to a fifth", above=0.0)] = 0.05
    weight_decay: Annotated[float, Option("On matrices and kernels, not on norms and biases", at_least=0.0)] = 5e-4
    grad_relu: Annotated[
        Literal["cut", "agreement", "off", "reverse"],
        Option(
            "Which of the pseudo-labels' gradient reaches the classifier (layermatch): none; what agrees with the labelled "
            "images; all; all, and none the features (a control)"
        ),
    ] = "cut"
    avg_clustering: Annotated[
        Literal["classifier", "classifier-strong", "prototypes", "teacher", "temporal", "none"],
        Option("What is averaged into clustering centres (layermatch); which one the paper means is not known to us"),
    ] = "classifier"
    momentum: Annotated[
        float | None,
        Option(
            "Of the averaged centres per step (layermatch); by default a half-life of 1 % of the run, "
            "0.5^(100/steps), where the library's own default is 0.999; of temporal per visit of an image, 0.6",
            at_least=0.0,
            at_most=1.0,
        ),
    ] = None
    corrupt: Annotated[
        str | None,
        Option("For experiments: make a share of the pseudo-labels wrong, as uniform:0.3, pair:0.3 or fresh:0.3"),
    ] = None
    ema_momentum: Annotated[
        float | None,
        Option(
            "Of the evaluated model average per step; by default as --momentum's default", at_least=0.0, at_most=1.0
        ),
    ] = None
    threads: Annotated[
        int | None,
        Option(
            "Of torch on a CPU; by default 1 for the small model on images up to 16x16, else torch's choice", at_least=1
        ),
    ] = None
    views: Annotated[
        Literal["usb", "torchssl", "fixmatch-pytorch"], Option("Which published code the strong views follow")
    ] = "usb"
    skip_unreadable: Annotated[
        bool, Option("Leave out images that cannot be read, count and name them, instead of refusing to begin")
    ] = False
    accumulate: Annotated[
        int,
        Option("Equal parts that each process's batch is computed in, one after the other, to save memory", at_least=1),
    ] = 1
    on_nonfinite: Annotated[
        Literal["stop", "count"],
        Option(
            "A loss that is not finite never touches the model; the run stops and says where, or counts it and goes on"
        ),
    ] = "stop"
    compile: Annotated[bool, Option("Compile the network by torch.compile")] = False
    channels_last: Annotated[bool, Option("Lay out images with the channels last, which GPUs like")] = False
    tracker: Annotated[
        Literal["auto", "none", "tensorboard", "trackio", "wandb"],
        Option("Where the metrics go besides metrics.jsonl; auto is TensorBoard where it is installed"),
    ] = "auto"
    evaluate_every: Annotated[int | None, Option("By default a twentieth of the run", at_least=1, unit="steps")] = None
    checkpoint_every: Annotated[int | None, Option("By default a tenth of the run", at_least=1, unit="steps")] = None

    def __post_init__(self) -> None:
        """Refuse options that the chosen method would not look at."""
        if not self.unsettled:
            from layermatch.commands.criterion import refuse_unused

            refuse_unused(self)


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Options of `layermatch predict`."""

    words: Annotated[
        tuple[str, ...],
        Operands(
            "RUN IMAGES", "A finished run's folder, then images or folders of images; - is a list on standard input"
        ),
    ] = ()
    top: Annotated[int, Option("How many classes to name for each image, the likeliest first", at_least=1)] = 1
    skip_unreadable: Annotated[
        bool, Option("Leave out images that cannot be read, count and name them, instead of refusing all")
    ] = False
    output: Annotated[Path | None, Option("CSV file to write; by default, or by -, standard output", short="-o")] = None
    device: Annotated[str, Option("cpu, cuda, cuda:1, mps; auto takes the accelerator where there is one")] = "auto"
    given: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Options of `layermatch evaluate`."""

    words: Annotated[
        tuple[str, ...], Operands("RUN DATA", "A finished run's folder, then data as in `layermatch train`")
    ] = ()
    out: Annotated[
        Path | None, Option("New folder for table, numbers and figure; by default one in the run's `evaluations`")
    ] = None
    skip_unreadable: Annotated[
        bool, Option("Leave out images that cannot be read, count and name them, instead of refusing all")
    ] = False
    download: Annotated[bool, Option("Let torchvision:NAME fetch its files")] = True
    data_folder: Annotated[Path, Option("Where torchvision:NAME keeps its files")] = Path("data")
    device: Annotated[str, Option("cpu, cuda, cuda:1, mps; auto takes the accelerator where there is one")] = "auto"
    given: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class CheckConfig(TrainConfig):
    """Options of `layermatch check`: those of the run that it looks ahead at, but for where that writes and goes on."""

    out: Path | None = None
    resume: Path | None = None
    config: Path | None = None
    licence: str | None = None
    push_to_hub: str | None = None
