"""Suspects of text data can be read."""

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from testkit.training import trainer_of

from lightning_perturb.callbacks import Recorder, SuspectReport
from lightning_perturb.data import FirstPercent, GeneratedReviews
from lightning_perturb.methods import LogPert
from lightning_perturb.nets import BiLSTMAttention


def test_the_most_suspect_texts_are_written(tmp_path):
    torch.manual_seed(0)
    data = GeneratedReviews(samples=64, test_samples=16, label_noise=FirstPercent(0.2))
    logger = TensorBoardLogger(tmp_path, name="tb", version=0)
    report = SuspectReport(sheet=3, share=0.5)
    module = LogPert(BiLSTMAttention(2, vocab_size=400, embedding_dim=8, hidden=6), 2)
    trainer_of(max_epochs=2, logger=logger, callbacks=[report, Recorder()]).fit(module, data)
    assert report.sheet_path == report.path.with_suffix(".txt")
    pages = report.sheet_path.read_text().strip().split("\n\n")
    rows = report.path.read_text().splitlines()[1:]
    assert len(pages) == 3
    for page, row in zip(pages, rows, strict=False):
        head, _, body = page.partition("\n")
        index, given, suggested, _ = row.split(",")
        names = data.class_names
        assert head == f"{index}: given {names[int(given)]}, suggested {names[int(suggested)]}"
        assert body.replace("\n", " ") == data.raw_texts([int(index)])[0]
    events = EventAccumulator(str(tmp_path / "tb" / "version_0"))
    events.Reload()
    (shown,) = events.Tensors("suspects/text_summary")
    assert pages[0].partition("\n")[0] in shown.tensor_proto.string_val[0].decode()
