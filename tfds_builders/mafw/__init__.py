"""MAFW (Liu et al., ACM Multimedia 2022)."""
