import pytest
import torch

from lightning_perturb.core.distributed import rank
from lightning_perturb.lattice.groups import Groups


def test_means_and_rows_by_hand():
    y = torch.tensor([4, 1, 4, 4])
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 0.0], [0.0, 1.0]], requires_grad=True)
    sample = Groups("sample", y)
    assert torch.equal(sample.mean(rows), rows)
    assert not sample.mean(rows).requires_grad
    assert sample.samples.tolist() == [1, 1, 1, 1]
    category = Groups("category", y)
    assert category.ids.tolist() == [1, 4]
    torch.testing.assert_close(category.mean(rows), torch.tensor([[3.0, 4.0], [2.0, 1.0]]))
    assert category.samples.tolist() == [1, 3]
    assert category.spread(torch.tensor([10.0, 20.0])).tolist() == [20, 10, 20, 20]
    torch.testing.assert_close(category.mean(rows[:, 0]), torch.tensor([3.0, 2.0]))
    corpus = Groups("corpus", y)
    torch.testing.assert_close(corpus.mean(rows), torch.tensor([[2.25, 1.75]]))
    assert corpus.spread(torch.tensor([7.0])).tolist() == [7, 7, 7, 7]
    images = torch.randn(4, 3, 2, 2)
    torch.testing.assert_close(category.mean(images)[1], images[[0, 2, 3]].mean(0))


def test_categories_need_ids():
    with pytest.raises(ValueError, match=r"granularity='category' needs class ids"):
        Groups("category", torch.full((2, 3), 1 / 3))
    assert len(Groups("corpus", torch.full((2, 3), 1 / 3)).place) == 2


def of_ranks() -> dict:
    y = [torch.tensor([4, 1, 4]), torch.tensor([4, 0])][rank()]
    rows = [torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([[0.0], [8.0]])][rank()]
    category, corpus, sample = (Groups(name, y) for name in ("category", "corpus", "sample"))
    return {
        "ids": category.ids.tolist(),
        "means": category.mean(rows).flatten().tolist(),
        "samples": category.samples.tolist(),
        "own": category.spread(category.mean(rows)).flatten().tolist(),
        "corpus": float(corpus.mean(rows)),
        "table": [part.tolist() for part in sample.table(rows[:, 0])],
    }


def test_groups_reach_over_ranks(ranks):
    first, second = ranks(of_ranks)
    for found in (first, second):
        assert found["ids"] == [0, 1, 4]
        assert found["means"] == [8, 3, 2]
        assert found["samples"] == [1, 1, 3]
        assert found["corpus"] == pytest.approx(17 / 5)
        assert found["table"][0] == [1, 3, 5, 0, 8]
    assert first["own"] == [2, 3, 2]
    assert second["own"] == [2, 8]
    assert (first["table"][2], second["table"][2]) == ([0, 1, 2], [3, 4])
