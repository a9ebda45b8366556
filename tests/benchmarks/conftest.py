import os
import sys
from pathlib import Path

import pytest

# they are programs, not a package
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(autouse=True)
def _same_environment(monkeypatch):
    # a run seeds everything, which leaves a variable behind
    monkeypatch.setenv("PL_GLOBAL_SEED", os.environ.get("PL_GLOBAL_SEED", "0"))


@pytest.fixture
def grid_file(tmp_path):
    """A grid of two methods and two noises whose runs take a moment."""
    path = tmp_path / "tiny.yaml"
    path.write_text(
        """
title: Tiny
num_classes: 10
data:
  base: {class_path: lightning_perturb.data.Digits, init_args: {train_size: 128, val_size: 32}}
  columns:
    clean: {}
    noisy:
      init_args: {label_noise: {class_path: lightning_perturb.data.Symmetric, init_args: {rate: 0.4}}}
nets:
  MLP: {class_path: lightning_perturb.nets.MLP, init_args: {in_features: 64, hidden: [8]}}
methods:
  base:
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.05}}
  rows:
    CrossEntropy: {class_path: lightning_perturb.methods.CrossEntropy}
    MixPert:
      class_path: lightning_perturb.methods.MixPert
      search: {eta: [1.0, 2.0]}
      by_data: {noisy: {share: 0.4}}
trainer: {max_epochs: 3}
test_every: 2
baseline: CrossEntropy
seeds: [0, 1]
"""
    )
    return path
