import pytest
import torch

from lightning_perturb.functional import disturb_label


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0])
def test_frequencies(alpha):
    n, classes = 200_000, 5
    # evenly spread numbers give the probabilities without chance
    uniform = (torch.arange(n) + 0.5) / n
    drawn = disturb_label(torch.full((n,), 2), uniform, classes, alpha)
    share = torch.bincount(drawn, minlength=classes) / n
    expected = torch.full((classes,), alpha / classes)
    expected[2] = 1 - alpha * (classes - 1) / classes
    torch.testing.assert_close(share, expected, atol=1e-4, rtol=0)


def test_ends():
    y, uniform = torch.tensor([0, 1, 2]), torch.tensor([0.0, 0.999999, 0.5])
    assert torch.equal(disturb_label(y, uniform, 3, 0.0), y)
    assert disturb_label(y, uniform, 3, 1.0).tolist() == [0, 2, 1]
    assert disturb_label(y[:0], uniform[:0], 3).shape == (0,)
    assert y.tolist() == [0, 1, 2]


def test_bad_input():
    y = torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match="alpha=2"):
        disturb_label(y, torch.rand(3), 3, 2.0)
    with pytest.raises(ValueError, match="uniform has the shape"):
        disturb_label(y, torch.rand(2), 3)
