"""What a run of several levels writes for TensorBoard, read back by TensorBoard."""

import json
import os.path as osp
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmmlo.launch.config import load_config
from mmmlo.launch.shrink import shrink

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__)))))
NANO = osp.join(ROOT, 'configs/mlo_mae/mlo-mae_vit-nano-p4_1xb64-coslr-20e_digits.py')


@pytest.mark.parametrize('visualizer', ['UniversalVisualizer', 'Visualizer'])
def test_losses_and_learning_rates_of_all_levels(tmp_path, visualizer):
    cfg = shrink(load_config(NANO))
    cfg.visualizer = dict(type=visualizer, vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])
    cfg.default_hooks.logger.interval = 1
    cfg.log_processor.window_size = 1
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = f'{tmp_path.name}_{visualizer}'
    cfg.log_level = 'WARNING'
    runner = Runner.from_cfg(Config(cfg.to_dict()))
    runner.train()

    folder = Path(runner.log_dir) / 'vis_data'
    assert len(list(folder.glob('events.out.tfevents.*'))) == 1
    events = EventAccumulator(str(folder))
    events.Reload()
    tags = set(events.Tags()['scalars'])
    lines = [json.loads(line) for line in (folder / 'scalars.json').read_text().splitlines()]
    trained = [line for line in lines if 'pretrain/loss' in line]
    assert [line['step'] for line in trained] == [1, 2, 3, 4]
    for level in ('pretrain', 'finetune', 'masking'):
        for tag in (f'{level}/loss', f'{level}.lr'):
            assert tag in tags
            written = {event.step: event.value for event in events.Scalars(tag)}
            expected = {line['step']: line[tag] for line in trained if tag in line}
            assert written == pytest.approx(expected, rel=1e-6)
    # The upper levels' first step is in the second iteration.
    assert min(event.step for event in events.Scalars('masking/loss')) == 2
    assert min(event.step for event in events.Scalars('pretrain/loss')) == 1
    assert 'knn/top1' in tags
