"""LDAM on each label."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_perturb.core import Batch
from lightning_perturb.methods import MultiLabelLDAM

COUNTS = torch.tensor([160, 10, 1])


def ready(**options):
    module = MultiLabelLDAM(nn.Linear(2, 3), 3, **options).double()
    module.use_counts(COUNTS)
    return module


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_positives_must_win_by_the_margin_of_their_class(scale):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    y = (torch.rand(9, 3, generator=generator) < 0.5).double()
    found = ready(scale=scale).loss({"logits": logits}, Batch(torch.empty(9, 2), y))
    expected = 0.0
    for u_row, y_row in zip(logits, y, strict=True):
        for u, label, n in zip(u_row, y_row, COUNTS.tolist(), strict=True):
            margin = 0.5 * n**-0.25
            expected += float(F.softplus(-scale * (u - margin)) if label else F.softplus(scale * u)) / 27
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_the_rarest_class_has_the_largest_margin():
    torch.testing.assert_close(ready(largest_margin=0.2).margins.max(), torch.tensor(0.2).double(), rtol=1e-6, atol=0)
    assert (ready().margins.diff() > 0).all()


def test_evaluation_has_no_margin():
    module, x = ready(), torch.randn(4, 2, dtype=torch.float64)
    assert torch.equal(module.evaluation_logits(x), module.net(x))


def test_arguments():
    for options in ({"largest_margin": 0.0}, {"scale": -1.0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}="):
            ready(**options)
