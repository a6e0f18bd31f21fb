"""From FASTA bytes to windows of base codes."""
