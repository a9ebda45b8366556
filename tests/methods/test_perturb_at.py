"""Perturbations at a layer of the network: embedded words."""

import pytest
import torch
from testkit import meta as meta_kit
from testkit.script import CLASSES, batches, network, sgd, weights
from testkit.training import trainer_of
from torch import nn
from torch.func import functional_call
from torch.utils.data import DataLoader

from lightning_perturb.bilevel.replay import differentiable_kernels
from lightning_perturb.core import Batch
from lightning_perturb.core.layer import PerturbedLayer
from lightning_perturb.core.modes import attackable
from lightning_perturb.data import FirstPercent, GeneratedReviews
from lightning_perturb.methods import MetaMixPert, MixPert, PGDTraining
from lightning_perturb.nets import BiLSTMAttention

ATTACK = {"step_size": 0.04, "steps": 3, "eps_space": "normalized", "clip": False}


class Behind(nn.Module):
    """The network behind a layer that gives its input."""

    def __init__(self):
        super().__init__()
        self.front = nn.Identity()
        self.back = network()

    def forward(self, x):
        return self.back(self.front(x))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (PGDTraining, {"eps": 0.1}),
        (PGDTraining, {"eps": 0.1, "start_radius": 0.01}),
        (MixPert, {"eps2": 0.1, "share": 0.4}),
        (MixPert, {"eps2": 0.1, "share": 0.4, "bounds": "per_sample", "clean_weight": 0.4, "clean_samples": "all"}),
        (MixPert, {"eps2": 0.1, "share": 1.0}),
    ],
    ids=str,
)
def test_the_output_of_a_layer_is_moved_as_an_input_would_be(method, options):
    def trained(perturb_at):
        net = Behind()
        module = method(net, CLASSES, optimizer=sgd, seed=3, perturb_at=perturb_at, **ATTACK, **options).double()
        trainer_of(max_epochs=2, precision="64-true").fit(module, DataLoader(batches(), batch_size=None))
        return weights(net.back)

    found = trained("front")
    torch.testing.assert_close(found, trained("input"), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(found, weights(network()), atol=1e-3)


def test_the_start_can_be_nearer_than_the_ball():
    module = PGDTraining(Behind(), CLASSES, eps=0.1, start_radius=0.02, steps=0, perturb_at="front").double()
    x, y, index = batches()[0]
    delta = module.attack(Batch(x, y, index), 0.1)
    assert 0.01 < float(delta.abs().max()) <= 0.02


# embedded words ---------------------------------------------------------------------------------------------------

IDS = torch.tensor([[3, 4, 5, 0], [2, 6, 0, 0], [7, 1, 3, 2]], dtype=torch.int32)
LABELS = torch.tensor([0, 1, 2])


def bilstm(dropout=0.0):
    torch.manual_seed(1)
    return BiLSTMAttention(3, vocab_size=9, embedding_dim=4, hidden=3, dropout=dropout).double()


def logits_of(net, embedded):
    """The rest of the network from embedded words on."""
    handle = net.embedding.register_forward_hook(lambda *_: embedded)
    try:
        return net(IDS)
    finally:
        handle.remove()


def test_embedded_words_are_attacked_and_padding_is_not():
    net = bilstm()
    module = PGDTraining(net, 3, eps=0.3, step_size=0.1, steps=4, random_start=False, perturb_at="embeddings")
    embedded = net.embedding.weight.detach()[IDS]
    delta = torch.zeros_like(embedded)
    for _ in range(4):
        z = (embedded + delta).requires_grad_()
        loss = nn.functional.cross_entropy(logits_of(net, z), LABELS, reduction="sum")
        delta = (delta + 0.1 * torch.autograd.grad(loss, z)[0].sign()).clamp(-0.3, 0.3)
    batch = module.perturb_input(Batch(IDS, LABELS, torch.arange(3)))
    torch.testing.assert_close(batch.extra["layer_delta"], delta)
    assert torch.equal(batch.view, IDS)

    # gradients go through e + δ into the embedding
    found = module.outputs(net, batch)["logits"]
    expected = logits_of(net, net.embedding(IDS) + delta)
    torch.testing.assert_close(found, expected)
    one, two = (torch.autograd.grad(u.square().sum(), net.embedding.weight)[0] for u in (found, expected))
    torch.testing.assert_close(one, two)
    other = {name: 1.1 * value for name, value in net.named_parameters()}
    moved = module.outputs(lambda x: functional_call(net, other, (x,)), batch)["logits"]
    assert not torch.allclose(moved, found)

    # whatever the start, the word of padding stays what it is
    with PerturbedLayer(net, "embedding").moved(torch.ones_like(embedded)):
        seen = []
        handle = net.dropout.register_forward_hook(lambda *args: seen.append(args[1][0]))
        net(IDS)
        handle.remove()
    assert torch.equal(seen[0] - embedded != 0, (IDS != 0)[..., None].expand_as(embedded))


def test_the_attack_keeps_recurrent_layers_differentiable_on_every_device():
    net = nn.Sequential(nn.LSTM(3, 3, num_layers=2, dropout=0.5), nn.Dropout(0.5))
    net[1].eval()
    with attackable(net):
        assert [net.training, net[0].training, net[0].dropout, net[1].training] == [False, True, 0.0, False]
    assert [net.training, net[0].training, net[0].dropout, net[1].training] == [True, True, 0.5, False]


@pytest.mark.gpu
@pytest.mark.parametrize("method", [PGDTraining, MixPert, MetaMixPert])
def test_it_runs_on_a_gpu(method):
    options = {"eps": 0.1} if method is PGDTraining else {"eps2": 0.1}
    data = GeneratedReviews(samples=48, batch_size=16, meta_size=8)
    net = BiLSTMAttention(2, vocab_size=400, embedding_dim=8, hidden=6)
    module = method(net, 2, steps=2, perturb_at="embeddings", **options)
    trainer_of(max_epochs=1, accelerator="gpu").fit(module, data)


class Words(nn.Module):
    """A recurrent network that can be told what to add to its embedded words."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 4, padding_idx=0)
        self.lstm = nn.LSTM(4, 3, batch_first=True, bidirectional=True)
        self.classifier = nn.Linear(6, 3)

    def forward(self, ids, shift=None):
        x = self.embedding(ids)
        if shift is not None:
            x = x + shift * (ids != 0)[..., None]
        return self.classifier(self.lstm(x)[0].mean(1))


class Told(MetaMixPert):
    """Without hooks, which `higher` does not run in its copy of the network."""

    def outputs(self, call, batch):
        outputs = {"logits": call(batch.x)}
        return (
            {**outputs, "attacked_logits": call(batch.x, batch.extra["delta"])} if "delta" in batch.extra else outputs
        )


@pytest.mark.parametrize("engine", ["forward", "higher"])
def test_the_hypergradient_is_exact_with_attacked_words(engine):
    def make(method):
        torch.manual_seed(0)
        options = {"eps2": 0.3, "step_size": 0.1, "steps": 2, "perturb_at": "embedding", "hidden": 5, "engine": engine}
        makers = {"optimizer": meta_kit.sgd, "meta_optimizer": meta_kit.adam}
        return method(Words(), 3, **makers, **options).double()

    module = make(MetaMixPert)
    batch = module.perturb_input(Batch(IDS, LABELS, torch.arange(3)))
    other = Batch(IDS.flip(0), LABELS, torch.arange(3, 6))
    found = module.hypergradient(batch, other, 0.5).gradients
    told = make(Told)
    with differentiable_kernels(told.net):
        expected = meta_kit.reference(told, batch, other, 0.5)
    for one, two in zip(found, expected, strict=True):
        assert two.norm() > 0
        assert (one - two).norm() <= 1e-10 * two.norm()


def test_methods_learn_at_embedded_words():
    torch.manual_seed(0)
    data = GeneratedReviews(samples=64, test_samples=16, batch_size=16, label_noise=FirstPercent(0.2))
    net = BiLSTMAttention(2, vocab_size=400, embedding_dim=8, hidden=6)
    module = MixPert(net, 2, eps2=0.05, steps=2, step_size=0.03, perturb_at="embeddings", clean_weight=0.4)
    before = net.embedding.weight.detach().clone()
    trainer_of(max_epochs=1).fit(module, data)
    assert not torch.equal(before, net.embedding.weight)


# what is refused --------------------------------------------------------------------------------------------------


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(9, 3)
        self.places = nn.Embedding(9, 3)
        self.classifier = nn.Linear(3, 3)

    def forward(self, ids):
        return self.classifier((self.words(ids) + self.words(ids)).mean(1))


@pytest.mark.parametrize(
    ("net", "name", "message"),
    [
        (bilstm, "embeding", r"perturb_at='embeding' is no layer of BiLSTMAttention.*embedding.*or input"),
        (network, "embeddings", "the one nn.Embedding of Linear, which has none"),
        (Twice, "embeddings", "which has several: words, places"),
    ],
)
def test_layers_that_are_not_there(net, name, message):
    with pytest.raises(ValueError, match=message):
        PGDTraining(net(), 3, perturb_at=name)


@pytest.mark.parametrize(
    ("net", "name", "message"),
    [
        (Twice, "words", "is run 2 times in a forward"),
        (Twice, "places", "is run 0 times in a forward"),
        (bilstm, "forward_lstm", "gives tuple, which no perturbation"),
    ],
)
def test_layers_that_cannot_be_moved(net, name, message):
    module = PGDTraining(net(), 3, perturb_at=name)
    with pytest.raises(ValueError, match=message):
        module.perturb_input(Batch(IDS, LABELS, torch.arange(3)))


def test_ids_are_no_input_to_move():
    with pytest.raises(
        ValueError, match=r"which must be a float tensor; it is torch\.int32\. Set perturb_at to embeddings"
    ):
        PGDTraining(bilstm(), 3).perturb_input(Batch(IDS, LABELS, torch.arange(3)))
