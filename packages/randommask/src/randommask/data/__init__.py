"""Labelled sequences: tables, and how they are divided."""
