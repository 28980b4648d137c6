"""Trains or evaluates an experiment:  python run.py --config=experiments/fdrl.py[:variant] [--config.field=value]."""

import sys

from fer_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
