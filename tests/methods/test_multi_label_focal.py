"""Class-balanced focal loss of several labels; the focal loss itself is compared in test_distribution_balanced."""

import pytest
import torch
from torch import nn

from lightning_perturb.core import Batch
from lightning_perturb.methods import MultiLabelCBFocal, MultiLabelFocal

COUNTS = torch.tensor([50, 5, 1])


def ready(**options):
    module = MultiLabelCBFocal(nn.Linear(2, 3), 3, **options).double()
    module.use_counts(COUNTS)
    return module


def test_a_sample_has_the_mean_weight_of_its_classes():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.tensor([[1.0, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 0]], dtype=torch.float64)
    raw = [(1 - 0.9) / (1 - 0.9**n) for n in COUNTS.tolist()]
    a, b, c = (3 * w / sum(raw) for w in raw)
    batch = Batch(torch.empty(4, 2), y)
    plain = MultiLabelFocal(nn.Linear(2, 3), 3).sample_loss(logits, y, batch)
    module = ready()
    found = module.perturb_loss(module.sample_loss(logits, y, batch), logits, batch)
    weights = torch.tensor([a, (b + c) / 2, (a + b + c) / 3, 1.0], dtype=torch.float64)
    torch.testing.assert_close(found, weights * plain, rtol=1e-6, atol=0)


def test_beta_zero_weights_nothing():
    assert ready(beta=0.0).class_weights.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match=r"beta=1.0 is outside"):
        ready(beta=1.0)
