"""What each of two gloo processes does; in a module of its own, so that another process can import it."""

from datetime import timedelta

import torch
from torch import nn

from layermatch import FlexMatchWeighting, FreeMatchWeighting, LayerMatch, SoftMatchWeighting, split_classifier
from layermatch.methods import layermatch, pseudolabel

STEPS, LABELLED, UNLABELLED, IMAGES = 4, 4, 6, 15  # LABELLED and UNLABELLED per process


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 4)).double()


def batch(step, processes, rank):
    """The rank's part of a global batch; with one process all of it. Some images are there twice."""
    generator = torch.Generator().manual_seed(step)
    draw = [torch.randn(2 * rows, 6, generator=generator, dtype=torch.float64) for rows in (LABELLED, UNLABELLED)]
    noise = torch.randn(2 * UNLABELLED, 6, generator=generator, dtype=torch.float64)
    labels = (torch.arange(2 * LABELLED) + step) % 4
    indices = torch.randint(IMAGES, (2 * UNLABELLED,), generator=generator)
    parts = (draw[0], labels, draw[1], draw[1] + noise, indices)
    return [part.chunk(processes)[rank] for part in parts]


def build(classifier, options):
    """A criterion whose prototypes are in use as soon as all classes were seen."""
    rule = options.get("weighting")
    if rule == "pseudolabel":
        return pseudolabel(classifier, steps=5, threshold=0.4)
    rules = {
        "flexmatch": lambda: FlexMatchWeighting(4, IMAGES, threshold=0.4, warm_up=False),
        "freematch": lambda: FreeMatchWeighting(4, momentum=0.3, fairness_weight=0.3),
        "softmatch": lambda: SoftMatchWeighting(4, momentum=0.3),
    }
    own = {"weighting": rules[rule]()} if rule else {"threshold": 0.4}
    criterion = layermatch(classifier, **({"images": IMAGES} | options | own))
    if options.get("avg_clustering") == "prototypes":
        criterion.centres.prototype_steps.fill_(50)
    return criterion


def call(criterion, wrapped, parts):
    x, y, weak, strong, indices = parts
    features = wrapped(torch.cat([x, weak, strong])).split([len(x), len(weak), len(strong)])
    teacher = 2.0 * weak[:, :4]
    return criterion(
        labelled=(features[0], y), weak=features[1], strong=features[2], indices=indices, teacher_weak=teacher
    )


def train(wrapped, split, options, processes, rank):
    """Gradients of each step, the state at the end, the mean weight of each step and the state after a poisoned one."""
    criterion = build(split.classifier, options)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.3, momentum=0.9)
    gradients, weights = [], []
    for step in range(STEPS):
        out = call(criterion, wrapped, batch(step, processes, rank))
        optimizer.zero_grad()
        out.loss.backward()
        gradients.append([parameter.grad.clone() for parameter in split.parameters()])
        weights.append(float(out.weights.mean()))
        optimizer.step()
        criterion.update()
    state = {name: value.clone() for name, value in criterion.state_dict().items()}
    parts = batch(STEPS, processes, rank)
    if rank == processes - 1:
        parts[3][-1] = float("nan")  # the strong view of the global batch's last image
    call(criterion, wrapped, parts)
    criterion.update(step_taken=torch.tensor(False))
    return {"gradients": gradients, "state": state, "weights": weights, "poisoned": criterion.state_dict()}


def start(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(minutes=10)
    )


def worker(rank, folder, options_by_name):
    start(rank, folder)
    found = {"outside": said_of_a_classifier_outside(rank)}
    for name, options in options_by_name.items():
        split = split_classifier(network())
        found[name] = train(nn.parallel.DistributedDataParallel(split), split, options, 2, rank)
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.monitored_barrier()  # or gloo may abort one of them at its end
    torch.distributed.destroy_process_group()


def said_of_a_classifier_outside(rank):
    model = network()
    body = nn.parallel.DistributedDataParallel(model[:3])
    criterion = LayerMatch(model[3])
    x, y, weak, strong, _ = batch(0, 2, rank)
    try:
        criterion(labelled=(body(x), y), weak=body(weak), strong=body(strong))
    except ValueError as error:
        return str(error)
    return "nothing"
