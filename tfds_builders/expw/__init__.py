"""ExpW (Zhang, Luo, Loy and Tang, IJCV 2018)."""
