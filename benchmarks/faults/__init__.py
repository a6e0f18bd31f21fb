"""What the installed packages do when a process is killed, a write fails, a file is torn or a signal comes: `python -m faults`."""
