"""A small Trainer for the tests, and what each of several processes does with it."""

import os

import torch
import transformers

SAMPLES, BATCH, STEPS, SEED = 44, 8, 6, 7  # 6 batches a pass, the last one short


class Net(torch.nn.Module):
    def __init__(self, dropout=0.2):
        super().__init__()
        torch.manual_seed(3)
        layers = [torch.nn.Linear(6, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Dropout(dropout)]
        self.net = torch.nn.Sequential(*layers, torch.nn.Linear(16, 4))

    def forward(self, features, labels):
        logits = self.net(features)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


class Samples(torch.utils.data.Dataset):
    def __init__(self, count=SAMPLES):
        draw = torch.Generator().manual_seed(5)
        self.features = torch.randn(count, 6, generator=draw)
        self.labels = (self.features @ torch.randn(6, 4, generator=draw)).argmax(1)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"features": self.features[index], "labels": self.labels[index]}


def trainer_of(kind, folder, callbacks=(), *, dropout=0.2, data=None, **options):
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": BATCH,
        "learning_rate": 0.05,
        "max_steps": STEPS,
        "lr_scheduler_type": "linear",
        "warmup_steps": 2,
        "optim": "adamw_torch",
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "seed": SEED,
    }
    args = transformers.TrainingArguments(**{**settings, **options})
    data = Samples() if data is None else data
    found = kind(model=Net(dropout), args=args, train_dataset=data, eval_dataset=Samples(16), callbacks=list(callbacks))
    found.remove_callback(transformers.PrinterCallback)
    return found


def train_together(folder):
    """One process of torchrun's; its final model is left in the folder."""
    from imwa.integrations.transformers import IMWACallback, IMWATrainer, one_trainer_per_process

    group = one_trainer_per_process("gloo")
    rank = torch.distributed.get_rank()
    callback = IMWACallback(replicas=3, episodes=2, optimizer_state="local", group=group, deterministic=True)
    trainer = trainer_of(IMWATrainer, os.path.join(folder, f"process-{rank}"), [callback])
    trainer.train()
    torch.save([trainer.args.world_size, trainer.state.global_step, trainer.model.state_dict()], f"{folder}/{rank}.pt")
    torch.distributed.monitored_barrier()
    torch.distributed.destroy_process_group()
