"""One arm of the pretraining-step rows, in a process of its own: CPU seconds a step and peak memory.

`python -m speed.pretraining_step ARM SIZE ROWS HIDDEN_DROPOUT ATTENTION_DROPOUT STEPS` prints both numbers. A step is collating,
forward, backward and AdamW on a batch of ROWS x 512 tokens, float32, one thread. Peak memory is the process's largest resident set over
that after the imports: a new process for each arm, since that number never falls.
"""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import BertForMaskedLM, DataCollatorForLanguageModeling

from randommask import KmerTokenizer, MaskedBert, RandomMaskCollator
from randommask.models.presets import SIZES, bert_config

TOKENS = 512
WIDTH = 6


class Cost(NamedTuple):
    """CPU seconds of the quickest step, and peak memory in MiB."""

    seconds: float
    memory: float


def measure(arm: str, size: Any, *, rows: int, hidden_dropout: float, attention_dropout: float, steps: int) -> Cost:
    """Train `steps` steps after a first one that also makes the optimizer's state."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer: Any = KmerTokenizer(k=6)
    examples = [{"input_ids": row} for row in torch.randint(5, 4101, (rows, TOKENS))]
    for example in examples:
        example["input_ids"][0], example["input_ids"][-1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    config = bert_config(size, hidden_dropout=hidden_dropout, attention_dropout=attention_dropout)
    assert size in SIZES
    before = peak_memory()
    collator: Callable[[Any], Any]
    if arm == "ours":
        model, collator = MaskedBert(config), RandomMaskCollator(tokenizer, schedule=WIDTH)
    else:
        model, collator = BertForMaskedLM(config), DataCollatorForLanguageModeling(tokenizer)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)  # the Trainer's own choice
    quickest = float("inf")
    for step in range(steps + 1):
        began = time.process_time()
        batch = collator(examples)
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step or not steps:
            quickest = min(quickest, time.process_time() - began)
    return Cost(quickest, peak_memory() - before)


def peak_memory() -> float:
    """Largest resident set of this process so far, MiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # what getrusage tells on Linux begins with the parent's own peak
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    arm, size, rows, hidden, attention, steps = sys.argv[1:]
    cost = measure(
        arm, size, rows=int(rows), hidden_dropout=float(hidden), attention_dropout=float(attention), steps=int(steps)
    )
    print(*cost)
