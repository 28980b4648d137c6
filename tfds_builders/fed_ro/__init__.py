"""FED-RO (Li, Zeng, Shan and Chen, IEEE Transactions on Image Processing 2019)."""
