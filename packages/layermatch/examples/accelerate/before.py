"""FixMatch with accelerate: scikit-learn's digits, 40 labels. Run: accelerate launch before.py [steps]"""

import sys

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn

generator = torch.Generator().manual_seed(0)


class Model(nn.Module):
    """Its forward returns features and it holds the classifier, so that accelerate synchronises both."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
        self.classifier = nn.Linear(64, 10)

    def forward(self, images):
        return self.body(images)


def weak(images):
    return images + 0.05 * torch.randn(images.shape, generator=generator)


def strong(images):
    return images * (torch.rand(images.shape, generator=generator) > 0.3) + 0.2 * torch.randn(
        images.shape, generator=generator
    )


def main(steps):
    images, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
    images, labels = images.float() / 16, labels.long()
    labelled = torch.cat([(labels[:1297] == digit).nonzero()[:4, 0] for digit in range(10)])
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    generator.manual_seed(accelerator.process_index)
    model = Model()
    classifier = model.classifier
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    model, optimizer = accelerator.prepare(model, optimizer)
    for _ in range(steps):
        chosen = labelled[torch.randint(40, (16,), generator=generator)]
        pool = images[torch.randint(1297, (112,), generator=generator)]
        features = model(torch.cat([weak(images[chosen]), weak(pool), strong(pool)]))
        f_labelled, f_weak, f_strong = features.split([16, 112, 112])
        loss = nn.functional.cross_entropy(classifier(f_labelled), labels[chosen])
        confidence, pseudo = classifier(f_weak.detach()).softmax(-1).max(-1)
        unlabelled = nn.functional.cross_entropy(classifier(f_strong), pseudo, reduction="none")
        loss = loss + ((confidence >= 0.95) * unlabelled).mean()
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
    right = classifier(model(images[1297:])).argmax(1) == labels[1297:]
    accelerator.print(f"test accuracy after {steps} steps: {100 * right.float().mean():.1f} %")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 600)
