import os

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

import mmmlo.registry  # noqa: F401  # makes mmpretrain importable everywhere
from mmmlo.evaluation.features import eval_mode, extract_features, gather_rows, pool_tokens


def test_pool_tokens():
    tokens = torch.randn(2, 1 + 4, 3)
    torch.testing.assert_close(pool_tokens((tokens * 0, tokens), 'mean'), tokens[:, 1:].sum(1) / 4)
    torch.testing.assert_close(pool_tokens(tokens, 'cls'), tokens[:, 0])
    for token in ('mean', 'cls'):
        assert pool_tokens([tokens[:, 0]], token) is not None
        torch.testing.assert_close(pool_tokens(tokens[:, 0], token), tokens[:, 0])
    with pytest.raises(ValueError, match="`token` must be 'mean' or 'cls', not 'avg'"):
        pool_tokens(tokens, 'avg')
    with pytest.raises(ValueError, match=r'cannot pool features of shape \(2, 3, 4, 4\)'):
        pool_tokens(torch.zeros(2, 3, 4, 4), 'mean')


def test_eval_mode_restores_each_module():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm2d(3), nn.Dropout())).train()
    model[1][0].eval()  # frozen
    before = [module.training for module in model.modules()]
    with pytest.raises(RuntimeError), eval_mode(model):
        assert not any(module.training for module in model.modules())
        raise RuntimeError
    assert [module.training for module in model.modules()] == before == [True, True, True, False, True]


def make_model():
    from mmpretrain.models import BaseSelfSupervisor

    class Pixels(BaseSelfSupervisor):
        """Tokens that tell which image, and which preprocessing, they come from."""

        def extract_feat(self, inputs):
            assert not self.training and not torch.is_grad_enabled()
            patches = inputs.flatten(2).transpose(1, 2)  # B x L x 3, one token a pixel
            return (self.backbone(torch.cat([patches.new_full((len(inputs), 1, 3), 7.0), patches], dim=1)),)

        def loss(self, inputs, data_samples):
            return dict(loss=inputs.mean() * self.backbone.weight.sum())

    backbone = nn.Linear(3, 3, bias=False)
    nn.init.eye_(backbone.weight)
    return Pixels(backbone, data_preprocessor=dict(mean=[100.0] * 3, std=[50.0] * 3))


def make_loader(part='test', shuffle=False, indices=None, drop_last=False):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return Runner.build_dataloader(
            dict(
                dataset=dict(type='mmmlo.Digits', split=part, size=8, indices=indices, pipeline=[dict(type='PackInputs')]),
                sampler=dict(type='DefaultSampler', shuffle=shuffle),
                batch_size=16,
                drop_last=drop_last,
                collate_fn=dict(type='default_collate'),
            ),
            seed=0,
        )


def expected(dataset):
    images = torch.stack([torch.from_numpy(dataset.get_data_info(i)['img']) for i in range(len(dataset))])
    return ((images.float() - 100) / 50).mean((1, 2)), torch.from_numpy(dataset.get_gt_labels())


def test_features_are_those_of_the_dataset_in_its_order():
    model, loader = make_model().train(), make_loader()
    feats, labels = extract_features(model, loader)
    reference, reference_labels = expected(loader.dataset)
    torch.testing.assert_close(feats, reference)
    torch.testing.assert_close(labels, reference_labels)
    assert feats.dtype == torch.float32 and labels.dtype == torch.int64
    assert model.training
    cls, _ = extract_features(model, loader, token='cls')
    torch.testing.assert_close(cls, torch.full_like(cls, 7.0))


def test_progress_is_logged(monkeypatch):
    from mmmlo.utils import progress

    lines, clock = [], iter(range(0, 10**6, 16))
    monkeypatch.setattr(progress, 'print_log', lambda line, logger: lines.append(line))
    monkeypatch.setattr(progress.time, 'monotonic', lambda: next(clock))
    extract_features(make_model(), make_loader(indices=100), name='bank')
    assert lines and lines[0].startswith('bank: 2/7 (29 %), ')


def test_unlabelled_images_are_an_error():
    loader = make_loader(indices=4)
    batch = next(iter(loader))
    for sample in batch['data_samples']:
        del sample.gt_label
    with pytest.raises(ValueError, match='no `gt_label`'):
        extract_features(make_model(), [batch])
    with pytest.raises(ValueError, match='gave no batch'):
        extract_features(make_model(), make_loader(indices=4, drop_last=True))


def check_in_each_process():
    torch.set_num_threads(1)
    rank, world_size = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
    torch.distributed.init_process_group('gloo', init_method=os.environ['RENDEZVOUS'], rank=rank, world_size=world_size)
    rows = torch.arange(rank, 7, world_size)  # 7 rows dealt to the processes, unequal shares
    torch.testing.assert_close(gather_rows(rows, chunk_size=2), torch.arange(7))
    torch.testing.assert_close(gather_rows(rows[:, None].float().expand(-1, 3))[:, 1], torch.arange(7.0))

    wrapped = MMDistributedDataParallel(make_model())
    for shuffle in (False, True):
        # 101 images in shares of two processes: one is dealt twice and must not be counted twice.
        loader = make_loader(indices=101, shuffle=shuffle)
        feats, labels = extract_features(wrapped, loader)
        reference, reference_labels = expected(loader.dataset)
        if shuffle:
            order = torch.randperm(101, generator=torch.Generator().manual_seed(0))
            reference, reference_labels = reference[order], reference_labels[order]
        torch.testing.assert_close(feats, reference)
        torch.testing.assert_close(labels, reference_labels)
    torch.distributed.barrier()


@pytest.mark.dist
def test_processes_share_their_features(run_in_processes):
    outputs = run_in_processes(__file__)
    assert all('all checks passed' in output for output in outputs)


if __name__ == '__main__':
    check_in_each_process()
    print('all checks passed', flush=True)
    os._exit(0)  # gloo can hang while one process takes it down and another has gone
