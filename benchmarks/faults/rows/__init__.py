"""The rows of the suite, one file each."""
