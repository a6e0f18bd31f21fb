"""Masked-language modelling of DNA 6-mers with RandomMask: spans are masked, and widen as training goes on."""

from transformers import BertConfig, BertForMaskedLM, TrainingArguments

from randommask import KmerTokenizer, MaskSchedule, RandomMaskCollator, RandomMaskTrainer

STEPS = 20
tokenizer = KmerTokenizer(k=6)
genome = "GATTACAGTCCATGCAACGTTGCAGGCATTACGGATCCTTAAGC" * 40
dataset = [tokenizer(genome[start : start + 60]) for start in range(0, len(genome) - 60, 7)]

config = BertConfig(
    vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256
)
model = BertForMaskedLM(config)
arguments = TrainingArguments("runs/example", max_steps=STEPS, save_strategy="no", report_to="none", use_cpu=True)
trainer = RandomMaskTrainer(
    model,
    arguments,
    train_dataset=dataset,
    data_collator=RandomMaskCollator(tokenizer, schedule=MaskSchedule.scaled(total_steps=STEPS)),
)
print(f"training loss {trainer.train().training_loss:.3f}")
