import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import cross_entropy, estimate_transition, forward_corrected_loss, gold_transition


def draw(batch=8, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(batch, classes, dtype=torch.float64, generator=generator) * 3
    T = torch.rand(classes, classes, dtype=torch.float64, generator=generator)
    return u, torch.randint(classes, (batch,), generator=generator), T / T.sum(1, keepdim=True)


def test_by_hand():
    u, y, T = draw()
    noisy = u.softmax(1).numpy() @ T.numpy()
    np.testing.assert_allclose(forward_corrected_loss(u, y, T).numpy(), -np.log(noisy[np.arange(8), y]))


def test_identity_is_cross_entropy_also_for_extreme_logits():
    u, y, _ = draw()
    for scale in (1.0, 1e4):
        torch.testing.assert_close(forward_corrected_loss(u * scale, y, torch.eye(4)), cross_entropy(u * scale, y))


def test_minimised_where_the_prediction_explains_the_noise():
    _, _, T = draw()
    clean = torch.tensor([[0.7, 0.1, 0.15, 0.05]], dtype=torch.float64)
    given = (clean @ T).squeeze(0)
    u = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([u], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure():
        optimizer.zero_grad()
        loss = (given * forward_corrected_loss(u.expand(4, 4), torch.arange(4), T)).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(u.detach().softmax(1), clean, atol=1e-4, rtol=0)


def test_gradcheck_also_in_the_matrix():
    u, y, T = draw()
    assert gradcheck(lambda u, T: forward_corrected_loss(u, y, T), (u.requires_grad_(), T.requires_grad_()))


def test_zero_entries_give_finite_gradients():
    u = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    T = torch.tensor([[0.6, 0.4, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], requires_grad=True)
    loss = forward_corrected_loss(u, torch.tensor([1]), T)
    assert loss.item() == pytest.approx(-np.log(0.4))
    loss.sum().backward()
    assert u.grad.isfinite().all()
    assert T.grad.isfinite().all()


def test_estimate_takes_the_surest_sample_of_each_class():
    p = torch.tensor([[0.9, 0.1, 0.0], [0.95, 0.0, 0.05], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4]])
    assert torch.equal(estimate_transition(p), p[[1, 2, 3]])
    # of four samples the quarter that is surest is passed over
    assert torch.equal(estimate_transition(p, filter_top=0.25), p[[0, 3, 2]])
    assert torch.equal(estimate_transition(p[:1], filter_top=0.9), p[[0, 0, 0]])


def test_estimate_recovers_the_matrix_from_its_anchors():
    _, _, T = draw()
    rng = np.random.default_rng(0)
    clean = torch.from_numpy(np.vstack([rng.dirichlet(np.ones(4), 500), np.eye(4)]))
    T = 0.6 * torch.eye(4, dtype=torch.float64) + 0.4 * T
    torch.testing.assert_close(estimate_transition(clean @ T), T)


def test_bad_input():
    u, y, T = draw()
    with pytest.raises(ValueError, match=r"T has the shape \(3, 4\)"):
        forward_corrected_loss(u, y, T[:3])
    with pytest.raises(ValueError, match="filter_top=1"):
        estimate_transition(u, 1.0)
    with pytest.raises(ValueError, match="at least one sample"):
        estimate_transition(u[:0])


def test_the_gold_transition_is_the_mean_prediction_of_each_class():
    generator = np.random.default_rng(0)
    p, y = generator.dirichlet(np.ones(4), 30), np.arange(30) % 4
    found = gold_transition(torch.from_numpy(p).requires_grad_(), torch.from_numpy(y))
    assert not found.requires_grad
    np.testing.assert_allclose(found.numpy(), np.stack([p[y == c].mean(0) for c in range(4)]))
    # a network that knows the noise exactly gives it back, from one sample of each class
    T = torch.from_numpy(generator.dirichlet(np.ones(4), 4))
    torch.testing.assert_close(gold_transition(T, torch.arange(4)), T)
    assert gold_transition(torch.from_numpy(p).bfloat16(), torch.from_numpy(y)).dtype == torch.float32
    with pytest.raises(ValueError, match=r"no sample of 2 of 4 classes \(first: 1\)"):
        gold_transition(T, torch.tensor([0, 2, 0, 2]))
    with pytest.raises(ValueError, match="class ids"):
        gold_transition(T, torch.arange(3))
