"""From any classification model to a module whose forward returns features and which holds the classifier.

    split = split_classifier(model)        split(x): Float[N D]        split.classifier: Linear, D -> K
    split.classifier(split(x)) is what model(x) was

Features must come out of the wrapped model's own `forward`, and the classifier must sit inside it: only then does
DistributedDataParallel synchronise both (a classifier outside gets single-process gradients, silently).
Letters   N images, D features, K classes.
"""

import gc
from typing import Any, Self

import torch
from torch import Tensor, nn


class SplitModel(nn.Module):
    """A model cut before its classifier. Build it with `split_classifier`.

    Attributes:
        body: the model, with a marker where its classifier was.
        classifier: the classifier, now a submodule here.
        classifier_name: its name in the model, such as `"fc"`.
    """

    def __init__(self, body: nn.Module, classifier: nn.Module, classifier_name: str) -> None:
        super().__init__()
        self.body = body
        self.classifier = classifier
        self.classifier_name = classifier_name

    def forward(self, *inputs: Any, **named_inputs: Any) -> Tensor:
        """Features Float[N D]: what would enter the classifier.

        Raises:
            ValueError: the model does more after this layer, returns something else than its logits, or the features
                are not (N, D); the layer is named, with what to do.
        """
        marker = self.body.get_submodule(self.classifier_name)
        assert isinstance(marker, ClassifierMarker)
        output = self.body(*inputs, **named_inputs)
        features, marker.seen = marker.seen, None
        if output is not features:
            output = getattr(output, "logits", output)
        if features is None or output is not features:
            raise ValueError(
                f"{type(self.body).__name__} does not return what its layer {self.classifier_name!r} gives (it returned"
                f" a {type(output).__name__} of its own), so this layer is not its classifier. Name the one whose output"
                " the model returns: split_classifier(model, classifier='...')."
            )
        if features.dim() != 2:
            raise ValueError(
                f"The input of {type(self.body).__name__}'s layer {self.classifier_name!r} has shape "
                f"{tuple(features.shape)}, and features must be (N, D), one row an image."
            )
        return features

    def logits(self, *inputs: Any, **named_inputs: Any) -> Tensor:
        """Float[N K]: what the whole model gives."""
        return self.classifier(self(*inputs, **named_inputs))

    def whole_state_dict(self) -> dict[str, Tensor]:
        """The state under the names that the model had before it was split."""
        state = dict(self.body.state_dict())
        state.update({f"{self.classifier_name}.{name}": value for name, value in self.classifier.state_dict().items()})
        return state


class ClassifierMarker(nn.Module):
    """Stands where the classifier was; remembers the features until the wrapper has compared them with the output."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Tensor | None = None

    def forward(self, features: Tensor) -> Tensor:
        """The features as they are."""
        self.seen = features
        return features


def split_classifier(model: nn.Module, *, classifier: str | None = None) -> SplitModel:
    """Cut a model before its classifier.

    The model is changed in place: its classifier moves into the wrapper, with the same parameters, and the model now
    ends before it. Works on torchvision's classifiers and on one's own module, if the classifier's output is what the
    model returns (or the `.logits` of what it returns).

    Args:
        model: gives logits Float[N K] for images.
        classifier: name of the layer, as `model.named_modules()` has it; None takes the last `torch.nn.Linear`.

    Raises:
        ValueError: the model is split, or wrapped for several processes, already; the name is unknown; or there is no
            linear layer. The message says how to name the layer. A layer that turns out not to be the last is refused
            by the wrapper's first forward.
    """
    if isinstance(model, SplitModel | nn.parallel.DistributedDataParallel):
        raise ValueError(f"The model is a {type(model).__name__} already. Split the plain model, then wrap the result.")
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name]
    if classifier is None:
        if not linear:
            raise ValueError(
                f"{type(model).__name__} has no torch.nn.Linear inside, so its classifier was not found. Name the "
                "layer: split_classifier(model, classifier='...'), with a name from model.named_modules()."
            )
        classifier = linear[-1]
    modules = dict(model.named_modules())
    if not classifier or classifier not in modules:
        raise ValueError(
            f"{type(model).__name__} has no layer named {classifier!r}. Its linear layers are: "
            f"{', '.join(linear) or 'none'}."
        )
    parent, _, attribute = classifier.rpartition(".")
    found = modules[classifier]
    setattr(modules[parent], attribute, ClassifierMarker())
    return SplitModel(model, found, classifier)


def refuse_unsynchronised(classifier: nn.Module) -> None:
    """Raise a ValueError if this process trains with DistributedDataParallel and the classifier is in no wrapped model.

    Looks once through the live objects for wrapped models, and only where several processes run. A classifier that is
    synchronised by other means (FSDP, by hand, without any DistributedDataParallel in the process) passes.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return
    wrapped = [item for item in gc.get_objects() if issubclass(type(item), nn.parallel.DistributedDataParallel)]
    if not wrapped or not any(parameter.requires_grad for parameter in classifier.parameters()):
        return
    if not any(part is classifier and part is not model for model in wrapped for part in model.module.modules()):
        raise ValueError(
            f"The classifier ({type(classifier).__name__}) is in no model that DistributedDataParallel wraps, so its "
            "gradient would differ between the processes. Wrap one module whose forward returns features and which "
            "holds the classifier: DistributedDataParallel(split_classifier(model))."
        )


class BorrowedModule:
    """A module that belongs to somebody else, held where `torch.nn.Module` does not look for submodules.

    A deepcopy of its holder alone keeps the same module. Where one deepcopy call copies both holder and module, in
    whichever order, the copy holds the copy: it looks the module up in the call's memo when it is first asked.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._memo: dict[int, Any] | None = None

    @property
    def module(self) -> nn.Module:
        """The module itself."""
        if self._memo is not None:
            self._module, self._memo = self._memo.get(id(self._module), self._module), None
        return self._module

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        duplicate = type(self)(self.module)
        duplicate._memo = memo
        return duplicate

    def __getstate__(self) -> dict[str, Any]:
        return {"_module": self.module, "_memo": None}
