"""Two ranks, whose batches of texts are of different lengths, end where one process ends."""

import torch
from lightning.pytorch import seed_everything
from testkit.training import different, sgd, snapshot, trainer_of

from lightning_perturb.data import FirstPercent, GeneratedReviews
from lightning_perturb.methods import MixPert
from lightning_perturb.nets import BiLSTMAttention


def run(batch_size, **trainer):
    seed_everything(0, verbose=False)
    data = GeneratedReviews(samples=64, test_samples=16, batch_size=batch_size, label_noise=FirstPercent(0.25))
    net = BiLSTMAttention(2, vocab_size=400, embedding_dim=6, hidden=5, dropout=0.0)
    attack = {"perturb_at": "embeddings", "eps2": 0.1, "step_size": 0.05, "steps": 2, "clean_weight": 0.4}
    fitting = trainer_of(max_epochs=2, precision="64-true", **trainer)
    fitting.fit(MixPert(net, 2, optimizer=sgd, share=0.25, clean_samples="all", **attack), data)
    weights = {name: value for name, value in snapshot(fitting).items() if name.startswith("module/net")}
    return weights, net.vocabulary_hash.clone()


def test_two_ranks_are_one_process(ranks):
    expected, name = run(16)
    (first, first_name), (second, second_name) = ranks(run, 8, strategy="ddp", devices=2)
    assert different(first, second) == []
    assert different(expected, first, tolerance=1e-8) == []
    assert torch.equal(name, first_name)
    assert torch.equal(name, second_name)
