"""LayerMatch on several processes. Run: torchrun --standalone --nproc-per-node=2 after.py [steps]"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

from layermatch import LayerMatch, half_life_momentum


class Model(nn.Module):
    """Its forward returns features and it holds the classifier: DistributedDataParallel then synchronises both."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
        self.classifier = nn.Linear(64, 10)

    def forward(self, images):
        return self.body(images)


def main(steps):
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    generator = torch.Generator().manual_seed(rank)
    images, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
    images, labels = images.float() / 16, labels.long()
    labelled = torch.cat([(labels[:1297] == digit).nonzero()[:4, 0] for digit in range(10)])
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(Model())
    classifier = model.module.classifier
    criterion = LayerMatch(classifier, threshold=0.95, momentum=half_life_momentum(steps))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    for _ in range(steps):
        chosen = labelled[torch.randint(40, (8,), generator=generator)]
        pool = images[torch.randint(1297, (56,), generator=generator)]
        noise = torch.randn(pool.shape, generator=generator)
        dropped = pool * (torch.rand(pool.shape, generator=generator) > 0.3)
        features = model(torch.cat([images[chosen], pool + 0.05 * noise, dropped + 0.2 * noise]))
        f_labelled, f_weak, f_strong = features.split([8, 56, 56])
        loss = criterion(labelled=(f_labelled, labels[chosen]), weak=f_weak, strong=f_strong).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        criterion.update()
    right = classifier(model(images[1297:])).argmax(1) == labels[1297:]
    if rank == 0:
        print(f"test accuracy after {steps} steps: {100 * right.float().mean():.1f} %")
    torch.distributed.monitored_barrier()  # or gloo may abort one of them at its end
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 600)
