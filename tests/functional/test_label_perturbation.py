import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import perturb_label

Y = torch.tensor([2, 0, 1])
E = torch.eye(3, dtype=torch.float64)


@pytest.fixture
def prediction():
    return torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8], [0.6, 0.4, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_ids_equal_one_hot_rows_and_the_equation(prediction, weight):
    expected = E[Y] + weight * (prediction - E[Y])
    for target in (Y, E[Y]):
        torch.testing.assert_close(perturb_label(target, prediction, weight), expected)
        torch.testing.assert_close(
            perturb_label(target, prediction, torch.tensor(weight, dtype=torch.float64)), expected
        )


def test_weight_per_sample(prediction):
    weight = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    expected = E[Y] + weight[:, None] * (prediction - E[Y])
    torch.testing.assert_close(perturb_label(Y, prediction, weight), expected)
    torch.testing.assert_close(perturb_label(E[Y], prediction, weight), expected)


def test_gradients_and_no_change_in_place(prediction):
    weight = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    before = prediction.clone()
    prediction.requires_grad_()
    for target in (Y, E[Y]):
        assert gradcheck(lambda p, w, t=target: perturb_label(t, p, w), (prediction, weight))
    assert torch.equal(prediction, before)


def test_bad_input(prediction):
    with pytest.raises(ValueError, match=r"weight=1\.5"):
        perturb_label(Y, prediction, 1.5)
    with pytest.raises(ValueError, match="prediction has the shape"):
        perturb_label(Y, prediction[0], 0.5)
    with pytest.raises(ValueError, match="target has the shape"):
        perturb_label(Y[:2], prediction, 0.5)
