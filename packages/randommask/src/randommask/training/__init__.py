"""Pretraining and fine-tuning through the transformers Trainer, and what is measured on the way."""
