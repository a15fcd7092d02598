import subprocess
import sys

import pytest
import torch

from mlplugins.errors import BadInput
from mlplugins.training import checkpoint

RUN = {
    "family": "nequip",
    "elements": ["Ar"],
    "baseline": [-1.5],
    "hyperparameters": {},
    "versions": {},
    "configuration": {"training": {"lr": 0.1, "epochs": 5}, "seed": 0},
    "sha256": {"train": "a", "test": "t"},
}


def test_round_trip(tmp_path):
    path = tmp_path / "checkpoint.ckpt"
    assert checkpoint.load(path) is None
    state = {"counters": {}, "best": None, "average": {"w": torch.arange(3.0)}}
    checkpoint.save(path, {**RUN, "state": state})
    content = checkpoint.load(path)
    assert content["state"]["average"]["w"].tolist() == [0.0, 1.0, 2.0]
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.ckpt"]


@pytest.mark.slow
def test_full_disk_leaves_the_old_checkpoint_intact(tmp_path):
    """The kernel refuses the write (file size limit), as it does on a full disk."""
    path = tmp_path / "checkpoint.ckpt"
    checkpoint.save(path, {"state": {"w": torch.zeros(3)}})
    old = path.read_bytes()
    program = (
        "import resource, sys, torch; from pathlib import Path\n"
        "from mlplugins.training import checkpoint; from mlplugins.errors import RunFailed\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "try: checkpoint.save(Path(sys.argv[1]), {'state': {'w': torch.ones(100000)}})\n"
        "except RunFailed as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    assert "the previous file is intact. Make room and run the same command again" in done.stdout
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.ckpt"]


def test_what_is_not_a_checkpoint_is_refused(tmp_path):
    path = tmp_path / "checkpoint.ckpt"
    checkpoint.save(path, {"state": {"w": torch.zeros(3)}})
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BadInput, match="not a checkpoint of torch.save, or truncated.*use --restart"):
        checkpoint.load(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(BadInput, match="not a checkpoint of `mlplugins train`.*use --restart"):
        checkpoint.load(path)
    torch.save({"format": 999, "family": "nequip"}, path)
    with pytest.raises(BadInput, match="checkpoint format 999, this mlplugins reads up to 1"):
        checkpoint.load(path)


def test_another_run_is_refused_by_key(tmp_path):
    path = tmp_path / "checkpoint.ckpt"
    same = {"training": {"lr": 0.1, "epochs": 50}, "seed": 0}
    checkpoint.require_same_run(path, RUN, same, {"train": "a", "test": "another"})
    with pytest.raises(BadInput, match=r"training.lr: 0.1 → 0.2; train data\).*--restart"):
        checkpoint.require_same_run(
            path, RUN, {"training": {"lr": 0.2}, "seed": 0}, {"train": "b", "test": "t"}
        )
