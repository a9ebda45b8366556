"""``python -m lightning_perturb``."""

from lightning_perturb.cli import main

if __name__ == "__main__":
    main()
