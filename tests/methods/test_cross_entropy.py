from testkit.script import assert_same, cross_entropy, make, replay, train

from lightning_perturb.methods import CrossEntropy


def test_a_training_by_hand():
    expected = replay(lambda logits, batch, *_: cross_entropy(logits(batch[0]), batch[1]).mean())
    assert_same(train(make(CrossEntropy)), expected)
