"""Methods that do not look at their input take texts as they take images."""

import pytest
import torch
from testkit.training import adam, trainer_of

from lightning_perturb import methods
from lightning_perturb.data import FirstPercent, GeneratedReviews
from lightning_perturb.nets import BiLSTMAttention

# the rows of [tax Table 16], and what learns on clean samples through a recurrent network
ROWS = {
    "SoftBootstrapping": {},
    "HardBootstrapping": {},
    "LabelSmoothing": {},
    "OnlineLabelSmoothing": {},
    "ProSelfLC": {},
    "PGDTraining": {"perturb_at": "embeddings", "eps": 0.01, "step_size": 0.001, "steps": 2},
    "DLB": {},
    "MbLS": {},
    "LogPert": {"update": "joint"},
    "MixPert": {"perturb_at": "embeddings", "eps2": 0.01, "step_size": 0.001, "steps": 2},
    "MetaWeightNet": {},
    "NARLAdjuster": {},
    "MetaIADA": {},
}


def fitted(method, options, batches=None):
    torch.manual_seed(0)
    meta = {"meta_size": 8} if method.needs.meta else {}
    data = GeneratedReviews(samples=48, test_samples=16, batch_size=16, label_noise=FirstPercent(0.25), **meta)
    net = BiLSTMAttention(2, vocab_size=400, embedding_dim=6, hidden=5)
    module = method(net, 2, optimizer=adam, **options)
    before = net.classifier.weight.detach().clone()
    trainer = trainer_of(max_epochs=2)
    trainer.fit(module, data)
    assert not torch.equal(before, net.classifier.weight)
    return trainer, module


@pytest.mark.parametrize("name", ROWS)
def test_every_row_of_table_16_trains(name):
    trainer, module = fitted(getattr(methods, name), ROWS[name])
    (found,) = trainer.test(module, trainer.datamodule, verbose=False)
    assert 0 <= found["test/acc"] <= 1


def test_dlb_runs_the_batch_before_with_its_own_length():
    lengths = []

    class Listening(methods.DLB):
        def run(self, call, x):
            lengths.append(tuple(x.shape))
            return super().run(call, x)

    fitted(Listening, {})
    # this batch, and from the second step on the one before; they are as long as their longest text
    training = lengths[:11]
    assert all(one == other for one, other in zip(training[0:1] + training[1::2], training[2::2], strict=False))
    assert len({length for _, length in training}) > 1


@pytest.mark.parametrize("method", [methods.Mixup, methods.MixPert])
def test_what_moves_the_input_says_what_to_do(method):
    options = {"eps2": 0.1} if method is methods.MixPert else {}
    with pytest.raises(ValueError, match=r"must be a float tensor; it is torch\.int32"):
        fitted(method, options)


def test_both_of_two_networks_take_the_vectors_of_words(tmp_path):
    torch.manual_seed(0)
    data = GeneratedReviews(samples=32, test_samples=8, batch_size=16)
    data.setup("fit")
    path = tmp_path / "vectors.txt"
    path.write_text("".join(f"{word} {n} 0.5\n" for n, word in enumerate(data.facts.vocabulary)), encoding="utf-8")
    net = BiLSTMAttention(2, vocab_size=400, embedding_dim=2, hidden=5, vectors=str(path))
    net.embedding.weight.requires_grad_(False)
    module = methods.CoTeaching(net, 2, optimizer=adam)
    trainer_of(max_epochs=1).fit(module, data)
    assert float(net.embedding.weight[5, 0]) == 5
    assert torch.equal(module.peer.embedding.weight, net.embedding.weight)


def test_padding_of_the_second_network_is_padding():
    net = BiLSTMAttention(2, vocab_size=40, embedding_dim=3, hidden=5)
    peer = methods.CoTeaching(net, 2).peer
    assert not peer.embedding.weight[0].any()
    assert not torch.equal(peer.embedding.weight, net.embedding.weight)
    assert torch.equal(peer.embedding.weight.flatten().sort()[0], net.embedding.weight.flatten().sort()[0])
