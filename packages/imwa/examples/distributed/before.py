"""Data-parallel training: 8x8 digits, an MLP, SGD, gradients averaged at every step. Run: torchrun --nproc-per-node 2 before.py"""

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch.nn.parallel import DistributedDataParallel

STEPS = 300

dist.init_process_group("gloo")
pixels, labels = load_digits(return_X_y=True)
pixels, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
model = DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)
generator = torch.Generator().manual_seed(dist.get_rank())

for _ in range(STEPS):
    index = torch.randint(0, 1400, (64,), generator=generator)
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(pixels[index]), labels[index]).backward()
    optimizer.step()
    scheduler.step()

if dist.get_rank() == 0:
    accuracy = (model(pixels[1400:]).argmax(1) == labels[1400:]).float().mean().item()
    print(f"test accuracy {100 * accuracy:.1f} %")
dist.monitored_barrier()  # leave together
dist.destroy_process_group()
