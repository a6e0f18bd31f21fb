"""Reproductions: arms run as command lines of the installed packages, one record for each (arm, seed)."""
