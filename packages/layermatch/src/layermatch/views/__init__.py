"""Weak and strong views of whole uint8 batches, each image with its own draws."""
