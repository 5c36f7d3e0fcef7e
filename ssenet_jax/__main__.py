"""``python -m ssenet_jax`` is the command ``ssenet``."""

from ssenet_jax.main import console

if __name__ == "__main__":
    console()
