"""RAF-DB (Li, Deng and Du, CVPR 2017)."""
