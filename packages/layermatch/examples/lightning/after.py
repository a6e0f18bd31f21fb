"""LayerMatch in Lightning: scikit-learn's digits, 40 labels. Run: python after.py [steps]"""

import sys

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn

from layermatch import LayerMatch
from layermatch.integrations.lightning import LayerMatchCallback


class Batches(torch.utils.data.IterableDataset):
    """Endless (labelled images, labels, weak views, strong views)."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels
        self.labelled = torch.cat([(labels == digit).nonzero()[:4, 0] for digit in range(10)])

    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        while True:
            chosen = self.labelled[torch.randint(40, (16,), generator=generator)]
            pool = self.images[torch.randint(len(self.images), (112,), generator=generator)]
            dropped = pool * (torch.rand(pool.shape, generator=generator) > 0.3)
            noise = torch.randn(pool.shape, generator=generator)
            yield self.images[chosen], self.labels[chosen], pool + 0.05 * noise, dropped + 0.2 * noise


class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
        self.classifier = nn.Linear(64, 10)
        self.criterion = LayerMatch(self.classifier, threshold=0.95, momentum=0.9)

    def training_step(self, batch, _):
        images, labels, weak, strong = batch
        features = self.body(torch.cat([images, weak, strong]))
        f_labelled, f_weak, f_strong = features.split([len(images), len(weak), len(strong)])
        return self.criterion(labelled=(f_labelled, labels), weak=f_weak, strong=f_strong).loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, nesterov=True)


def main(steps):
    images, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
    images, labels = images.float() / 16, labels.long()
    lightning.seed_everything(0)
    model = Model()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(max_steps=steps, accelerator="cpu", callbacks=[LayerMatchCallback()], **quiet)
    trainer.fit(model, torch.utils.data.DataLoader(Batches(images[:1297], labels[:1297]), batch_size=None))
    right = model.classifier(model.body(images[1297:])).argmax(1) == labels[1297:]
    print(f"test accuracy after {steps} steps: {100 * right.float().mean():.1f} %")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 600)
