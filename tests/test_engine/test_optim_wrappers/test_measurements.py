import time

import torch

from mmmlo.engine.optim_wrappers.measurements import LevelMeter


def test_seconds_on_a_cpu():
    meter = LevelMeter(torch.device('cpu'))
    with meter.measure('pretrain') as costs:
        assert costs == {}
        time.sleep(0.02)
    assert list(costs) == ['seconds']
    assert 0.02 <= costs['seconds'] < 10
