import pytest
import torch

from lightning_perturb.functional import smooth

Y = torch.tensor([2, 0, 1])
E = torch.eye(3, dtype=torch.float64)


def test_smooth_of_ids_and_soft_labels():
    rows = smooth(Y[:1], 4, 0.1)
    assert rows[0].tolist() == pytest.approx([0.025, 0.025, 0.925, 0.025])
    assert rows.dtype == torch.float32
    torch.testing.assert_close(smooth(E[Y], 3, 0.3), smooth(Y, 3, 0.3, dtype=torch.float64))
    torch.testing.assert_close(smooth(Y, 3, 0.3, dtype=torch.float64), 0.7 * E[Y] + 0.1)


def test_smooth_limits():
    torch.testing.assert_close(smooth(Y, 3, 0.0, dtype=torch.float64), E[Y])
    torch.testing.assert_close(smooth(Y, 3, 1.0), torch.full((3, 3), 1 / 3))
    with pytest.raises(ValueError, match="eps=10"):
        smooth(Y, 3, 10)
    with pytest.raises(ValueError, match="target has the shape"):
        smooth(E[Y], 4, 0.1)
