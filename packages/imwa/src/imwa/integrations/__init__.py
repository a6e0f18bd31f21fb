"""IMWA inside loops that belong to other libraries; each file loads its own library, so import them by name."""
