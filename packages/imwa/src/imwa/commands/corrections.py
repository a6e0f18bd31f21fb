"""What `imwa train` does for rare classes after training: its options, what they exclude, the models, their numbers and table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NamedTuple

from torch import nn

from imwa.training.corrections import comparison
from imwa.training.evaluation import Evaluation
from scarce_common_utils.command_line import Option
from scarce_common_utils.errors import UserError

if TYPE_CHECKING:
    from imwa.commands.job import Job
    from imwa.commands.train import TrainConfig


@dataclass(frozen=True, kw_only=True)
class CorrectionOptions:
    """Logit adjustment and classifier re-training."""

    tau: Annotated[
        float | None,
        Option(
            "Strength of logit adjustment: in training with --loss logit-adjustment (1 by default); with --loss cross-entropy "
            "the final model is tested with adjusted logits too (post hoc)"
        ),
    ] = None
    retrain_steps: Annotated[
        int | None,
        Option(
            "Afterwards train the classifier anew on classes in equal shares, all else frozen (cRT); model/ then holds it",
            at_least=1,
        ),
    ] = None
    retrain_learning_rate: Annotated[
        float | None,
        Option("Its largest, cosine to 0; by default in proportion to the batch, 0.2 at 512", above=0.0),
    ] = None


class Corrected(NamedTuple):
    """A corrected model and what it reaches."""

    model: nn.Module
    evaluation: Evaluation


def refuse_corrections(config: "TrainConfig") -> None:
    """Raise a UserError where an option of this group would correct twice, or change nothing; the value is named."""
    deferred = config.reweighting == "deferred"
    own = "--reweighting deferred" if deferred else f"--loss {config.loss}"
    post_hoc = config.loss == "cross-entropy" and not deferred
    if config.tau is not None and not post_hoc and config.loss != "logit-adjustment":
        raise UserError(
            f"--tau is {config.tau:g}, but {own} balances the classes already. Leave --tau out, or choose --loss cross-entropy "
            "(adjusted after training) or --loss logit-adjustment (in training)."
        )
    if config.retrain_learning_rate is not None and config.retrain_steps is None:
        raise UserError(
            f"--retrain-learning-rate is {config.retrain_learning_rate:g}, but no classifier is trained anew. Give --retrain-steps."
        )
    if config.retrain_steps is not None and config.loss == "ldam":
        raise UserError(
            f"--retrain-steps is {config.retrain_steps}, but the classifier of --loss ldam gives cosines, which plain cross-entropy "
            "cannot train. Choose another --loss."
        )


def corrections(job: "Job") -> dict[str, Corrected]:
    """The final model as far as it is to be corrected: `adjusted`, `retrained`; the model itself stays as it is."""
    made, config = {}, job.config
    if config.tau is not None and config.loss == "cross-entropy":
        made["adjusted"] = job.adjusted(job.state.model)
    if config.retrain_steps is not None:
        made["retrained"] = job.retrained(job.state.model)
    return {name: Corrected(model, job.evaluation(model)) for name, model in made.items()}


def evaluations(corrected: Mapping[str, Corrected]) -> dict[str, Evaluation]:
    """Of each, by its name."""
    return {name: found.evaluation for name, found in corrected.items()}


def table_of(job: "Job", plain: Evaluation, corrected: Mapping[str, Corrected]) -> str:
    """A row a way of predicting, and what the rows are."""
    rows = comparison(plain, evaluations(corrected), counts=job.counts, labels=labels(job.config, tuple(corrected)))
    return f"{rows}\nplain: the model of the tables above; the others correct it once, for its rare classes."


def labels(config: "TrainConfig", names: Sequence[str]) -> dict[str, str]:
    """What each row is called."""
    known = {
        "adjusted": f"adjusted, tau {config.tau:g}" if config.tau is not None else "",
        "retrained": f"cRT, {config.retrain_steps} steps",
    }
    return {name: known[name] for name in names}
