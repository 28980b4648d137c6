"""RAF-CE: compound expressions (whdeng.cn/RAF)."""
