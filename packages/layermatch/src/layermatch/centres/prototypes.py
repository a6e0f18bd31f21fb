"""Reading `prototypes` (ours): averaged features of each class, and the strong view's similarity to them.

    P_c <- m P_c + (1 - m) mean of the weak labelled features of class c,     the first sight of c sets P_c to that mean
    Z_s = s cos(f - P', P_c - P'),     P' = mean_c P_c,     s = 10

P moves in `update()`, from the labelled features of all forwards since the last one. Pseudo-labels and their weights
come from the live classifier. The common mean is taken off because features after ReLU have high mutual cosines, and
the softmax could not leave 1/K. Until every class has been seen, and for 50 steps at least, the strong logits are the
classifier's own, cut.

Source    LayerMatch, arXiv 2406.14207 (abstract); all of this is ours.
Letters   B labelled, U unlabelled samples, D features, K classes.
"""

import torch
from torch import Tensor, nn

from layermatch.grad_relu import grad_relu_logits
from layermatch.processes import summed

from .reading import Reading, check_device, check_momentum, device_of, wide_dtype

SCALE = 10.0
FEWEST_STEPS = 50
SMALLEST = 1e-24  # added to squared lengths, so that a row of zeros stays one


class Prototypes(Reading):
    """Moving averages of the labelled features of each class (reading `prototypes`, ours).

    Args:
        classifier: the live classifier; its dtype decides that of the state.
        classes: K.
        features: D.
        momentum: m in [0, 1], per optimizer step.

    State: `prototype_features` Float[K D] zeros, `prototype_seen` Bool[K], `prototype_steps` Int64[]. Reduced over
    processes in `update()`. Cost: K (D + 1) numbers twice, and one more matrix product on the strong view.
    """

    default_momentum = 0.999
    observes = True
    prototype_features: Tensor
    prototype_seen: Tensor
    prototype_steps: Tensor

    def __init__(
        self, classifier: nn.Module, *, classes: int, features: int, momentum: float = default_momentum
    ) -> None:
        super().__init__()
        self.momentum = check_momentum(momentum, reading="prototypes")
        device = device_of(classifier)
        start = torch.zeros(classes, features, dtype=wide_dtype(classifier), device=device)
        self.register_buffer("prototype_features", start)
        self.register_buffer("prototype_seen", torch.zeros(classes, dtype=torch.bool, device=device))
        self.register_buffer("prototype_steps", torch.zeros((), dtype=torch.int64, device=device))
        self._pending: Tensor | None = None  # Float[K D+1]: sums of features and counts since the last update

    def logits(self, strong: Tensor, classifier: nn.Module, *, cut: bool) -> Tensor:
        """Float[U K] similarities to the prototypes, or the cut classifier's logits as long as they are not ready.

        No gradient reaches the classifier. Without `cut` it receives delta^T F_s, straight through: zero is added, and
        the gradient of the classifier's logits with it.
        """
        check_device(self.prototype_features, strong)
        ready = self.prototype_seen.all() & (self.prototype_steps >= FEWEST_STEPS)
        # Filled and added, since the backward of `where` copies a number from the host.
        logits = self._similarities(strong).masked_fill(~ready, 0.0)
        logits = logits + grad_relu_logits(strong, classifier).masked_fill(ready, 0.0)
        if not cut:
            own = classifier(strong.detach())
            logits = logits + (own - own.detach())
        return logits

    @torch.no_grad()
    def observe(self, labelled: tuple[Tensor, Tensor], *, finite: Tensor) -> None:
        """Add the labelled features of this forward to the sums that `update()` uses."""
        features, labels = labelled
        kept = self.prototype_features
        members = (torch.arange(len(kept), device=labels.device)[:, None] == labels).to(kept.dtype)
        ones = torch.ones(len(features), 1, dtype=kept.dtype, device=features.device)
        with torch.autocast(features.device.type, enabled=False):
            sums = members @ torch.cat([features.to(kept.dtype), ones], dim=1)
        sums = torch.where(finite, sums, torch.zeros_like(sums))
        self._pending = sums if self._pending is None else self._pending + sums

    @torch.no_grad()
    def update(self, classifier: nn.Module, *, step_taken: Tensor | None = None) -> None:
        """Move the prototypes of the classes that were in the batch; see `Reading.update`."""
        if self._pending is None:
            return
        sums, self._pending = summed(self._pending), None
        counts = sums[:, -1:]
        means = sums[:, :-1] / counts.clamp(min=1.0)
        moved = torch.where(
            self.prototype_seen[:, None], self.prototype_features.lerp(means, 1.0 - self.momentum), means
        )
        present = (counts[:, 0] > 0) & means.isfinite().all(dim=-1)
        if step_taken is not None:
            present = present & step_taken
        self.prototype_features.copy_(torch.where(present[:, None], moved, self.prototype_features))
        self.prototype_seen.logical_or_(present)
        self.prototype_steps.add_(1 if step_taken is None else step_taken)

    def _similarities(self, strong: Tensor) -> Tensor:
        prototypes = self.prototype_features
        middle = prototypes.mean(dim=0)
        return SCALE * _unit(strong.to(prototypes.dtype) - middle) @ _unit(prototypes - middle).T


def _unit(rows: Tensor) -> Tensor:
    """Rows of length 1; `nn.functional.normalize` copies a number from the host in its backward."""
    return rows * (rows.square().sum(dim=-1, keepdim=True) + SMALLEST).rsqrt()
