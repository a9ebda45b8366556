import pytest
import torch

from lightning_perturb.functional import (
    accumulate,
    class_average,
    cross_entropy,
    online_label_smoothing_target,
)

PROB = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2], [0.3, 0.6, 0.1]], dtype=torch.float64)
Y = torch.tensor([0, 0, 0, 1])


def test_accumulate_correct_only():
    sums, weights = accumulate(PROB, Y, 3)
    torch.testing.assert_close(sums[0], PROB[0] + PROB[2])
    torch.testing.assert_close(sums[1], PROB[3])
    assert weights.tolist() == [2, 1, 0]
    assert not sums[2].any()


def test_accumulate_all():
    sums, weights = accumulate(PROB.clone().requires_grad_(), Y, 3, confidence="one")
    torch.testing.assert_close(sums[0], PROB[:3].sum(0))
    assert weights.tolist() == [3, 1, 0]
    assert not sums.requires_grad


def test_batches_add_up():
    whole = accumulate(PROB, Y, 3)
    parts = [accumulate(PROB[i : i + 2], Y[i : i + 2], 3) for i in (0, 2)]
    torch.testing.assert_close(parts[0][0] + parts[1][0], whole[0])
    torch.testing.assert_close(parts[0][1] + parts[1][1], whole[1])


def test_class_average_with_an_empty_class():
    soft = class_average(*accumulate(PROB, Y, 3))
    expected = torch.stack([(PROB[0] + PROB[2]) / 2, PROB[3], torch.full((3,), 1 / 3, dtype=torch.float64)])
    torch.testing.assert_close(soft, expected)
    torch.testing.assert_close(class_average(torch.zeros(4, 4), torch.zeros(4)), torch.full((4, 4), 0.25))
    assert class_average(torch.eye(2) * 1e-42, torch.full((2,), 1e-42)).tolist() == [[1, 0], [0, 1]]


def test_target_is_half_cross_entropy_half_soft():
    soft = class_average(*accumulate(PROB, Y, 3))
    u = PROB.log() * 2
    log_p = u.log_softmax(1)
    expected = 0.5 * -log_p[torch.arange(4), Y] + 0.5 * -(soft[Y] * log_p).sum(1)
    torch.testing.assert_close(cross_entropy(u, online_label_smoothing_target(Y, soft)), expected)
    torch.testing.assert_close(online_label_smoothing_target(Y, soft, 1.0), soft[Y])


def test_bad_input():
    with pytest.raises(ValueError, match="confidence='max'"):
        accumulate(PROB, Y, 3, confidence="max")
    with pytest.raises(ValueError, match="num_classes=4"):
        accumulate(PROB, Y, 4)
    with pytest.raises(ValueError, match="class ids"):
        accumulate(PROB, PROB, 3)
    with pytest.raises(ValueError, match="sums of shape"):
        class_average(torch.zeros(3, 4), torch.zeros(3))
    with pytest.raises(ValueError, match="alpha=2"):
        online_label_smoothing_target(Y, PROB, 2)
