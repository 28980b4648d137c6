"""DFEW (Jiang et al., ACM Multimedia 2020)."""
