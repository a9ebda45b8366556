import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import drift_cosines, multi_head_logits, tde_logits


def draw(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, dtype=torch.float64, generator=generator)
        for shape in ((5, 6), (3, 6), (6,))
    ]  # fmt: skip


def by_hand(h, w, d, alpha, heads, scale, gamma):
    """One sample, class and head at a time."""
    width = len(d) // heads
    found = np.zeros((len(h), len(w)))
    for k in range(heads):
        part = slice(k * width, (k + 1) * width)
        for i, j in np.ndindex(*found.shape):
            x, row, c = h[i, part], w[j, part], d[part]
            x, c = x / np.linalg.norm(x), c / np.linalg.norm(c)
            found[i, j] += scale / heads * (x - alpha * (x @ c) * c) @ row / (np.linalg.norm(row) + gamma)
    return found


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_the_formula(heads):
    h, w, d = draw()
    expected = by_hand(h.numpy(), w.numpy(), d.numpy(), 1.5, heads, 8.0, 0.1)
    np.testing.assert_allclose(tde_logits(h, w, d, 1.5, heads, 8.0, 0.1).numpy(), expected)
    np.testing.assert_allclose(
        multi_head_logits(h, w, heads, 8.0, 0.1).numpy(), by_hand(h.numpy(), w.numpy(), d.numpy(), 0, heads, 8.0, 0.1)
    )


def test_limits():
    h, w, d = draw()
    torch.testing.assert_close(tde_logits(h, w, d, 0.0), multi_head_logits(h, w))
    # the length of feature and direction are forgotten
    torch.testing.assert_close(tde_logits(100 * h, w, 7 * d), tde_logits(h, w, d))
    # with one head and alpha 1 nothing is left along the direction
    along = torch.outer(torch.linspace(1, 2, 5, dtype=torch.float64), d)
    assert tde_logits(along, w, d, 1.0, heads=1).abs().max() < 1e-12
    # cosines
    cosine = torch.cosine_similarity(h[:, None], w[None], dim=2)
    torch.testing.assert_close(multi_head_logits(h, w, 1, 16.0, 0.0), 16 * cosine)


def test_cosines_with_the_direction():
    h, _, d = draw()
    expected = [torch.cosine_similarity(x, c[None]) for x, c in zip(h.chunk(2, 1), d.chunk(2), strict=True)]
    torch.testing.assert_close(drift_cosines(h, d, 2), torch.stack(expected, 1))
    assert torch.equal(drift_cosines(torch.zeros(2, 6), d), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="heads=5"):
        drift_cosines(h, d, 5)


def test_zeros_have_finite_gradients():
    for gamma in (0.0, 1 / 32):
        h, w, d = torch.zeros(2, 4, requires_grad=True), torch.zeros(3, 4, requires_grad=True), torch.zeros(4)
        tde_logits(h, w, d, gamma=gamma).sum().backward()
        assert h.grad.isfinite().all()
        assert w.grad.isfinite().all()


def test_gradient_and_half_precision():
    h, w, d = draw()
    assert gradcheck(lambda x, row: tde_logits(x, row, d), (h.requires_grad_(), w.requires_grad_()))
    found = tde_logits(h.bfloat16(), w.bfloat16(), d.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), tde_logits(h, w, d), rtol=0.1, atol=0.3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 4}, "heads=4 does not divide the 6 features"),
        ({"heads": 0}, "heads=0"),
        ({"scale": 0.0}, "scale=0"),
        ({"gamma": -1.0}, "gamma=-1"),
        ({"direction": torch.zeros(5)}, r"direction has the shape \(5,\)"),
        ({"weight": torch.zeros(3, 4)}, r"weight of \(3, 4\)"),
    ],
)
def test_bad_arguments(change, message):
    h, w, d = draw()
    with pytest.raises(ValueError, match=message):
        tde_logits(**{"features": h, "weight": w, "direction": d, **change})
