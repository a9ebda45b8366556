"""Re-weighting of several labels."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_perturb.core import Batch
from lightning_perturb.methods import MultiLabelReWeighting

COUNTS = torch.tensor([100, 25, 4])


def ready(**options):
    module = MultiLabelReWeighting(nn.Linear(2, 3), 3, **options).double()
    module.use_counts(COUNTS)
    return module


@pytest.mark.parametrize(("power", "raw"), [(0.5, [0.1, 0.2, 0.5]), (1.0, [0.01, 0.04, 0.25]), (0.0, [1.0, 1.0, 1.0])])
def test_every_entry_has_the_weight_of_its_class(power, raw):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    y = (torch.rand(7, 3, generator=generator) < 0.5).double()
    weights = 3 * torch.tensor(raw, dtype=torch.float64) / sum(raw)
    found = ready(power=power).loss({"logits": logits}, Batch(torch.empty(7, 2), y))
    torch.testing.assert_close(found, F.binary_cross_entropy_with_logits(logits, y, weight=weights), rtol=1e-6, atol=0)


def test_a_negative_power_is_refused():
    with pytest.raises(ValueError, match="power=-1"):
        ready(power=-1)
