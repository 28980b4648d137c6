"""`python -m fer_jax ...` is `fer-jax ...`."""

import sys

from fer_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
