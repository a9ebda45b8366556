import math

import numpy as np
import pytest
import torch

from lightning_perturb.functional import (
    Observation,
    standardize,
    training_characteristics,
    update_class_average,
    update_moments,
)
from lightning_perturb.functional.characteristics import CHARACTERISTICS, learning_history, sample_loss

B, C, A = 6, 4, 5


def draw(seed=0, **replaced):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    arguments = {
        "features": normal(B, A),
        "weight": normal(C, A),
        "target": torch.randint(C, (B,), generator=generator),
        "log_prior": normal(C).log_softmax(0),
        "class_loss": normal(C).abs(),
        "mean": normal(C, A),
        "variance": normal(C, A).square(),
        "history": torch.rand(B, dtype=torch.float64, generator=generator),
    }
    arguments["logits"] = arguments["features"] @ arguments["weight"].t()
    return Observation(**(arguments | replaced))


def by_hand(seen, i):
    u, y = seen.logits[i].numpy(), int(seen.target[i])
    p = np.exp(u - u.max())
    p /= p.sum()
    W, h = seen.weight.numpy(), seen.features[i].numpy()
    others = np.arange(C) != y
    g = p - np.eye(C)[y]
    norms = np.sqrt((W**2).sum(1))
    z = (h - seen.mean[y].numpy()) / np.sqrt(seen.variance[y].numpy() + 1e-5)
    return [
        -np.log(p[y]),
        p[y],
        u[y] - u[others].max(),
        p[y] - p[others].max(),
        np.sqrt((g**2).sum()),
        np.sqrt(((g @ W) ** 2).sum()),
        -(p * np.log(p)).sum() / np.log(C),
        float(u.argmax() == y),
        np.log(C * np.exp(float(seen.log_prior[y]))),
        float(seen.class_loss[y]),
        -np.log(p[y]) - float(seen.class_loss[y]),
        norms[y] / norms.mean(),
        h @ W[y] / norms[y] / np.sqrt(h @ h),
        float(seen.history[i]),
        np.sqrt((z**2).mean()),
    ]


def test_fifteen_by_hand():
    seen = draw()
    values = training_characteristics(seen)
    assert len(CHARACTERISTICS) == 15
    assert values.shape == (B, 15)
    np.testing.assert_allclose(values.numpy(), [by_hand(seen, i) for i in range(B)], rtol=1e-9, atol=1e-9)


def test_every_characteristic_says_its_aspect():
    aspects = [f.__doc__.split(":")[0] for f in CHARACTERISTICS]
    assert aspects == ["Difficulty"] * 8 + ["Class distribution"] * 5 + ["Noise level"] * 2


def test_a_list_of_your_own():
    def target_id(seen):
        return seen.target

    seen = draw()
    values = training_characteristics(seen, [sample_loss, target_id])
    assert values[:, 1].tolist() == seen.target.tolist()

    def wrong(seen):
        return seen.logits

    with pytest.raises(ValueError, match="'wrong' returned the shape"):
        training_characteristics(seen, [wrong])
    with pytest.raises(ValueError, match="characteristics is empty"):
        training_characteristics(seen, [])


def test_missing_history_is_neutral():
    assert learning_history(draw(history=None)).tolist() == [1 / C] * B


def test_all_is_constant():
    seen = draw(
        logits=torch.randn(B, C, requires_grad=True),
        weight=torch.randn(C, A, requires_grad=True),
        features=torch.randn(B, A, requires_grad=True),
    )
    assert not training_characteristics(seen).requires_grad
    assert not any(f(seen).requires_grad for f in CHARACTERISTICS)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finite_for_extreme_and_degenerate_input(scale, dtype):
    seen = draw(
        logits=(torch.randn(B, C) * scale).to(dtype),
        features=torch.zeros(B, A, dtype=dtype),
        weight=torch.zeros(C, A, dtype=dtype),
        mean=torch.zeros(C, A),
        variance=torch.zeros(C, A),
    )
    values = training_characteristics(seen)
    assert values.dtype == torch.float32
    assert values.isfinite().all()


def test_observation_names_what_does_not_fit():
    with pytest.raises(ValueError, match="class_loss has the shape"):
        draw(class_loss=torch.zeros(C + 1))
    with pytest.raises(ValueError, match="weight has the shape"):
        draw(weight=torch.zeros(C, A + 1))
    with pytest.raises(ValueError, match="history has the shape"):
        draw(history=torch.zeros(B - 1))


def test_class_average():
    old = torch.tensor([1.0, 2.0, 3.0])
    new = update_class_average(old, torch.tensor([4.0, 6.0, 0.0]), torch.tensor([0, 0, 2]), momentum=0.9)
    assert new.tolist() == pytest.approx([0.9 + 0.1 * 5, 2.0, 2.7])
    assert old.tolist() == [1.0, 2.0, 3.0]
    assert torch.equal(update_class_average(old, old[:0], torch.zeros(0, dtype=torch.int64)), old)
    with pytest.raises(ValueError, match="momentum=1"):
        update_class_average(old, old, torch.zeros(3, dtype=torch.int64), momentum=1.0)


def test_moments_start_as_those_of_all_values():
    rows = torch.randn(4, 10, 3, dtype=torch.float64) * 3 + 7
    state = torch.tensor(0), torch.zeros(3).double(), torch.ones(3).double()
    for batch in rows:
        state = update_moments(*state, batch, momentum=0.9)
    everything = rows.flatten(0, 1).numpy()
    assert state[0] == 4
    np.testing.assert_allclose(state[1].numpy(), everything.mean(0))
    np.testing.assert_allclose(state[2].numpy(), everything.var(0))


def test_moments_fade_in_the_long_run():
    state = torch.tensor(1000), torch.zeros(1), torch.ones(1)
    steps, mean, variance = update_moments(*state, torch.tensor([[1.0], [3.0]]), momentum=0.9)
    assert steps == 1001
    assert mean.item() == pytest.approx(0.2)
    # the variance of the mixture of N(0, 1) with weight .9 and {1, 3} with .1
    assert variance.item() == pytest.approx(0.9 * 1 + 0.1 * (1 + 9) / 2 - 0.2**2)
    assert update_moments(*state, torch.zeros(0, 1)) == state


def test_standardize():
    values = standardize(torch.tensor([[1.0, 5.0, 1e9]]), torch.tensor([0.0, 5.0, 0.0]), torch.tensor([4.0, 0.0, 1.0]))
    assert values.tolist()[0] == pytest.approx([0.5, 0.0, 5.0], rel=1e-4)
    with pytest.raises(ValueError, match="clip=0"):
        standardize(values, values[0], values[0], clip=0.0)
    assert math.isfinite(standardize(values, values[0] - 1, torch.zeros(3)).sum().item())
