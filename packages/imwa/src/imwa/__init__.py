"""imwa."""
