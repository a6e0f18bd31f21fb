"""Looking inside a pretrained model: loss against its floors, k-mer embeddings, attention."""
