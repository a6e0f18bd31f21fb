"""What the three methods share."""

__version__ = "0.1.0"
