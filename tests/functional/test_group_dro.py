import numpy as np
import pytest
import torch

from lightning_perturb.functional import balanced_group_weights, generalization_adjustment, group_dro_step, group_risks


def test_the_published_rule():
    torch.manual_seed(0)
    q = torch.full((4,), 0.25, dtype=torch.float64)
    log_q = q.log()
    for _ in range(20):
        losses = torch.rand(4, dtype=torch.float64) * 3
        q = q * torch.exp(0.1 * losses)
        q = q / q.sum()
        log_q = group_dro_step(log_q, losses, 0.1)
        torch.testing.assert_close(log_q.exp(), q)


def test_absent_groups_keep_their_weight_among_each_other():
    log_q = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    new = group_dro_step(log_q, torch.tensor([2.0, torch.nan, 0.0, torch.nan]), 0.5, torch.tensor([1, 0, 1, 0]).bool())
    expected = torch.tensor([0.1 * np.e, 0.2, 0.3, 0.4])
    torch.testing.assert_close(new.exp(), expected / expected.sum())


def test_a_weight_comes_back_from_where_a_product_would_be_zero():
    log_q = torch.zeros(2)
    for _ in range(3):
        log_q = group_dro_step(log_q, torch.tensor([1e4, 0.0]), 0.1)
    assert float(log_q.exp()[1]) == 0
    for _ in range(4):
        log_q = group_dro_step(log_q, torch.tensor([0.0, 1e4]), 0.1)
    assert float(log_q.exp()[1]) == 1


def test_groups_that_do_not_count_and_no_step():
    log_q = torch.tensor([0.5, 0.0, 0.5]).log()
    assert group_dro_step(log_q, torch.tensor([1.0, 5.0, 2.0]), 1.0).exp()[1] == 0
    losses = torch.tensor([3.0, 1.0, 2.0], requires_grad=True)
    same = group_dro_step(log_q, losses, 0.0)
    assert torch.equal(same.exp(), log_q.exp())
    assert not same.requires_grad


def test_risks_of_groups():
    losses = torch.tensor([1.0, 2.0, 6.0, 3.0], dtype=torch.float64, requires_grad=True)
    risks, sizes = group_risks(losses, torch.tensor([3, 0, 3, 3]), 5)
    assert risks.tolist() == pytest.approx([2, 0, 0, 10 / 3, 0])
    assert sizes.tolist() == [1, 0, 0, 3, 0]
    assert torch.autograd.grad(risks.sum(), losses)[0].tolist() == pytest.approx([1 / 3, 1, 1 / 3, 1 / 3])


def test_the_adjustment():
    found = generalization_adjustment(torch.tensor([4, 0, 25]), 2.0)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, 0.4], dtype=torch.float64))


def test_balanced_weights_give_every_group_the_same_part():
    counts = torch.tensor([[3498, 184], [56, 1057], [0, 7]])
    weights = balanced_group_weights(counts)
    parts = (weights * counts)[counts > 0]
    torch.testing.assert_close(parts, parts[:1].expand(5))
    assert float((weights * counts).sum() / counts.sum()) == pytest.approx(1)
    assert weights[2, 0] == 0


def test_bad_input():
    with pytest.raises(ValueError, match="step_size=-1"):
        group_dro_step(torch.zeros(2), torch.zeros(2), -1.0)
    with pytest.raises(ValueError, match=r"must all be \[G\]"):
        group_dro_step(torch.zeros(2), torch.zeros(3), 0.1)
    with pytest.raises(ValueError, match="adjustment=-1"):
        generalization_adjustment(torch.ones(2), -1.0)
    with pytest.raises(ValueError, match="0 for every group"):
        balanced_group_weights(torch.zeros(2, 2))
