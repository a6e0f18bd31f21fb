"""A training loop with accelerate: 8x8 digits, an MLP, AdamW, bfloat16 autocast."""

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits

STEPS = 300

accelerator = Accelerator(mixed_precision="bf16")
pixels, labels = load_digits(return_X_y=True)
pixels = torch.tensor(pixels / 16, dtype=torch.float32, device=accelerator.device)
labels = torch.tensor(labels, device=accelerator.device)

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)
model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)

for _ in range(STEPS):
    index = torch.randint(0, 1400, (64,))
    optimizer.zero_grad()
    with accelerator.autocast():
        loss = torch.nn.functional.cross_entropy(model(pixels[index]), labels[index])
    accelerator.backward(loss)
    optimizer.step()
    scheduler.step()

accuracy = (model(pixels[1400:]).argmax(1) == labels[1400:]).float().mean().item()
print(f"test accuracy {100 * accuracy:.1f} %")
