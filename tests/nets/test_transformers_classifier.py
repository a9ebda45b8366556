"""The adapter of transformers, on a tiny BERT that the test writes; skipped where the library is not installed."""

import sys

import pytest
import torch
from testkit.training import adam, trainer_of
from torch.func import functional_call

from lightning_perturb import load
from lightning_perturb.core import Batch
from lightning_perturb.data import FirstPercent, GeneratedReviews, TransformersTokenizer
from lightning_perturb.methods import IADA, MixPert, PGDTraining
from lightning_perturb.nets import TransformersClassifier, find_classifier

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "was", "good", "bad", "not", ",", "."]


def test_the_library_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"TransformersClassifier needs.*lightning-perturb\[text\]"):
        TransformersClassifier("anything", 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BERT of two layers with its tokenizer, as a folder of files."""
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=40, **sizes)
    transformers.BertForSequenceClassification(config).save_pretrained(path)
    (path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    transformers.BertTokenizer(str(path / "vocab.txt")).save_pretrained(path)
    return str(path)


def test_padding_changes_nothing(folder):
    tokenizer = TransformersTokenizer(folder, max_length=12)
    net = TransformersClassifier(folder, 3).eval()
    texts = ["The film was good.", "not bad"]
    ids = tokenizer(texts)
    assert (ids.shape, ids.dtype, tokenizer.pad_id) == ((2, 12), torch.int32, 0)
    assert [WORDS[i] for i in ids[1, :5]] == ["[CLS]", "not", "bad", "[SEP]", "[PAD]"]
    alone = torch.cat([net(tokenizer.ids(text)) for text in texts])
    torch.testing.assert_close(net(ids), alone)
    assert alone.shape == (2, 3)
    assert find_classifier(net)[0] == "model.classifier"
    other = {name: 1.5 * value for name, value in net.named_parameters()}
    assert not torch.allclose(functional_call(net, other, (ids,)), alone)


def test_weights_come_from_the_folder(folder):
    one, two = TransformersClassifier(folder, 2), TransformersClassifier(folder, 2)
    torch.testing.assert_close(one.state_dict(), two.state_dict())
    assert one.training
    assert one.model.training
    drawn = TransformersClassifier(folder, 2, pretrained=False).state_dict()
    name = "model.bert.embeddings.word_embeddings.weight"
    assert not torch.equal(drawn[name], one.state_dict()[name])


def test_tokens_are_attacked_where_they_are_embedded(folder):
    net = TransformersClassifier(folder, 2)
    module = PGDTraining(net, 2, eps=0.1, steps=2, step_size=0.05, perturb_at="embeddings")
    named = PGDTraining(net, 2, perturb_at="model.bert.embeddings.word_embeddings")
    assert named._layer._layer[0] is module._layer._layer[0]
    ids = TransformersTokenizer(folder, max_length=8)(["the film", "not good , not bad"])
    batch = module.perturb_input(Batch(ids, torch.tensor([0, 1]), torch.arange(2)))
    assert batch.extra["layer_delta"].shape == (2, 8, 8)
    net.eval()
    with torch.no_grad():
        plain, moved = net(ids), module.outputs(net, batch)["logits"]
    loss = torch.nn.functional.cross_entropy
    assert loss(moved, batch.y) > loss(plain, batch.y)


@pytest.mark.parametrize(
    ("method", "options"), [(MixPert, {"eps2": 0.05, "steps": 2, "perturb_at": "embeddings"}), (IADA, {})]
)
def test_methods_train_and_load(folder, method, options, tmp_path):
    torch.manual_seed(0)
    tokenizer = TransformersTokenizer(folder, max_length=16)
    data = GeneratedReviews(samples=32, test_samples=8, tokenizer=tokenizer, label_noise=FirstPercent(0.2))
    net = TransformersClassifier(folder, 2)
    trainer = trainer_of(max_epochs=1)
    trainer.fit(method(net, 2, optimizer=adam, **options), data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = load(tmp_path / "a.ckpt", net=TransformersClassifier(folder, 2, pretrained=False))
    ids = data.tokenizer(["the film was good"])
    torch.testing.assert_close(again(ids), net.eval()(ids))


def test_bad_input(folder, tmp_path):
    with pytest.raises(ValueError, match=r"name=.*cannot be read as a text classifier.*config\.json"):
        TransformersClassifier(str(tmp_path / "none"), 2)
    with pytest.raises(ValueError, match=r"is no tokenizer that can be read.*vocab\.txt"):
        TransformersTokenizer(str(tmp_path / "none"))(["a"])
    with pytest.raises(ValueError, match="Text 1 of 2 has no words"):
        TransformersTokenizer(folder)(["a", " "])
    with pytest.raises(ValueError, match=r"takes ids \[B, L\] of tokens"):
        TransformersClassifier(folder, 2)(torch.zeros(2, 3))
