"""FERV39k (Wang et al., CVPR 2022)."""
