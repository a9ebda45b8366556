import pytest
import torch

from lightning_perturb.functional import (
    Observation,
    all_adversarial,
    all_anti_adversarial,
    doubted_anti_adversarial,
    tail_adversarial,
)


def seen(counts=(80, 20, 5), history=None, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    y = torch.tensor([0, 1, 2, 0])
    classes, width = len(counts), 2

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    prior = torch.tensor(counts, dtype=torch.float64)
    return Observation(
        draw(4, classes), y, draw(4, width), draw(classes, width), (prior / prior.sum()).log().to(dtype),
        draw(classes), draw(classes, width), draw(classes, width).square(), history,
    )  # fmt: skip


def test_the_rarer_the_class_the_more_adversarial():
    # 20 is half way from 80 to 5 in the logarithm
    torch.testing.assert_close(tail_adversarial(seen()), torch.tensor([-1.0, 0.0, 1.0, -1.0], dtype=torch.float64))
    assert not tail_adversarial(seen((7, 7, 7))).any()


def test_the_more_a_label_is_contradicted_the_more_anti_adversarial():
    history = torch.tensor([0.0, 0.25, 1.0, 0.5], dtype=torch.float64)
    found = doubted_anti_adversarial(seen(history=history))
    torch.testing.assert_close(found, torch.tensor([-1.0, -0.5, 1.0, 0.0], dtype=torch.float64))
    now = seen()
    expected = 2 * now.logits.softmax(1)[torch.arange(4), now.target] - 1
    torch.testing.assert_close(doubted_anti_adversarial(now), expected)


def test_the_same_for_all():
    assert all_adversarial(seen()).tolist() == [1.0] * 4
    assert all_anti_adversarial(seen()).tolist() == [-1.0] * 4


@pytest.mark.parametrize("rule", [tail_adversarial, doubted_anti_adversarial, all_adversarial, all_anti_adversarial])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_every_rule_stays_in_its_interval(rule, dtype):
    found = rule(seen(dtype=dtype))
    assert found.shape == (4,)
    assert bool((found.abs() <= 1 + 1e-6).all())
