"""Losses, class weights, subsets and classifier re-training of long-tailed classification: the field's, not IMWA's own.

A loss is called as `loss(logits, labels, class_weights=None)` and returns a mean over the batch.
"""
