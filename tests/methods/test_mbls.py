import pytest
from testkit.script import assert_same, cross_entropy, make, replay, train

from lightning_perturb.methods import CrossEntropy, MbLS


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_training_by_hand(reduction):
    def loss(logits, batch, *_):
        u = logits(batch[0])
        behind = (u.max(1, keepdim=True).values - u - 0.2).clamp(min=0)
        penalty = behind.mean(1) if reduction == "mean" else behind.sum(1)
        return (cross_entropy(u, batch[1]) + 0.3 * penalty).mean()

    assert_same(train(make(MbLS, margin=0.2, alpha=0.3, reduction=reduction)), replay(loss))


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"margin": 1e6}])
def test_without_a_penalty_it_is_cross_entropy(options):
    assert_same(train(make(MbLS, **options)), train(make(CrossEntropy)))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"margin": -1.0}, "margin="), ({"alpha": -1.0}, "alpha="), ({"reduction": "max"}, "reduction='max'")],
)
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(MbLS, **options)
