"""LayerMatch in Lightning: a callback that moves the averaged centres, and a model average, after each optimizer step.

    trainer = lightning.Trainer(callbacks=[LayerMatchCallback(ema_momentum=0.999)])

The hook looks at `trainer.global_step`, which counts real optimizer steps, also under gradient accumulation. Where a
gradient scaler leaves a step out (fp16) the averages move towards weights that stayed. The criterion, an attribute of the
LightningModule, is found by itself; its state travels in Lightning's checkpoints as a part of the module, the average's as
a part of the callback.
"""

import warnings
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from layermatch.criterion import LayerMatch
from layermatch.methods import Supervised
from layermatch.training.ema import ModelAverage


class LayerMatchCallback(lightning.Callback):
    """Calls `update()` of every criterion in the module after each optimizer step, and keeps a model average.

    Args:
        ema_momentum: of the model average per step, in [0, 1]; None keeps none.
        evaluate_average: validate, test and predict with the average's weights; the live ones are put back behind.

    Attributes:
        average: the `ModelAverage`, from the start of the fit on; None where there is none.

    Raises:
        ValueError: at the start of the fit, where the module holds no criterion of layermatch and no average is asked for.
    """

    def __init__(self, *, ema_momentum: float | None = None, evaluate_average: bool = True) -> None:
        if ema_momentum is not None and not 0.0 <= ema_momentum <= 1.0:
            raise ValueError(f"ema_momentum is {ema_momentum}. Choose a number from 0 to 1, such as 0.999.")
        self.ema_momentum = ema_momentum
        self.evaluate_average = evaluate_average
        self.average: ModelAverage | None = None
        self._criteria: list[LayerMatch | Supervised] = []
        self._loaded: dict[str, Any] | None = None
        self._live: dict[str, Tensor] | None = None
        self._steps = 0

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Find the criteria, and begin the average as a copy of the model."""
        self._criteria = [module for module in pl_module.modules() if isinstance(module, LayerMatch | Supervised)]
        if not self._criteria and self.ema_momentum is None:
            raise ValueError(
                f"{type(pl_module).__name__} holds no criterion of layermatch, so LayerMatchCallback has nothing to move. "
                "Make it an attribute in __init__: self.criterion = LayerMatch(self.classifier)."
            )
        if self.ema_momentum is not None:
            self.average = ModelAverage(_Weights(pl_module), momentum=self.ema_momentum)
            if self._loaded is not None:
                self.average.load_state_dict(self._loaded)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note how many steps a resumed fit has behind it, which Lightning knows from here on alone.

        Warns of fp16 beside an optimizer that is not a fused one: the scaler then reads the device at each step.
        """
        self._steps = trainer.global_step
        plain = [type(one).__name__ for one in trainer.optimizers if not _fused(one)]
        if trainer.precision == "16-mixed" and plain:
            warnings.warn(
                f"precision is 16-mixed and {plain[0]} was built without fused=True, so the gradient scaler waits for the "
                "device at each step to learn whether to leave it out. Build it with fused=True, or choose bf16-mixed.",
                stacklevel=2,
            )

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After a batch: where it was a real optimizer step, move centres and average."""
        if trainer.global_step == self._steps:  # gradients were gathered alone
            return
        self._steps = trainer.global_step
        for criterion in self._criteria:
            criterion.update()
        if self.average is not None:
            self.average.update()

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Validate the average."""
        self._exchange(pl_module)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Go on with the live weights."""
        self._put_back(pl_module)

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Test the average."""
        self._exchange(pl_module)

    def on_test_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Go on with the live weights."""
        self._put_back(pl_module)

    def on_predict_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Predict by the average."""
        self._exchange(pl_module)

    def on_predict_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Go on with the live weights."""
        self._put_back(pl_module)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """A validation that failed leaves the live weights behind too."""
        self._put_back(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The average's state, for Lightning's checkpoint."""
        return {} if self.average is None else {"average": self.average.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until the fit begins, when there is an average to load it into."""
        self._loaded = state_dict.get("average")

    @torch.no_grad()
    def _exchange(self, model: lightning.LightningModule) -> None:
        if self.average is None or not self.evaluate_average or self._live is not None:
            return
        weights = _Weights(model)
        self._live = {name: tensor.detach().clone() for name, tensor in weights.state_dict().items()}
        weights.load_state_dict(self.average.state_dict())

    @torch.no_grad()
    def _put_back(self, model: lightning.LightningModule) -> None:
        if self._live is not None:
            _Weights(model).load_state_dict(self._live)
            self._live = None


def _fused(optimizer: Any) -> bool:
    return all(group.get("fused") for group in getattr(optimizer, "optimizer", optimizer).param_groups)


class _Weights(nn.Module):
    """The module's own layers, without the criteria: their centres have an average of their own, and no copy is wanted."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for name, child in model.named_children():
            if not isinstance(child, LayerMatch | Supervised):
                self.add_module(name, child)
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
