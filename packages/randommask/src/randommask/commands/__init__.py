"""The command `randommask`."""
