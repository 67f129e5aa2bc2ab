"""Wrote the checkpoints beside it, by PyTorch 2.13.0 on the CPU: ``python tests/checkpoints/make.py``.

``expected.npz`` holds what is in them, and the logits that PyTorch computes from images.
"""

from argparse import Namespace
from datetime import date
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent

torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 5))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
net(torch.randn(8, 3, 6, 6)).square().mean().backward()
optimizer.step()
with torch.no_grad():
    for array in net.state_dict().values():
        array.copy_((array * 256).round() / 256)  # few digits: expected.npz is small, and bfloat16 holds them
images = torch.randint(-8, 9, (2, 3, 6, 6)) / 4
state = net.state_dict()
wrapped = {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3, "best_prec1": 91.7,
           "optimizer": optimizer.state_dict()}
averaged = torch.optim.swa_utils.AveragedModel(net).state_dict()
extras = {"my_net": averaged, "best_acc": torch.tensor(91.7), "device": torch.device("cuda:0"), "seen": {1, 2},
          "args": Namespace(lr=0.1, out=PurePosixPath("/runs"), day=date(2026, 1, 1)), "curve": np.zeros(3),
          "loss": np.float64(0.5), "dtype": torch.float8_e5m2, "function": torch.relu,
          "half": torch.ones(2, dtype=torch.bfloat16), "phase": torch.ones(2, dtype=torch.complex64)}
for kind, is_zip in ("zip", True), ("legacy", False):
    torch.save(state, HERE / f"{kind}.pth", _use_new_zipfile_serialization=is_zip)
    torch.save(wrapped, HERE / f"{kind}.th", _use_new_zipfile_serialization=is_zip)
    whole = {"whole": nn.Linear(1, 1)} if is_zip else {}  # the old format adds its source, and this machine's paths
    torch.save(extras | whole, HERE / f"{kind}_extras.th", _use_new_zipfile_serialization=is_zip)
    torch.save({name: value.bfloat16() if value.is_floating_point() else value for name, value in state.items()},
               HERE / f"{kind}_bfloat16.pth", _use_new_zipfile_serialization=is_zip)
logits = net.eval()(images).detach()
np.savez_compressed(HERE / "expected.npz", images=images, logits=logits, **state)
