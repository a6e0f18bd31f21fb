"""Networks of the reproductions; IMWA itself takes any module."""
