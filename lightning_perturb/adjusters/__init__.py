"""Meta-learned adjusters as small files: NARLAdjuster writes, TransferredRobustLoss reads, some are shipped."""

from lightning_perturb.adjusters.files import SNAPSHOTS, read, read_all, shipped, write
from lightning_perturb.adjusters.snapshot import Snapshot, restore, take

__all__ = ["SNAPSHOTS", "Snapshot", "read", "read_all", "restore", "shipped", "take", "write"]
