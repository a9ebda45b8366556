"""The BiLSTM with attention, and word vectors from files."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from lightning_perturb.nets import BiLSTMAttention, find_classifier, read_vectors


def small(**options):
    torch.manual_seed(0)
    return BiLSTMAttention(3, **{"vocab_size": 12, "embedding_dim": 5, "hidden": 4, **options}).double()


def reference(net, row):
    """One text without padding, word by word, by PyTorch's own bidirectional LSTM."""
    lstm = nn.LSTM(5, 4, bidirectional=True, batch_first=True).double()
    with torch.no_grad():
        for name, value in lstm.named_parameters():
            source = net.backward_lstm if name.endswith("_reverse") else net.forward_lstm
            value.copy_(getattr(source, name.removesuffix("_reverse")))
    h, _ = lstm(net.embedding.weight[row][None])
    h = h[0]
    scores = torch.stack([net.attention.weight[0] @ torch.tanh(one) for one in h])
    total = torch.exp(scores).sum()
    feature = torch.tanh(sum(torch.exp(score) / total * one for score, one in zip(scores, h, strict=True)))
    return net.classifier.weight @ feature + net.classifier.bias


ROWS = [[3, 4, 5, 6], [7], [2, 2, 9]]


def padded(length):
    ids = torch.zeros(len(ROWS), length, dtype=torch.int32)
    for ids_of, row in zip(ids, ROWS, strict=True):
        ids_of[: len(row)] = torch.tensor(row)
    return ids


@pytest.mark.parametrize("length", [4, 9])
def test_padding_changes_nothing(length):
    net = small().eval()
    expected = torch.stack([reference(net, row) for row in ROWS])
    torch.testing.assert_close(net(padded(length)), expected)


def test_padding_gets_no_gradient():
    net = small().eval()
    seen = []
    net.embedding.register_forward_hook(lambda *args: seen.append(args[2].requires_grad_().retain_grad() or args[2]))
    net(padded(6)).square().sum().backward()
    assert ((seen[0].grad != 0).any(2) == (padded(6) != 0)).all()


def test_a_text_of_padding_alone_is_finite():
    assert torch.isfinite(small().eval()(torch.zeros(2, 3, dtype=torch.long))).all()


def test_other_parameters_can_be_put_in():
    net, other = small().eval(), small(vocab_size=12).eval()
    other.load_state_dict({name: value * 1.1 for name, value in net.state_dict().items()})
    found = functional_call(net, dict(other.named_parameters()), (padded(4),))
    torch.testing.assert_close(found, other(padded(4)))
    assert find_classifier(net)[0] == "classifier"


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.zeros(2, 3), r"takes ids \[B, L\].*perturb_at to embeddings"),
        (torch.zeros(2, 3, 4, dtype=torch.long), r"of shape \(2, 3, 4\)"),
        (torch.full((2, 3), 12), "vocab_size=12.*no row for the id 12"),
    ],
)
def test_bad_ids(ids, message):
    with pytest.raises(ValueError, match=message):
        small()(ids)


# word vectors ---------------------------------------------------------------------------------------------------------

WORDS = ("<pad>", "<unknown>", "good", "new york", "rare")


def written(tmp_path, *lines):
    path = tmp_path / "vectors.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_vectors_are_read(tmp_path):
    path = written(tmp_path, "3 2", "the 9 9", "new york -1 2.5e-1", "good 0.5 1", "good 7 7")
    found, rows = read_vectors(path, WORDS, 2)
    assert found.tolist() == [3, 2]
    np.testing.assert_array_equal(rows, np.array([[-1, 0.25], [0.5, 1]], dtype=np.float32))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["good 1 2 3", "the 1"], "Line 2 of .* has 1 numbers where embedding_dim=3"),
        (["good 1 x 3"], "Line 1 of .* is no word and 3 numbers"),
        (["the 1 2 3"], "none of the 5 words"),
    ],
)
def test_broken_files(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        read_vectors(written(tmp_path, *lines), WORDS, 3)
    with pytest.raises(FileNotFoundError, match="glove"):
        read_vectors(tmp_path / "none.txt", WORDS, 3)


def test_a_network_takes_a_vocabulary_once(tmp_path):
    path = written(tmp_path, "good 1 2 3", "the 4 5 6")
    options = {"vocab_size": 6, "embedding_dim": 3}
    net = BiLSTMAttention(2, vectors=str(path), **options)
    before = net.embedding.weight.detach().clone()
    net.take_vocabulary(WORDS)
    assert net.embedding.weight[2].tolist() == [1, 2, 3]
    assert torch.equal(net.embedding.weight[3:], before[3:])
    with torch.no_grad():
        net.embedding.weight.add_(1)
    trained = net.embedding.weight.detach().clone()
    again = BiLSTMAttention(2, vectors=str(path), **options)
    again.load_state_dict(net.state_dict())
    again.take_vocabulary(WORDS)
    assert torch.equal(again.embedding.weight, trained)
    with pytest.raises(ValueError, match="trained with another vocabulary"):
        again.take_vocabulary((*WORDS[:-1], "other"))
    with pytest.raises(ValueError, match=r"vocab_size=4 .* less than the 5 words.*max_words"):
        BiLSTMAttention(2, vocab_size=4).take_vocabulary(WORDS)
