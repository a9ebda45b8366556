"""The zoo's tables, from the classes."""

import inspect
import re
from itertools import product

import pytest

from lightning_perturb import lattice, methods
from lightning_perturb.cli import main
from lightning_perturb.core.taxonomy import GRANULARITIES, INFERENCES, TARGETS
from lightning_perturb.lattice.forms import FORMS, NO_FORM
from lightning_perturb.zoo import (
    TABLE_1,
    cell_rows,
    empty_rows,
    meaningless_rows,
    named_places,
    places_of,
    table_1_rows,
)

PLACES = set(product(TARGETS, GRANULARITIES, INFERENCES))


def entry(target, granularity, inference):
    (row,) = [row for row in table_1_rows() if row[:2] == [target, granularity]]
    return row[2 + INFERENCES.index(inference)]


def test_table_1_has_the_papers_methods_with_ours_in_it():
    assert set(TABLE_1) <= PLACES
    assert len(table_1_rows()) == 12
    assert entry("feature", "sample", "prior").startswith("Mixup + ")
    assert entry("logit", "sample", "regularization").startswith("+ ")
    assert "LogPert" in entry("logit", "sample", "regularization")
    assert "MetaMixUp" in entry("feature", "sample", "meta").split("+")[1]
    assert entry("loss", "sample", "regularization").startswith("SVM + ")
    assert "examples.svm_slack" in entry("loss", "sample", "regularization")
    assert "examples.robust_clustering" in entry("feature", "sample", "regularization")
    assert "KnowledgeDistillation" in entry("loss", "sample", "prior")
    assert "AdversarialLabelSmoothing" in entry("label", "sample", "adversarial")
    assert entry("feature", "corpus", "adversarial").split(" + ")[0] == "UAT"
    assert not any("Perturb" in cell for row in table_1_rows() for cell in row), "it stands everywhere"


def test_a_method_made_of_others_stands_where_these_stand():
    assert set(places_of(methods.LogitAdjustedLPL)) == {
        ("logit", "corpus", "prior"), ("logit", "category", "adversarial"),
    }  # fmt: skip
    assert "LogitAdjustedLPL" not in entry("logit", "corpus", "adversarial")
    assert entry("loss", "category", "adversarial") == "+ GroupDRO"
    assert set(places_of(methods.Mixup)) == {("feature", "sample", "prior"), ("label", "sample", "prior")}
    for name, cls in vars(methods).items():
        if inspect.isclass(cls) and not issubclass(cls, methods.Perturb):
            stated = cls.coordinates
            found = [set(column) for column in zip(*places_of(cls), strict=True)]
            assert found in ([], [set(stated.target), set(stated.granularity), set(stated.inference)]), name


def test_empty_cells_are_those_without_a_named_method():
    empty = {tuple(row[:3]): row[3:] for row in empty_rows()}
    assert set(empty) == PLACES - set(named_places())
    for place, (paper, method, cell, directions) in empty.items():
        assert paper == TABLE_1.get(place, "-")
        if method == "no meaning":
            assert place in (("label", "corpus", "regularization"), ("loss", "corpus", "adversarial"))
            continue
        assert method == ("MetaPerturb" if place[2] == "meta" else "Perturb")
        made = getattr(lattice, cell)
        for direction in directions.split(", "):
            assert made(place[0], place[1], direction).coordinates.inference == (place[2],)
    assert ("logit", "sample", "regularization") not in empty
    assert ("logit", "corpus", "adversarial") in empty


def test_cells_without_a_meaning_are_listed_with_the_reason():
    rows = meaningless_rows()
    assert sum(len(row[3].split(", ")) for row in rows) == 17
    assert ["label", "corpus", "regularization", "positive, negative, mixed"] in [row[:4] for row in rows]
    assert all(row[4] for row in rows)


def test_methods_are_cells_or_it_is_said_why_not():
    names = {name for name in methods.__all__ if not name.endswith("Perturb")}
    assert set(FORMS) | set(NO_FORM) <= names
    assert not set(FORMS) & set(NO_FORM)
    rows = cell_rows()
    assert len(rows) == len(FORMS) + len(NO_FORM)
    for _, form, why in rows:
        # what is written are classes that can be listed
        for name in re.findall(r"\b([A-Z]\w+)\(", form):
            assert hasattr(lattice, name), name
        for name in re.findall(r"(?:pattern|split|bounds)=(\w+)", form):
            assert hasattr(lattice, name), name
        assert (form == "-") != (why == "-")


def test_the_command_prints_each(capsys):
    main(["zoo", "--table1"])
    table = capsys.readouterr().out
    assert "Table 1 of the taxonomy" in table
    assert "what it does" not in table
    main(["zoo", "--empty"])
    assert "no named method" in capsys.readouterr().out
    main(["zoo", "--empty", "--markdown"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(empty_rows()) + 1 + 2 + len(meaningless_rows())
    main(["zoo", "--empty"])
    printed = capsys.readouterr().out
    assert "configs/methods/perturb.yaml" in printed
    assert "Cells without a meaning" in printed
    main(["zoo", "--cells"])
    assert "Prior(logit, corpus, mixed, pattern=LogPrior)" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"takes --table1, --empty, --cells or none of them.*got: --table2"):
        main(["zoo", "--table2"])
    main(["zoo", "--markdown", "--table1"])
    assert len(capsys.readouterr().out.splitlines()) == 14
    main(["zoo", "--markdown"])
    assert "| what it does |" in capsys.readouterr().out
