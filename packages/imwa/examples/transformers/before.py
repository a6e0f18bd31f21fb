"""Training by the transformers Trainer: which of two words comes first, a small BERT from its configuration."""

import tempfile

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

STEPS = 120


class Sentences(torch.utils.data.Dataset):
    """Twelve word numbers from 4 to 31; the label says whether word 4 stands before word 5."""

    def __init__(self, count, seed):
        generator = torch.Generator().manual_seed(seed)
        self.words = torch.randint(6, 32, (count, 12), generator=generator)
        places = torch.rand(count, 12, generator=generator).argsort(1)[:, :2]
        self.words.scatter_(1, places, torch.tensor([[4, 5]]).expand(count, 2))
        self.labels = (places[:, 0] < places[:, 1]).long()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"input_ids": self.words[index], "labels": self.labels[index]}


torch.manual_seed(0)
size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
model = BertForSequenceClassification(BertConfig(vocab_size=32, max_position_embeddings=12, **size))
with tempfile.TemporaryDirectory() as folder:
    args = TrainingArguments(
        output_dir=folder,
        max_steps=STEPS,
        per_device_train_batch_size=64,
        learning_rate=3e-3,
        lr_scheduler_type="cosine",
        use_cpu=True,
        report_to=[],
        save_strategy="no",
    )
    trainer = Trainer(model=model, args=args, train_dataset=Sentences(4096, seed=1))
    trainer.train()
    test = Sentences(1024, seed=2)
    right = trainer.predict(test).predictions.argmax(1) == test.labels.numpy()

print(f"test accuracy {100 * right.mean():.1f} %")
