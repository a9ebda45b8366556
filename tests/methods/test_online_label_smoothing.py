import pytest
import torch
from testkit.script import CLASSES, assert_same, cross_entropy, make, onehot, replay, softmax, train

from lightning_perturb.methods import CrossEntropy, MixBootstrapping, OnlineLabelSmoothing


class Averages:
    """The class averages of each epoch, collected one sample at a time."""

    def __init__(self, confidence: str, first: str) -> None:
        self.confidence = confidence
        fill = 1 / CLASSES if first == "uniform" else 0.0
        self.soft = {0: torch.full((CLASSES, CLASSES), fill, dtype=torch.float64)}
        self.seen: list[tuple[int, int, torch.Tensor]] = []

    def collect(self, u, batch, epoch, number):
        for p, y in zip(softmax(u), batch[1].tolist(), strict=True):
            if self.confidence == "one" or int(p.argmax()) == y:
                self.seen.append((epoch, y, p))

    def of(self, epoch: int) -> torch.Tensor:
        if epoch not in self.soft:
            rows = []
            for c in range(CLASSES):
                mine = [p for e, y, p in self.seen if e == epoch - 1 and y == c]
                rows.append(
                    torch.stack(mine).mean(0) if mine else torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64)
                )
            self.soft[epoch] = torch.stack(rows)
        return self.soft[epoch]


@pytest.mark.parametrize("first", ["uniform", "zeros"])
@pytest.mark.parametrize("confidence", ["correct", "one"])
def test_three_epochs_by_hand(confidence, first):
    averages = Averages(confidence, first)

    def loss(logits, batch, epoch, _):
        label = 0.7 * onehot(batch[1]) + 0.3 * averages.of(epoch)[batch[1]]
        return cross_entropy(logits(batch[0]), label).mean()

    expected = replay(loss, epochs=3, after=averages.collect)
    module = make(OnlineLabelSmoothing, alpha=0.3, confidence=confidence, first_epoch=first)
    # softmax of the averages is taken in single precision
    assert_same(train(module, epochs=3), expected, tolerance=1e-6)
    torch.testing.assert_close(module.soft, averages.of(2), rtol=1e-6, atol=1e-6)
    counted = sum(epoch == 2 for epoch, _, _ in averages.seen)
    assert float(module.weights.sum()) == counted
    assert 0 < counted < 15 or confidence == "one"


@pytest.mark.parametrize("detach", [False, True])
def test_mix_bootstrapping_by_hand(detach):
    averages = Averages("correct", "uniform")

    def loss(logits, batch, epoch, _):
        u = logits(batch[0])
        p = softmax(u.detach() if detach else u)
        y = onehot(batch[1])
        label = y + 0.6 * (0.3 * averages.of(epoch)[batch[1]] + 0.7 * p - y)
        return cross_entropy(u, label).mean()

    module = make(MixBootstrapping, alpha=0.6, beta=0.3, detach_target=detach)
    assert_same(train(module, epochs=3), replay(loss, epochs=3, after=averages.collect), tolerance=1e-6)


def test_no_movement_is_cross_entropy():
    plain = train(make(CrossEntropy))
    assert_same(train(make(OnlineLabelSmoothing, alpha=0.0)), plain)
    assert_same(train(make(MixBootstrapping, alpha=0.0)), plain)


def test_mix_bootstrapping_lies_between_its_parents():
    online = train(make(OnlineLabelSmoothing, alpha=0.4), epochs=3)
    assert_same(train(make(MixBootstrapping, alpha=0.4, beta=1.0), epochs=3), online)


def test_the_first_epoch_with_zeros_scales_cross_entropy():
    module = make(OnlineLabelSmoothing, alpha=0.25, first_epoch="zeros")
    expected = replay(lambda logits, batch, *_: 0.75 * cross_entropy(logits(batch[0]), batch[1]).mean(), epochs=1)
    assert_same(train(module, epochs=1), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"alpha": 2}, "alpha=2"), ({"confidence": "x"}, "confidence='x'"), ({"first_epoch": "x"}, "first_epoch='x'")],
)
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(OnlineLabelSmoothing, **options)
