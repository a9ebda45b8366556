import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import confidence_penalty


def test_by_hand():
    u = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    p = u.softmax(1).numpy()
    entropy = -(p * np.log(p)).sum(1)
    np.testing.assert_allclose(confidence_penalty(u, 0.8).numpy(), np.maximum(0, 0.8 - entropy))
    assert (confidence_penalty(u, 0.0) == 0).all()
    # from log C on the hinge is the negative entropy up to a constant
    np.testing.assert_allclose(confidence_penalty(u, math.log(4)).numpy(), math.log(4) - entropy)
    assert gradcheck(lambda u: confidence_penalty(u, 0.8), (u.requires_grad_(),))


def test_a_sure_prediction_has_the_whole_penalty():
    u = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    penalty = confidence_penalty(u, 0.7)
    assert penalty.item() == pytest.approx(0.7)
    penalty.sum().backward()
    assert u.grad.isfinite().all()


def test_bad_input():
    with pytest.raises(ValueError, match="tau=-1"):
        confidence_penalty(torch.ones(2, 3), -1.0)
