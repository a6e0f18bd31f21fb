"""Training in Lightning: 8x8 digits, an MLP, SGD with a cosine schedule."""

import lightning
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

STEPS = 300


class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))

    def training_step(self, batch, _):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


pixels, labels = load_digits(return_X_y=True)
pixels, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)
loader = DataLoader(TensorDataset(pixels[:1400], labels[:1400]), batch_size=64, shuffle=True)

lightning.seed_everything(0)
model = Model()
trainer = lightning.Trainer(max_steps=STEPS, accelerator="cpu", logger=False, enable_checkpointing=False)
trainer.fit(model, loader)

accuracy = (model.net(pixels[1400:]).argmax(1) == labels[1400:]).float().mean().item()
print(f"test accuracy {100 * accuracy:.1f} %")
