"""The same loop with IMWA: three replicas, ten averages."""

import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from imwa import IMWA

STEPS = 300

pixels, labels = load_digits(return_X_y=True)
pixels, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)
loader = DataLoader(TensorDataset(pixels[:1400], labels[:1400]), batch_size=64, shuffle=True)

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)

for replica in IMWA(model, optimizer, replicas=3, episodes=10, steps=STEPS, carry={"scheduler": scheduler}):
    for _, (x, y) in replica.batches(loader):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        scheduler.step()

accuracy = (model(pixels[1400:]).argmax(1) == labels[1400:]).float().mean().item()
print(f"test accuracy {100 * accuracy:.1f} %")
