"""Logit adjustment in training and after it, by hand."""

import pytest
import torch
from testkit.script import assert_same, batches, cross_entropy, make, replay, train
from testkit.training import Recipe, fit

from lightning_perturb.methods import CrossEntropy, LogitAdjustment, PostHocLogitAdjustment

COUNTS = [2, 9, 4, 5]


def test_logit_adjustment_by_hand():
    prior = 0.7 * torch.log(torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS))
    expected = replay(lambda logits, batch, *_: cross_entropy(logits(batch[0]) + prior, batch[1]).mean())
    module = make(LogitAdjustment, tau=0.7, class_counts=COUNTS)
    assert_same(train(module), expected)
    x = batches()[0][0]
    assert torch.equal(module.evaluation_logits(x), module(x))


def test_post_hoc_adjustment_trains_as_cross_entropy_and_predicts_otherwise(tmp_path):
    module = make(PostHocLogitAdjustment, tau=2.0, class_counts=COUNTS)
    assert torch.equal(train(module), train(make(CrossEntropy)))
    x = batches()[0][0]
    expected = module(x) - 2.0 * torch.log(torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS))
    torch.testing.assert_close(module.evaluation_logits(x), expected, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="PostHocLogitAdjustment needs the number"):
        make(PostHocLogitAdjustment).evaluation_logits(x)


def test_the_counts_of_post_hoc_adjustment_are_in_the_checkpoint(tmp_path):
    trainer = fit(Recipe(PostHocLogitAdjustment, trainer={"max_epochs": 1}))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    module = trainer.lightning_module.eval()
    again = PostHocLogitAdjustment.load_from_checkpoint(tmp_path / "run.ckpt", net=module.net)
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(again.evaluation_logits(x), module.evaluation_logits(x))
