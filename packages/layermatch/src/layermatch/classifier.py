"""From any classification model to a module whose forward returns features and which holds the classifier.

    split = split_classifier(model)        split(x): Float[N D]        split.classifier: Linear, D -> K
    split.classifier(split(x)) is what model(x) was

Features must come out of the wrapped model's own `forward`, and the classifier must sit inside it: only then does
DistributedDataParallel synchronise both (a classifier outside gets single-process gradients, silently).
Letters   N images, D features, K classes.
"""

import gc
from collections.abc import Mapping
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
                are not (N, D); the layer is named, with what to do. Errors of the model itself pass.
        """
        marker = self.body.get_submodule(self.classifier_name)
        assert isinstance(marker, ClassifierMarker)
        try:
            output = self.body(*inputs, **named_inputs)
        except Exception as error:
            if self._works_whole(marker, *inputs, **named_inputs):
                raise ValueError(
                    f"{self._what_is_wrong()}: without it the model stops with {type(error).__name__}: {error}. A model"
                    " with two heads cannot be split as it is; another layer is named by"
                    f" split_classifier(model, classifier='...'). {linear_layers(self.body)}"
                ) from error
            raise
        features, marker.seen = marker.seen, None
        output = answer_of(output, features)
        if features is None or output is not features:
            raise ValueError(
                f"{self._what_is_wrong()}: the model returned a {type(output).__name__} of its own. Take away what comes"
                " behind it (a softmax belongs to the loss), or name the layer whose output the model returns:"
                f" split_classifier(model, classifier='...'). {linear_layers(self.body)}"
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

    def _what_is_wrong(self) -> str:
        return (
            f"{type(self.body).__name__} does not return what its layer {self.classifier_name!r} gives, so this layer is"
            " not its classifier"
        )

    def _works_whole(self, marker: nn.Module, *inputs: Any, **named_inputs: Any) -> bool:
        """Whether the model runs on these inputs with its classifier in its place: then the split made it stop."""
        parent, _, attribute = self.classifier_name.rpartition(".")
        setattr(self.body.get_submodule(parent), attribute, self.classifier)
        try:
            with torch.no_grad():
                self.body(*inputs, **named_inputs)
        except Exception:
            return False
        finally:
            setattr(self.body.get_submodule(parent), attribute, marker)
        return True

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


def answer_of(output: Any, features: Tensor | None) -> Any:
    """The logits within what a model returned: itself, or `.logits`, `["logits"]`, or the first of a tuple."""
    if output is features:
        return output
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"]
    if isinstance(output, tuple) and output and not hasattr(output, "logits"):
        return output[0]
    return getattr(output, "logits", output)


def linear_layers(model: nn.Module) -> str:
    """A sentence with the names of a model's linear layers, the last ones of many."""
    names = [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear | ClassifierMarker) and name
    ]
    shown = [*(["..."] if len(names) > 8 else []), *names[-8:]]
    return f"Its linear layers are: {', '.join(shown) or 'none'}."


def split_classifier(model: nn.Module, *, classifier: str | None = None) -> SplitModel:
    """Cut a model before its classifier.

    The model is changed in place: its classifier moves into the wrapper, with the same parameters, and the model now
    ends before it. Works on classifiers of torchvision, timm and transformers and on one's own module, if the
    classifier's output is what the model returns, or the logits within (`.logits`, `["logits"]`, first of a tuple).

    Args:
        model: gives logits Float[N K] for images.
        classifier: name of the layer, as `model.named_modules()` has it; None takes the last `torch.nn.Linear`. A whole
            head of several layers can be named too; then `avg_clustering="classifier"` has no rows to average.

    Raises:
        ValueError: the model is split, compiled, or wrapped for several devices already; the name is unknown; or there
            is no linear layer. The message says how to name the layer. A layer that turns out not to be the last is
            refused by the wrapper's first forward.
    """
    if isinstance(model, SplitModel | nn.parallel.DistributedDataParallel | nn.DataParallel) or "_orig_mod" in dict(
        model.named_children()
    ):
        raise ValueError(
            f"The model is a {type(model).__name__} already. Split the plain model, then wrap or compile the result."
        )
    modules = dict(model.named_modules())
    if classifier is None:
        linear = [name for name, module in modules.items() if isinstance(module, nn.Linear) and name]
        if not linear:
            raise ValueError(
                f"{type(model).__name__} has no torch.nn.Linear inside, so its classifier was not found. Name the layer "
                "that takes features (N, D) and gives the logits (N, K): split_classifier(model, classifier='...'), with "
                "a name from model.named_modules()."
            )
        classifier = linear[-1]
    if not classifier or classifier not in modules:
        raise ValueError(f"{type(model).__name__} has no layer named {classifier!r}. {linear_layers(model)}")
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
