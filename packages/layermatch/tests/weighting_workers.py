"""The rules under test by name, batches for them, and what each of two gloo processes does with them.

A module of its own, so that another process can import it.
"""

from datetime import timedelta

import torch
from torch import nn

from layermatch import (
    FixedThreshold,
    FlexMatchWeighting,
    FreeMatchWeighting,
    PseudoLabelWeighting,
    SoftMatchWeighting,
)
from layermatch.processes import summed

IMAGES, STEPS = 40, 5

RULES = {
    "fixed": lambda classes=4, images=IMAGES: FixedThreshold(0.6),
    "pseudolabel": lambda classes=4, images=IMAGES: PseudoLabelWeighting(8.0, threshold=0.6),
    "flexmatch": lambda classes=4, images=IMAGES: FlexMatchWeighting(classes, images, threshold=0.6),
    "flexmatch, no warm-up": lambda classes=4, images=IMAGES: FlexMatchWeighting(
        classes, images, threshold=0.6, warm_up=False, mapping="concave"
    ),
    "freematch": lambda classes=4, images=IMAGES: FreeMatchWeighting(classes, momentum=0.7, fairness_weight=0.5),
    "freematch, torchssl": lambda classes=4, images=IMAGES: FreeMatchWeighting(
        classes, momentum=0.7, variant="torchssl", limits=(0.3, 0.6)
    ),
    "freematch, quantile": lambda classes=4, images=IMAGES: FreeMatchWeighting(
        classes, momentum=0.7, quantile=0.8, limits=(0.0, 0.6)
    ),
    "softmatch": lambda classes=4, images=IMAGES: SoftMatchWeighting(classes, momentum=0.7),
    "softmatch, torchssl": lambda classes=4, images=IMAGES: SoftMatchWeighting(
        classes, momentum=0.7, variant="torchssl"
    ),
    "softmatch, unaligned": lambda classes=4, images=IMAGES: SoftMatchWeighting(classes, momentum=0.7, alignment=False),
}


def probabilities(samples, classes, dtype=torch.float64, *, seed=0, sharpness=2.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(sharpness * torch.randn(samples, classes, generator=generator, dtype=torch.float64), -1).to(
        dtype
    )


def batch(step, samples=12, classes=4, dtype=torch.float64, images=IMAGES):
    """Weak probabilities, strong logits and indices, some of them twice."""
    generator = torch.Generator().manual_seed(1000 + step)
    strong = 2.0 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    indices = torch.randint(images, (samples,), generator=generator)
    indices[-1] = indices[0]
    return probabilities(samples, classes, dtype, seed=step), strong.to(dtype), indices


def start(classes):
    """1/K as a rule's state begins with it, in float32."""
    return torch.tensor(1.0 / classes, dtype=torch.float32).item()


def called(rule, q, strong, indices, **keywords):
    """The rule's answer, and the gradient of its extra term with respect to the strong logits."""
    strong = strong.detach().requires_grad_()
    answer = rule(q, strong_logits=strong, indices=indices, **keywords)
    if answer.extra is None:
        return answer, None
    return answer, torch.autograd.grad(answer.extra, strong)[0]


def state_of(rule):
    return {name: value.clone() for name, value in rule.state_dict().items()}


def same_state(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def learn(rule, processes, rank):
    """Weights, masks, extra terms and a shared linear layer's mean gradient over the steps; a NaN batch at step 2."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 4, bias=False).double()
    weights, masks, extras, gradients = [], [], [], []
    for step in range(STEPS):
        q, strong, indices = batch(step)
        if step == 2:
            q[3, 1] = float("nan")  # in rank 0's half alone
        q, strong, indices = (part.chunk(processes)[rank] for part in (q, strong, indices))
        answer = rule(q, strong_logits=layer(strong), indices=indices)
        rule.update(step_taken=torch.tensor(step != 2))
        weights.append(answer.weights)
        masks.append(answer.mask)
        if answer.extra is not None:
            (gradient,) = torch.autograd.grad(answer.extra, layer.weight)
            if processes > 1:  # as DistributedDataParallel: the mean over processes
                torch.distributed.all_reduce(gradient)
            extras.append(answer.extra.detach())
            gradients.append(gradient / processes)
    return weights, masks, extras, gradients, state_of(rule)


def known_not_finite(rule, rank):
    """The state before and after a batch that one rank alone knows not to be finite."""
    q, strong, indices = (part.chunk(2)[rank] for part in batch(50))
    before = state_of(rule)
    rule(q, strong_logits=strong, indices=indices, finite=torch.tensor(rank == 0))
    return before, state_of(rule)


def worker(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(minutes=10)
    )
    found = {}
    for name, build in RULES.items():
        rule = build().double()
        found[name] = learn(rule, 2, rank)
        found[name, "not finite"] = known_not_finite(rule, rank)
    twice = FlexMatchWeighting(3, 5, threshold=0.5)
    q = torch.eye(3, dtype=torch.float64)[[1, 2]] if rank == 0 else torch.eye(3, dtype=torch.float64)[[0, 0]]
    twice(q, indices=torch.tensor([4, 1]) if rank == 0 else torch.tensor([1, 3]))
    found["twice"] = state_of(twice)
    given = torch.tensor([1.0 + rank, 5.0])
    found["summed"], found["given"] = summed(given), given
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.monitored_barrier()  # or gloo may abort one of them at its end
    torch.distributed.destroy_process_group()
