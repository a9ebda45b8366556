import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import mbls_penalty


def test_by_hand():
    u = torch.tensor([[12.0, 1.0, 2.0, -3.0], [0.0, 5.0, 3.0, 9.0]])
    assert mbls_penalty(u).tolist() == [(1 + 0 + 5) / 4, 0.0]
    assert mbls_penalty(u, 4.0).tolist() == [(7 + 6 + 11) / 4, (5 + 2) / 4]
    assert mbls_penalty(u, 4.0, reduction="sum").tolist() == [24.0, 7.0]


def test_batch_mean_is_the_mean_over_all_entries():
    u = torch.randn(7, 5, dtype=torch.float64) * 10
    expected = torch.stack([(row.max() - row - 10).clamp(min=0) for row in u])
    torch.testing.assert_close(mbls_penalty(u).mean(), expected.mean())


def test_gradcheck():
    u = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 5
    assert gradcheck(lambda v: mbls_penalty(v, 2.0), (u.requires_grad_(),))


def test_bad_input():
    with pytest.raises(ValueError, match="margin=-1"):
        mbls_penalty(torch.zeros(2, 3), -1.0)
    with pytest.raises(ValueError, match="reduction='none'"):
        mbls_penalty(torch.zeros(2, 3), reduction="none")
