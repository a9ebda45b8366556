import pytest
import torch

from lightning_perturb.functional import (
    choose_partners,
    other_domain,
    same_domain_other_label,
    same_label_other_domain,
)

LABEL = torch.tensor([0, 0, 1, 1, 0, 2])
DOMAIN = torch.tensor([0, 1, 0, 1, 1, 2])


def test_pairs_by_definition():
    for i in range(6):
        for j in range(6):
            label, domain = bool(LABEL[i] == LABEL[j]), bool(DOMAIN[i] == DOMAIN[j])
            assert bool(same_label_other_domain(LABEL, DOMAIN)[i, j]) == (label and not domain)
            assert bool(same_domain_other_label(LABEL, DOMAIN)[i, j]) == (domain and not label)
            assert bool(other_domain(DOMAIN)[i, j]) == (not domain)


def test_every_allowed_partner_is_alike_likely():
    allowed = same_label_other_domain(LABEL, DOMAIN)
    draws = torch.arange(600).double() / 600
    found = torch.stack([choose_partners(allowed, d.expand(6)) for d in draws])
    for i in range(6):
        partners, times = found[:, i].unique(return_counts=True)
        expected = allowed[i].nonzero().flatten().tolist() or [i]
        assert partners.tolist() == expected
        assert set(times.tolist()) == {600 // len(expected)}


def test_the_largest_draw_and_the_smallest_batches():
    allowed = other_domain(DOMAIN)
    found = choose_partners(allowed, torch.full((6,), 1 - 2**-24))
    assert found.tolist() == [max(j for j in range(6) if allowed[i, j]) for i in range(6)]
    assert choose_partners(torch.zeros(1, 1).bool(), torch.rand(1)).tolist() == [0]
    assert choose_partners(torch.zeros(0, 0).bool(), torch.rand(0)).tolist() == []


def test_bad_input():
    with pytest.raises(ValueError, match=r"must be \[B, B\] and \[B\]"):
        choose_partners(torch.zeros(2, 3).bool(), torch.rand(2))
