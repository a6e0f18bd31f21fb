"""What a model needs around it to be trained: optimizer, average, scaler and counters, as every run of this package has them.

Source    SGD with Nesterov momentum 0.9, and weight decay on matrices and kernels alone: FixMatch, arXiv 2001.07685, and USB.
"""

from collections.abc import Callable

import torch
from torch import nn

from layermatch.classifier import SplitModel
from layermatch.criterion import LayerMatch
from layermatch.methods import Supervised

from .ema import ModelAverage
from .guard import NonFinite, fill_momentum
from .processes import Processes
from .separate import SeparateForwards
from .state import METRICS, TrainingState, trained_parameters

NESTEROV_MOMENTUM = 0.9


def surround(
    split: SplitModel,
    criterion: LayerMatch | Supervised,
    *,
    classes: int,
    learning_rate: float,
    weight_decay: float,
    ema_momentum: float,
    scaled: bool = False,
    compiled: bool = False,
    wrap: Callable[[nn.Module], nn.Module | None] | None = None,
    processes: Processes | None = None,
) -> TrainingState:
    """The state of a run before its first step.

    Args:
        split: the model, on its device; its parameters are laid flat.
        criterion: over the model's classifier, on the same device.
        classes: K.
        learning_rate: at step 0.
        weight_decay: on matrices and kernels, not on norms and biases.
        ema_momentum: of the evaluated average per step.
        scaled: scale the loss, for fp16.
        compiled: compile the network; the average, which is evaluated, stays plain.
        wrap: gives the model as several processes call it, or None where there is one alone.
        processes: who trains along; None is one process alone.
    """
    device = next(split.parameters()).device
    parameters = trained_parameters(split)
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=learning_rate, momentum=NESTEROV_MOMENTUM, nesterov=True, fused=True)
    fill_momentum(optimizer)
    average = ModelAverage(split, momentum=ema_momentum, flat=True)
    if compiled:
        split.compile()
    separate = SeparateForwards(split) if "unlabelled" in criterion.needs and "strong" not in criterion.needs else None
    return TrainingState(
        model=split,
        criterion=criterion,
        optimizer=optimizer,
        average=average,
        scaler=torch.amp.GradScaler(device.type, enabled=scaled),
        nonfinite=NonFinite(device),
        sums=torch.zeros(len(METRICS) + classes, device=device),
        separate=separate,
        wrapped=None if wrap is None else wrap(split if separate is None else separate),
        processes=Processes() if processes is None else processes,
    )
