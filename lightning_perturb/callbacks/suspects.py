"""Which training labels look wrong: a table to repair them from, and images of the worst."""

import csv
from pathlib import Path
from textwrap import fill, indent

import numpy as np
import numpy.typing as npt
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from sklearn.metrics import roc_auc_score

from lightning_perturb.callbacks.dynamics import suggested_labels, suspect_scores
from lightning_perturb.callbacks.recorder import Recorder
from lightning_perturb.callbacks.records import Records
from lightning_perturb.callbacks.run import class_names, raw_images, raw_texts, run_folder, true_labels
from lightning_perturb.checks import check_positive, check_range, check_rate
from lightning_perturb.figures import contact_sheet, save

COLUMNS = ("index", "given_label", "suggested_label", "score")


class SuspectReport(Callback):
    """At the end of training, lists the training labels that look wrong. Needs a :class:`Recorder` in the same run.

    The file has the columns ``index`` (position in the full original training set), ``given_label``,
    ``suggested_label`` and ``score`` (larger: more suspect), the most suspect sample first. The score is minus the area
    under the margin, the suggested label the most frequent prediction, both over the first ``part`` of the epochs:
    later, networks predict the labels that they have memorised. To train on the repaired labels, give the file to
    ``LabelsFromFile(path, column="suggested_label")``, after the noise that the run had, in a ``Chain``.

    For images also a contact sheet of the most suspect samples [tax Fig. 6], in a PNG file beside the table and in
    TensorBoard; for texts the most suspect ones themselves [tax section 6.3], in a ``.txt`` file and in TensorBoard.
    Where some given labels are known to be wrong, ``suspects/auroc`` (score against wrong labels),
    ``suspects/precision`` (share of wrong labels among the most suspect, as many as there are wrong ones) and
    ``suspects/repaired_acc`` (share of right training labels once the file is applied) are logged.

    Attributes:
        path: The table that was written; None before.
        sheet_path: The contact sheet or the texts that were written; None before and where there are none.
        listed: Number of rows of the table.
        summary: The logged numbers by name; empty where it is unknown which labels are wrong.

    Args:
        path: Where the table goes, a ``.csv`` file; None takes ``suspects.csv`` in the folder of the run's logs.
        share: List the most suspect share of the training samples; None lists all whose suggested label differs from
            the given one.
        sheet: Number of images on the contact sheet, or of texts; 0 for none.
        part: The part of the epochs that is looked at, from the first on, in (0, 1].

    Raises:
        ValueError: If an argument is out of its range, or at the start of training if there is no Recorder.
    """

    def __init__(self, path: str | None = None, share: float | None = None, sheet: int = 64, part: float = 0.5) -> None:
        if share is not None:
            check_rate("share", share)
        check_positive("sheet", sheet, zero=True)
        check_range("part", part, 0.0, 1.0, open_low=True)
        if path is not None and not path.endswith(".csv"):
            raise ValueError(f"path={path!r} is no .csv file. Give a name that ends in .csv.")
        self._asked_path = path
        self.share = share
        self.sheet = sheet
        self.part = part
        self.path: Path | None = None
        self.sheet_path: Path | None = None
        self.listed = 0
        self.summary: dict[str, float] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Looks for the recorder before training, not after it."""
        if stage == "fit":
            Recorder.of(trainer, type(self).__name__)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the table and the contact sheet, and logs how well wrong labels were found."""
        self.path, self.sheet_path, self.listed, self.summary = None, None, 0, {}
        folder = run_folder(trainer)
        records = Recorder.of(trainer, type(self).__name__).records
        if records is None or not trainer.is_global_zero:
            return
        score, suggested = assess(records, self.part)
        listed = choose(score, records.given, suggested, self.share)
        self.path = Path(self._asked_path) if self._asked_path is not None else folder / "suspects.csv"
        write_table(self.path, listed, records.given, suggested, score)
        self.listed = len(listed)
        true = true_labels(trainer, len(score))
        if true is not None:
            self.summary = assess_report(score, records.given, suggested, true, listed)
        for logger in trainer.loggers if self.summary else ():
            logger.log_metrics(self.summary, step=trainer.global_step)
        self._draw(trainer, records, suggested, listed[: self.sheet])

    def _draw(
        self,
        trainer: Trainer,
        records: Records,
        suggested: npt.NDArray[np.int64],
        shown: npt.NDArray[np.int64],
    ) -> None:
        assert self.path is not None
        names = class_names(trainer, int(max(records.given.max(), suggested.max())) + 1)
        texts = raw_texts(trainer, shown) if len(shown) else []
        if texts:
            self.sheet_path = self.path.with_suffix(".txt")
            heads = [f"{i}: given {names[records.given[i]]}, suggested {names[suggested[i]]}" for i in shown.tolist()]
            write_texts(self.sheet_path, heads, texts, trainer)
            return
        images = raw_images(trainer, shown)
        if images is None:
            return
        figure = contact_sheet(
            images,
            [names[label] for label in records.given[shown]],
            [names[label] for label in suggested[shown]],
            index=shown,
        )
        self.sheet_path = save(
            figure, self.path.with_suffix(".png"), trainer.loggers, tag="suspects", step=trainer.global_step
        )


