import pytest
import torch
from torch import nn

from lightning_perturb.core.modes import evaluating


def net() -> nn.Module:
    found = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(2)))
    found.train()
    found[1].eval()
    return found


def test_a_partly_frozen_network_is_as_it_was():
    module = net()
    modes = [m.training for m in module.modules()]
    assert set(modes) == {True, False}
    with evaluating(module):
        assert not any(m.training for m in module.modules())
        module(torch.rand(4, 2))
    assert [m.training for m in module.modules()] == modes
    assert int(module[2][1].num_batches_tracked) == 0


def test_also_after_an_error():
    module = net()
    modes = [m.training for m in module.modules()]
    with pytest.raises(KeyError), evaluating(module):
        raise KeyError
    assert [m.training for m in module.modules()] == modes
