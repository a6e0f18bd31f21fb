"""What each of two gloo processes does; in a module of its own, so that a spawned process can import it."""

from datetime import timedelta

import torch
from torch import nn

from layermatch import LayerMatch, split_classifier

STEPS, LABELLED, UNLABELLED = 3, 4, 6  # per process


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 4)).double()


def batch(step, processes, rank):
    """The rank's part of a global batch; with one process all of it."""
    generator = torch.Generator().manual_seed(step)
    draw = [torch.randn(2 * rows, 6, generator=generator, dtype=torch.float64) for rows in (LABELLED, UNLABELLED)]
    noise = torch.randn(2 * UNLABELLED, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (2 * LABELLED,), generator=generator)
    parts = (draw[0], labels, draw[1], draw[1] + noise)
    return [part.chunk(processes)[rank] for part in parts]


def train(wrapped, split, options, processes, rank):
    criterion = LayerMatch(split.classifier, **options)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.3, momentum=0.9)
    gradients, masks = [], []
    for step in range(STEPS):
        x, y, weak, strong = batch(step, processes, rank)
        features = wrapped(torch.cat([x, weak, strong]))
        labelled, f_weak, f_strong = features.split([len(x), len(weak), len(strong)])
        out = criterion(labelled=(labelled, y), weak=f_weak, strong=f_strong)
        optimizer.zero_grad()
        out.loss.backward()
        gradients.append([parameter.grad.clone() for parameter in split.parameters()])
        masks.append(float(out.weights.mean()))
        optimizer.step()
        criterion.update()
    return gradients, list(criterion.state_dict().values()), masks


def start(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )


def worker(rank, folder, options_by_name):
    start(rank, folder)
    found = {"outside": said_of_a_classifier_outside(rank)}
    for name, options in options_by_name.items():
        split = split_classifier(network())
        found[name] = train(nn.parallel.DistributedDataParallel(split), split, options, 2, rank)
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def said_of_a_classifier_outside(rank):
    model = network()
    body = nn.parallel.DistributedDataParallel(model[:3])
    criterion = LayerMatch(model[3])
    x, y, weak, strong = batch(0, 2, rank)
    try:
        criterion(labelled=(body(x), y), weak=body(weak), strong=body(strong))
    except ValueError as error:
        return str(error)
    return "nothing"