def assess(records: Records, part: float = 0.5) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Score and suggested label of every sample.

    Args:
        records: What a recorder wrote.
        part: The part of the epochs that is looked at; epochs whose records are gone do not count.

    Returns:
        Scores ``[N]``, NaN for samples without records, and class ids ``[N]``.
    """
    known = np.array([bool((row >= 0).any()) for row in records.prediction])
    # only the first epochs can be gone (a resume that did not find them)
    first = int(known.argmax())
    score = suspect_scores(records.margin[first:], part)
    return score, suggested_labels(records.prediction[first:], records.given, part)


def choose(
    score: npt.NDArray[np.float64],
    given: npt.NDArray[np.int32],
    suggested: npt.NDArray[np.int64],
    share: float | None,
) -> npt.NDArray[np.int64]:
    """Positions of the samples to list ``[n]``, the most suspect first; equals in order of position.

    Args:
        score: Scores ``[N]``; samples with NaN are not listed.
        given: Given labels ``[N]``.
        suggested: Suggested labels ``[N]``.
        share: The most suspect share of the samples with a score; None for those with another suggested label.
    """
    order: npt.NDArray[np.int64] = np.argsort(-score, kind="stable")
    order = order[~np.isnan(score[order])]
    listed: npt.NDArray[np.int64] = (
        order[suggested[order] != given[order]] if share is None else order[: round(share * len(order))]
    )
    return listed


def write_table(
    path: Path,
    listed: npt.NDArray[np.int64],
    given: npt.NDArray[np.int32],
    suggested: npt.NDArray[np.int64],
    score: npt.NDArray[np.float64],
) -> None:
    """Writes the rows ``listed`` as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows((i, given[i], suggested[i], f"{score[i]:.6g}") for i in listed.tolist())


def write_texts(path: Path, heads: list[str], texts: list[str], trainer: Trainer) -> None:
    """Writes texts below their headings, into a file and into TensorBoard."""
    pages = [f"{head}\n{fill(text, 100)}" for head, text in zip(heads, texts, strict=True)]
    path.write_text("\n\n".join(pages) + "\n", encoding="utf-8")
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            # indented: it is shown as it is, whatever marks the texts hold
            shown = "\n\n".join(indent(page, "    ") for page in pages)
            logger.experiment.add_text("suspects", shown, trainer.global_step)


def assess_report(
    score: npt.NDArray[np.float64],
    given: npt.NDArray[np.int32],
    suggested: npt.NDArray[np.int64],
    true: npt.NDArray[np.int64],
    listed: npt.NDArray[np.int64],
) -> dict[str, float]:
    """How well wrong labels were found; empty where all labels, or none, are right.

    Args:
        score: Scores ``[N]``; samples with NaN do not count.
        given: Given labels ``[N]``.
        suggested: Suggested labels ``[N]``.
        true: True labels ``[N]``.
        listed: Positions of the samples in the table ``[n]``.
    """
    known = np.flatnonzero(~np.isnan(score))
    noisy = given[known] != true[known]
    if noisy.all() or not noisy.any():
        return {}
    worst = np.argsort(-score[known], kind="stable")[: int(noisy.sum())]
    repaired = np.array(given, dtype=np.int64)
    repaired[listed] = suggested[listed]
    return {
        "suspects/auroc": float(roc_auc_score(noisy, score[known])),
        "suspects/precision": float(noisy[worst].mean()),
        "suspects/repaired_acc": float((repaired[known] == true[known]).mean()),
    }
