"""Masked-language modelling of DNA 6-mers with transformers alone: single tokens are masked, which hides next to nothing."""

from transformers import BertConfig, BertForMaskedLM, DataCollatorForLanguageModeling, Trainer, TrainingArguments

from randommask import KmerTokenizer

STEPS = 20
tokenizer = KmerTokenizer(k=6)
genome = "GATTACAGTCCATGCAACGTTGCAGGCATTACGGATCCTTAAGC" * 40
dataset = [tokenizer(genome[start : start + 60]) for start in range(0, len(genome) - 60, 7)]

config = BertConfig(
    vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256
)
model = BertForMaskedLM(config)
arguments = TrainingArguments("runs/example", max_steps=STEPS, save_strategy="no", report_to="none", use_cpu=True)
trainer = Trainer(
    model,
    arguments,
    train_dataset=dataset,
    data_collator=DataCollatorForLanguageModeling(tokenizer),
)
print(f"training loss {trainer.train().training_loss:.3f}")
