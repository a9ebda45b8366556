"""The zoo's tables, from the classes."""

from itertools import product

from lightning_perturb.cli import main
from lightning_perturb.core.taxonomy import GRANULARITIES, INFERENCES, TARGETS
from lightning_perturb.zoo import TABLE_1, empty_rows, named_places, table_1_rows

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


def test_empty_cells_are_those_without_a_named_method():
    empty = {tuple(row[:3]): row[3:] for row in empty_rows()}
    assert set(empty) == PLACES - set(named_places())
    for place, (paper, how) in empty.items():
        assert paper == TABLE_1.get(place, "-")
        name = "MetaPerturb with Meta" if place[2] == "meta" else f"Perturb with {place[2].capitalize()}"
        assert how.startswith((f"{name}, ", "no meaning: ")), place
    assert empty["label", "corpus", "regularization"][1].startswith("no meaning: the price is on Δy")
    assert ("logit", "sample", "regularization") not in empty


def test_the_command_prints_each(capsys):
    main(["zoo", "--table1"])
    table = capsys.readouterr().out
    assert "Table 1 of the taxonomy" in table
    assert "what it does" not in table
    main(["zoo", "--empty"])
    assert "no named method" in capsys.readouterr().out
    main(["zoo", "--empty", "--markdown"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(empty_rows())
    main(["zoo", "--markdown", "--table1"])
    assert len(capsys.readouterr().out.splitlines()) == 14
    main(["zoo", "--markdown"])
    assert "| what it does |" in capsys.readouterr().out
