import pytest
import torch
from testkit.script import assert_same, batches, cross_entropy, make, replay, train
from testkit.training import Recipe, TinyConv, fit
from torch import nn

from lightning_perturb.core import Batch
from lightning_perturb.methods import CrossEntropy, PGDTraining

PIXEL = {"random_start": False}


def attack(logits, x, y, radius, step, steps, low=None, high=None):
    """Projected gradient ascent, one coordinate rule after the other."""
    delta = torch.zeros_like(x)
    for _ in range(steps):
        z = (x + delta).requires_grad_()
        (slope,) = torch.autograd.grad(cross_entropy(logits(z), y).sum(), z)
        delta = torch.clamp(delta + step * torch.sign(slope), -radius, radius)
        if low is not None:
            delta = torch.clamp(x + delta, low, high) - x
    return delta.detach()


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_in_pixels_without_normalisation(steps):
    def loss(logits, batch, *_):
        x, y, _ = batch
        return cross_entropy(logits(x + attack(logits, x, y, 0.1, 0.04, steps, 0.0, 1.0)), y).mean()

    assert_same(train(make(PGDTraining, eps=0.1, step_size=0.04, steps=steps, **PIXEL)), replay(loss))


def test_in_pixels_of_a_normalised_input():
    mean, std = 0.2, 0.5
    low, high = -mean / std, (1 - mean) / std
    x, y, index = batches()[0]
    x = x * (high - low) + low
    for clip in (True, False):
        module = make(PGDTraining, eps=0.1, step_size=0.04, steps=5, mean=(mean,), std=(std,), clip=clip, **PIXEL)
        found = module.perturb_input(Batch(x, y, index)).x
        bounds = (low, high) if clip else (None, None)
        expected = x + attack(module.net, x, y, 0.1 / std, 0.04 / std, 5, *bounds)
        torch.testing.assert_close(found, expected)
        assert (float(found.max()) > high or float(found.min()) < low) == (not clip)
        assert float((found - x).abs().max()) == pytest.approx(0.2)


def test_in_units_of_the_network():
    x, y, index = batches()[0]
    module = make(
        PGDTraining, eps=0.1, step_size=0.04, mean=(0.2,), std=(0.5,), eps_space="normalized", clip=False, **PIXEL
    )
    torch.testing.assert_close(module.perturb_input(Batch(x, y, index)).x, x + attack(module.net, x, y, 0.1, 0.04, 5))


def test_without_a_ball_it_is_cross_entropy():
    assert_same(train(make(PGDTraining, eps=0.0)), train(make(CrossEntropy)))


def test_the_start_belongs_to_sample_and_epoch():
    x, y, index = batches()[0]
    module = make(PGDTraining, eps=0.1, steps=0, clip=False, seed=3)

    def start(module, rows=slice(None)):
        return (module.perturb_input(Batch(x[rows], y[rows], index[rows])).x - x[rows]) / 0.1

    whole = start(module)
    assert float(whole.abs().max()) <= 1
    assert float(whole.std()) == pytest.approx(3**-0.5, abs=0.15)
    order = torch.tensor([3, 0, 2])
    torch.testing.assert_close(start(module, order), whole[order])
    other = make(PGDTraining, eps=0.1, steps=0, clip=False, seed=4)
    assert not torch.allclose(start(other), whole)

    class Later(PGDTraining):
        current_epoch = 1

    assert not torch.allclose(start(make(Later, eps=0.1, steps=0, clip=False, seed=3)), whole)


def test_without_index_each_batch_and_place_starts_elsewhere():
    starts = []

    class Listening(PGDTraining):
        def uniform(self, stream, batch, *shape):
            starts.append(super().uniform(stream, Batch(batch.x, batch.y), *shape))
            return starts[-1]

    train(make(Listening, eps=0.1, steps=1), accumulate_grad_batches=3)
    rows = torch.cat(starts)
    assert len(rows) == 30
    assert len({tuple(row.tolist()) for row in rows}) == 30, "batches of one optimizer step, or two epochs, draw alike"


def test_the_attack_sees_evaluation_mode_and_leaves_no_trace():
    modes = []

    class Net(TinyConv):
        def forward(self, x):
            modes.append((self.training, torch.is_grad_enabled()))
            return super().forward(x)

    net = Net(norm=True, dropout=0.5)
    module = PGDTraining(net, 10, steps=3, clip=False)
    batch = Batch(torch.rand(6, 1, 8, 8), torch.arange(6), torch.arange(6))
    before = [p.clone() for p in net.state_dict().values()]
    attacked = module.perturb_input(batch)
    assert modes == [(False, True)] * 3
    assert net.training
    assert not attacked.x.requires_grad
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, net.state_dict().values(), strict=True))
    assert torch.equal(batch.x, module.perturb_input(batch.with_input(batch.x.clone())).x) is False


def test_the_data_module_gives_the_normalisation():
    trainer = fit(Recipe(PGDTraining, {"steps": 1}, net="conv", trainer={"max_epochs": 1}))
    module, data = trainer.lightning_module, trainer.datamodule
    mean, std = module.space.normalisation(torch.zeros(1, 1, 8, 8), module.facts)
    assert mean.shape == (1, 1, 1, 1)
    assert (float(mean), float(std)) == pytest.approx((data.mean[0], data.std[0]))


def test_inputs_that_are_no_pixels_are_told():
    module = make(PGDTraining)
    with pytest.raises(ValueError, match=r"clip=True expects pixels of \[0, 1\].*reaches from 0 to 2"):
        module.perturb_input(Batch(torch.tensor([[0.0, 2.0]]), torch.tensor([0]), torch.tensor([0])))
    with pytest.raises(ValueError, match=r"PGDTraining adds a perturbation .* torch.int64"):
        module.perturb_input(Batch(torch.tensor([[0, 2]]), torch.tensor([0]), torch.tensor([0])))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": -1.0}, "eps="),
        ({"step_size": -1.0}, "step_size="),
        ({"steps": -1}, "steps=-1"),
        ({"eps_space": "x"}, "eps_space='x'"),
        ({"mean": (0.5,)}, "mean and std belong together"),
    ],
)
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(PGDTraining, **options)


def test_channels_have_their_own_units():
    net = nn.Sequential(nn.Flatten(), nn.Linear(27, 4))
    mean, std = (0.5, 0.4, 0.3), (0.5, 0.25, 0.125)
    module = PGDTraining(net, 4, eps=0.05, steps=3, step_size=0.05, mean=mean, std=std, random_start=False, clip=False)
    x = torch.zeros(2, 3, 3, 3)
    moved = (module.perturb_input(Batch(x, torch.tensor([0, 1]), torch.arange(2))).x - x).abs().amax((0, 2, 3))
    torch.testing.assert_close(moved, 0.05 / torch.tensor(std))


def test_inputs_that_are_no_pixels_are_found_after_a_warm_up():
    from lightning import Trainer
    from torch.utils.data import DataLoader, TensorDataset

    module = PGDTraining(torch.nn.Linear(4, 3), 3, warmup_epochs=1)
    loader = DataLoader(TensorDataset(3 * torch.randn(8, 4), torch.arange(8) % 3), batch_size=4)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    with pytest.raises(ValueError, match="clip=True expects pixels"):
        Trainer(max_epochs=2, accelerator="cpu", **quiet).fit(module, loader)
