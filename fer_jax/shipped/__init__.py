"""The model that comes with fer_jax, and its card. Both are written by docs/model_card.py."""
