import itertools

import pytest
import torch

from lightning_perturb.functional import adversarial_label_smoothing_target, cross_entropy


def test_no_other_label_at_that_distance_has_a_larger_loss():
    torch.manual_seed(0)
    u, y = torch.randn(5, 4, dtype=torch.float64) * 2, torch.tensor([0, 1, 2, 3, 0])
    found = adversarial_label_smoothing_target(u, y, 0.3)
    assert torch.allclose(found.sum(1), torch.ones(5, dtype=torch.float64))
    losses = cross_entropy(u, found)
    # the loss is linear in p*: a corner of the simplex is its maximum
    corners = [
        cross_entropy(u, 0.7 * torch.eye(4).double()[y] + 0.3 * torch.eye(4).double()[[c] * 5]) for c in range(4)
    ]
    assert torch.allclose(losses, torch.stack(corners).max(0).values)
    for weights in itertools.islice(torch.rand(50, 4, dtype=torch.float64), 50):
        other = 0.7 * torch.eye(4).double()[y] + 0.3 * weights / weights.sum()
        assert bool((cross_entropy(u, other) <= losses + 1e-12).all())


def test_limits_soft_labels_and_constants():
    u = torch.tensor([[2.0, -1.0, 0.0]], requires_grad=True)
    assert adversarial_label_smoothing_target(u, torch.tensor([0]), 0.0).tolist() == [[1, 0, 0]]
    assert adversarial_label_smoothing_target(u, torch.tensor([0]), 1.0).tolist() == [[0, 1, 0]]
    soft = adversarial_label_smoothing_target(u.bfloat16(), torch.tensor([[0.5, 0.5, 0.0]]), 0.2)
    assert soft.dtype == torch.float32
    assert not soft.requires_grad
    torch.testing.assert_close(soft, torch.tensor([[0.4, 0.6, 0.0]]))
    assert adversarial_label_smoothing_target(u, torch.tensor([1]), 0.3).tolist()[0] == [0, 1, 0], "the label is worst"


@pytest.mark.parametrize(
    ("lam", "target", "message"),
    [(1.5, torch.tensor([0]), "lam=1.5"), (0.1, torch.tensor([0, 1]), r"target has the shape \(2,\)")],
)
def test_bad_input(lam, target, message):
    with pytest.raises(ValueError, match=message):
        adversarial_label_smoothing_target(torch.zeros(1, 3), target, lam)
