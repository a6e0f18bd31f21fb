"""BERT with the head on masked positions, its sizes and its starts."""
