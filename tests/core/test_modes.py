import pytest
import torch
from torch import nn

from lightning_perturb.core.modes import evaluating, frozen_statistics


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


def tracking() -> nn.Module:
    """Norms of both kinds: tracking, tracking without momentum, not tracking, frozen."""
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(3), nn.BatchNorm2d(3, momentum=None), nn.BatchNorm2d(3, track_running_stats=False)]
    norms += [nn.InstanceNorm2d(3, track_running_stats=True), nn.InstanceNorm2d(3), nn.BatchNorm2d(3)]
    found = nn.Sequential(*norms)
    found[5].eval()
    return found


def test_running_statistics_stay_and_outputs_are_the_same():
    module, other = tracking(), tracking()
    x = torch.randn(4, 3, 5, 5) * 3 + 1
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with frozen_statistics(module):
        found = module(x)
    assert torch.equal(found, other(x))
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not torch.equal(other[0].running_mean, before["0.running_mean"])
    # and the next forward moves them as ever
    assert torch.equal(module(x), found)
    for name, value in module.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_statistics_move_again_after_an_error():
    module = tracking()
    with pytest.raises(KeyError), frozen_statistics(module):
        raise KeyError
    assert [m.track_running_stats for m in module] == [True, True, False, True, False, True]
    assert [m.momentum for m in module] == [0.1, None, 0.1, 0.1, 0.1, 0.1]


def test_two_passes_can_be_differentiated_together():
    module = tracking()
    x = torch.randn(4, 3, 5, 5, requires_grad=True)
    first = module(x)
    with frozen_statistics(module):
        second = module(2 * x)
    (first.square().sum() + second.pow(3).sum()).backward()
    assert x.grad.isfinite().all()
