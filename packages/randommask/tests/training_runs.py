"""A tiny run of the Trainer, shared by the tests of widths, accumulation and resume; importable by spawned processes."""

import torch
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback

from randommask import KmerTokenizer, MaskedBert, MaskSchedule, RandomMaskCollator, RandomMaskTrainer
from randommask.models.presets import bert_config
from randommask.models.starts import start_weights

K = 3
STEPS = 10
SCHEDULE = MaskSchedule(k=K, total_steps=STEPS)
WIDTHS = [SCHEDULE.width(step) for step in range(STEPS)]


def sequences(count=64, length=40):
    letters = torch.randint(4, (count, length), generator=torch.Generator().manual_seed(0))
    return ["".join("ACGT"[code] for code in row) for row in letters.tolist()]


def model(kind=MaskedBert, dropout=0.1):
    made = kind(bert_config("tiny", k=K, positions=64, hidden_dropout=dropout))
    start_weights(made, "structured", k=K, seed=0)
    return made


def arguments(folder, **options):
    defaults = {
        "output_dir": str(folder),
        "max_steps": STEPS,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(**(defaults | options))


def run(folder, *, kind=MaskedBert, resume=None, collator=None, dropout=0.1, data=None, **options):
    """Train; returns the widths that the model saw, its parameters, and the trainer."""
    made = model(kind, dropout)
    seen = []
    if kind is MaskedBert:
        made.register_forward_pre_hook(lambda _, __, inputs: seen.append(int(inputs["mask_width"])), with_kwargs=True)
    trainer = RandomMaskTrainer(
        made,
        arguments(folder, **options),
        data_collator=collator or RandomMaskCollator(KmerTokenizer(k=K), schedule=SCHEDULE),
        train_dataset=sequences() if data is None else data,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=resume)
    return seen, [parameter.detach().clone() for parameter in made.parameters()], trainer
