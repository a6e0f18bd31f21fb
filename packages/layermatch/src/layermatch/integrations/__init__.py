"""The criterion in other people's training loops; each module is imported by name where its library is installed."""
