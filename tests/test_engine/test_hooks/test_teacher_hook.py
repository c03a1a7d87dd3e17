"""The teacher of HPM and its schedules, through real Runners."""

import os.path as osp

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmlo.launch.config import load_config
from mmmlo.launch.shrink import shrink

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__)))))
HPM = osp.join(ROOT, 'configs/mae/hpm_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py')


class Teacher(Hook):
    """What the teacher is before each iteration, and where the model is."""

    priority = 'LOW'

    def __init__(self):
        self.seen = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        names = ('masker.teacher.backbone.ln1.weight', 'backbone.ln1.weight')
        parameters = dict(runner.model.named_parameters())
        self.seen.append([parameters[name].clone() for name in names] + [runner.model.masker.momentum])


def train(folder, name, **options):
    cfg = shrink(load_config(HPM))
    for split in ('val', 'test'):
        cfg[f'{split}_cfg'] = cfg[f'{split}_dataloader'] = cfg[f'{split}_evaluator'] = None
    cfg.train_cfg.max_epochs = 2
    cfg.default_hooks.checkpoint = dict(type='mmmlo.SafeCheckpointHook', interval=1)
    cfg.update(work_dir=str(folder / name), experiment_name=f'{folder.name}_{name}', log_level='ERROR', **options)
    runner, teacher = Runner.from_cfg(cfg), Teacher()
    runner.register_hook(teacher)
    runner.train()
    return runner, teacher.seen


def test_it_follows_the_model_and_resumes_exactly(tmp_path):
    whole, seen = train(tmp_path, 'whole')
    assert len(seen) == 8 and torch.equal(seen[0][0], seen[0][1])
    for (before, _, momentum), (after, model, _) in zip(seen, seen[1:]):
        torch.testing.assert_close(after, before + momentum * (model - before))
        assert not torch.equal(after, model)
    resumed, rest = train(tmp_path, 'resumed', resume=True, load_from=osp.join(whole.work_dir, 'epoch_1.pth'))
    assert len(rest) == 4 and torch.equal(rest[0][0], seen[4][0])
    state = whole.model.state_dict()
    assert any(name.startswith('masker.teacher.predictor.') for name in state)
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert resumed.model.guided_share == whole.model.guided_share == 0.5


def test_a_run_that_begins_with_weights_begins_with_their_teacher(tmp_path):
    whole, _ = train(tmp_path, 'whole')
    _, seen = train(tmp_path, 'other', load_from=osp.join(whole.work_dir, 'epoch_2.pth'))
    assert torch.equal(seen[0][0], seen[0][1]) and torch.equal(seen[0][1], whole.model.backbone.ln1.weight)
