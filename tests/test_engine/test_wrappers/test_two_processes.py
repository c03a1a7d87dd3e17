"""Two gloo processes train MLO-MAE exactly as one with the doubled batch does: real Runners, samplers and loaders."""

import os
import os.path as osp
import sys

import pytest
import torch

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__)))))
BATCH_SIZE, CYCLES = 8, 10
ADAMW = dict(type='AdamW', lr=1e-3, weight_decay=0.05)
SGD = dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=0.0)


@pytest.mark.dist
@pytest.mark.parametrize(
    ('dtype', 'optimizer', 'hypergradient', 'tolerance'),
    [
        # In fp32 AdamW cannot agree: attention's key biases have no gradient, and it turns rounding noise into steps.
        ('float64', 'AdamW', 'ForwardMode', 1e-9),
        ('float32', 'SGD', 'ForwardMode', 1e-5),
        ('float64', 'AdamW', 'ConjugateGradient', 1e-9),
    ],
)
def test_equal_one_process_with_the_doubled_batch(run_in_processes, tmp_path, dtype, optimizer, hypergradient, tolerance):
    for count in (1, 2):
        run_in_processes(__file__, dtype, optimizer, hypergradient, str(tmp_path), count=count)
    one, two, other = (torch.load(tmp_path / f'{name}.pth', weights_only=False) for name in ('1_0', '2_0', '2_1'))
    assert two['iteration'] == 2 * CYCLES
    assert two['step_counts'] == one['step_counts'] == dict(pretrain=2 * CYCLES, finetune=CYCLES, masking=CYCLES)
    assert one['parameters'].keys() == two['parameters'].keys()
    for name, value in one['parameters'].items():
        assert (two['parameters'][name] - value).abs().max() < tolerance, name
        assert torch.equal(two['parameters'][name], other['parameters'][name]), name
    # Every level has moved, so that the comparison says something.
    for module in ('backbone', 'neck', 'downstream', 'masker'):
        moved = [(v - one['start'][n]).abs().max() for n, v in one['parameters'].items() if n.startswith(module)]
        assert max(moved) > 100 * tolerance
    # Each process has random numbers of its own.
    assert two['random'] != other['random']
    # What a checkpoint holds of each process goes to the one that writes it, and to no other.
    assert [process['gradients'].popitem()[1].unique() for process in two['processes']] == [0, 1]
    assert other['processes'] is None


def main(dtype: str, optimizer: str, hypergradient: str, folder: str) -> None:
    from mmengine.config import Config
    from mmengine.hooks import Hook
    from mmengine.runner import Runner

    from mmmlo.launch.config import load_config
    from mmmlo.launch.shrink import shrink
    from mmmlo.registry import MODELS

    rank, world_size = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
    if world_size > 1:
        torch.distributed.init_process_group('gloo', os.environ['RENDEZVOUS'], rank=rank, world_size=world_size)
    torch.set_num_threads(1)
    kind = getattr(torch, dtype)

    @MODELS.register_module()
    class Precise(MODELS.get('mmpretrain.SelfSupDataPreprocessor')):
        def forward(self, data, training=False):
            data = super().forward(data, training)
            return dict(data, inputs=data['inputs'].to(kind))

    dataset = dict(type='mmmlo.SyntheticImages', per_class=24, size=16, pipeline=[dict(type='PackInputs')])

    def part(name: str) -> dict:
        return dict(type='mmmlo.SplitDataset', part=name, fractions=dict(train=0.5, val=0.5), seed=0, dataset=dataset)

    cfg = shrink(load_config(osp.join(ROOT, 'configs/mlo_mae/mlo-mae_vit-nano-p4_1xb64-coslr-20e_digits.py')))
    for split in ('val', 'test'):
        cfg[f'{split}_cfg'] = cfg[f'{split}_dataloader'] = cfg[f'{split}_evaluator'] = None
    cfg.custom_hooks = []
    cfg.log_level = 'WARNING'
    cfg.param_scheduler = None
    cfg.model.data_preprocessor = dict(type='mmmlo.Precise', mean=[127.5] * 3, std=[127.5] * 3)
    cfg.model.downstream.dropout = 0.0
    cfg.train_dataloader.update(batch_size=BATCH_SIZE // world_size, dataset=part('train'), drop_last=True)
    cfg.train_cfg.dataloaders = dict(finetune=dict(dataset=part('train')), masking=dict(dataset=part('val')))
    cfg.train_cfg.max_iters = 2 * CYCLES
    for level in cfg.optim_wrapper.levels.values():
        level.optimizer = dict(AdamW=ADAMW, SGD=SGD)[optimizer]
    solver = dict(type='mmmlo.ConjugateGradient', steps=3, damping=1.0)
    cfg.optim_wrapper.levels.masking.hypergradient = dict(
        ForwardMode=dict(type='mmmlo.ForwardMode'),
        ConjugateGradient=dict(pretrain=dict(solver, matrix='gauss_newton'), finetune=solver),
    )[hypergradient]
    cfg.default_hooks.checkpoint = None
    cfg.work_dir = osp.join(folder, f'{world_size}_{rank}')
    cfg.launcher = 'pytorch' if world_size > 1 else 'none'
    runner = Runner.from_cfg(Config(cfg.to_dict()))
    runner.model.to(kind)
    model = getattr(runner.model, 'module', runner.model)
    start = {}

    class Start(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if not start:
                start.update({name: value.detach().clone() for name, value in model.named_parameters()})

    runner.register_hook(Start())
    runner.train()
    random = torch.rand(()).item()
    parameter = next(p for p in model.parameters() if p.requires_grad)
    parameter.grad = torch.full_like(parameter, rank)
    state = dict(
        iteration=runner.iter,
        step_counts=runner.optim_wrapper.step_counts,
        start=start,
        parameters={name: value.detach() for name, value in model.named_parameters()},
        random=random,
        processes=runner.train_loop.state_dict()['processes'],
    )
    torch.save(state, osp.join(folder, f'{world_size}_{rank}.pth'))
    if world_size > 1:
        torch.distributed.barrier()
    sys.stdout.flush()
    os._exit(0)


if __name__ == '__main__':
    main(*sys.argv[1:])
