"""What tools/train.py says, in one line, about inputs whose faults show only while a run is built or begins."""

import os.path as osp
import sys

import pytest
import torch

from mmmlo.launch import data_errors
from mmmlo.launch.config import load_config
from mmmlo.launch.shrink import shrink

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
CHECKPOINTS = 'holds more than weights and plain values, so opening it would run code'


class Code:
    """Leaves a trace where it runs."""

    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __reduce__(self):
        return open, (self.trace, 'w')


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('train.py', status=1)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Tiny configs, and a checkpoint that holds code and all that a run is resumed from."""
    folder = tmp_path_factory.mktemp('errors')
    cfg = shrink(load_config(osp.join(ROOT, 'configs/mlo_mae/mlo-mae_vit-nano-p4_1xb64-coslr-20e_digits.py')), cycles=1)
    cfg.dump(folder / 'tiny.py')
    (folder / 'folder.py').write_text(
        """_base_ = 'tiny.py'
images = dict(_delete_=True, type='CustomDataset', data_root='absent', pipeline=[])
train_dataloader = dict(dataset=dict(dataset=images))
"""
    )
    (folder / 'initialized.py').write_text(
        """_base_ = 'tiny.py'
model = dict(backbone=dict(init_cfg=dict(_delete_=True, type='Pretrained', checkpoint='code.pth', prefix='backbone.')))
"""
    )
    whole = dict.fromkeys(('message_hub', 'optimizer'), {}) | dict(state_dict={'backbone.cls_token': torch.zeros(1)})
    torch.save(dict(whole, meta=dict(iter=1, hook=Code(str(folder / 'trace')))), folder / 'code.pth')
    return folder


@pytest.fixture
def train(tool, folder, monkeypatch, tmp_path, capsys):
    """``train(arguments, options)``: what is said, without 'error: '; options are those of ``--cfg-options``."""

    def run(arguments, options=''):
        more = ['--cfg-options', f'experiment_name={tmp_path.name}', *options.split()]
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, 'argv', ['train.py', *arguments.split(), '--work-dir', str(tmp_path), *more])
        with pytest.raises(SystemExit) as error:
            tool.main()
        assert error.value.code == 1
        return capsys.readouterr().err.rpartition('error: ')[2].rstrip()

    return run


@pytest.mark.parametrize(
    ('arguments', 'options', 'words'),
    [
        ('absent.py', '', 'config absent.py does not exist'),
        ('tiny.py --resume absent.pth', '', 'checkpoint absent.pth does not exist'),
        ('folder.py', '', '`train_dataloader.dataset.dataset.data_root`: there is no folder absent (that is, '),
        (
            'tiny.py',
            'model.downstream.num_classes=7',
            'model.downstream.num_classes is 7, but the images of train_cfg.dataloaders.finetune have 10 classes; set',
        ),
        (
            'tiny.py',
            'train_cfg.dataloaders.masking.dataset.part=train',
            '`train_cfg.dataloaders.finetune.dataset` and `train_cfg.dataloaders.masking.dataset` share ',
        ),
        (
            'tiny.py',
            'train_dataloader.dataset.part=other',
            'train_dataloader.dataset: `part` of SplitDataset must be one of the keys of `fractions`, ',
        ),
        (
            'tiny.py',
            'train_dataloader.batch_size=5000 train_dataloader.drop_last=True',
            'train_dataloader has no batch: its dataset has ',
        ),
    ],
)
def test_wrong_data_and_files(train, arguments, options, words):
    line = train(arguments, options)
    assert line.startswith(words) and '\n' not in line


@pytest.mark.parametrize(
    ('arguments', 'options'),
    [
        ('tiny.py --resume code.pth', ''),
        ('tiny.py --backbone code.pth', ''),
        ('initialized.py', ''),
        ('tiny.py', 'load_from=code.pth'),
        ('tiny.py', 'load_from=code.pth resume=True'),
    ],
)
def test_a_checkpoint_with_code(train, folder, arguments, options):
    line = train(arguments, options)
    assert f'code.pth {CHECKPOINTS}' in line and '\n' not in line
    assert not (folder / 'trace').exists()


def test_a_work_dir_whose_only_checkpoint_holds_code(train, folder, tmp_path):
    """Several lines: a reason for each file, and what to do."""
    (tmp_path / 'last_checkpoint').write_text('code.pth')
    lines = train('tiny.py --resume').splitlines()
    assert lines[0] == f'{tmp_path} has no checkpoint to go on from:'
    assert f'code.pth {CHECKPOINTS}' in lines[1]
    assert lines[2:] == ['To begin anew, take another --work-dir, or leave --resume out']
    assert not (folder / 'trace').exists()


def test_workers_that_are_lost():
    """By the ways in which a main process hears of it; a broken connection of another kind is an error of its own."""

    def _try_get_data():
        raise ConnectionResetError

    def read():
        raise ConnectionResetError

    def says(call):
        with pytest.raises(ConnectionResetError) as error:
            call()
        return data_errors._is_of_lost_worker(error.value)

    assert says(_try_get_data) and not says(read)
    assert data_errors._is_of_lost_worker(RuntimeError('DataLoader worker (pid(s) 7) exited unexpectedly'))
    assert not data_errors._is_of_lost_worker(RuntimeError('CUDA error: out of memory'))
