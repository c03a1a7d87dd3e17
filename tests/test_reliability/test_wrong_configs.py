"""Wrong configs, checkpoints and data, and the one line that says what is wrong with each."""

import copy
import os.path as osp
import re
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmmlo.datasets import Digits, SplitDataset, check_dataset_folder, check_level_splits
from mmmlo.launch.config import load_config, set_backbone
from mmmlo.launch.shrink import shrink
from mmmlo.preflight.check_config import ConfigError, check_config, find_config_problems
from mmmlo.registry import TRANSFORMS
from mmmlo.utils import checkpoints
from mmmlo.utils.checkpoints import read_checkpoint, read_content
from mmmlo.utils.errors import MissingFileError

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))


@pytest.fixture(scope='module')
def configs():
    """Right configs, to make wrong: ``mlo`` and ``mae``."""
    return dict(
        mlo=load_config(osp.join(ROOT, 'configs/mlo_mae/mlo-mae_vit-nano-p4_1xb64-coslr-20e_digits.py')),
        mae=load_config(osp.join(ROOT, 'configs/mae/mae_vit-nano-p4_1xb64-coslr-20e_digits.py')),
    )


LEVELS = 'optim_wrapper.levels'
AMP = "write optim_wrapper.type='mmmlo.BFloat16OptimWrapper', or pass --amp; without it the run is in fp32"

# Method, what is set in its config, the one line.
WRONG_CONFIGS = [
    # Keys of the Runner.
    ('mae', {'optim_wraper': {}}, "optim_wraper: nothing reads it; did you mean 'optim_wrapper'?"),
    ('mae', {'train_dataloder': {}}, "train_dataloder: nothing reads it; did you mean 'train_dataloader'?"),
    ('mae', {'param_schedulers': []}, "param_schedulers: nothing reads it; did you mean 'param_scheduler'?"),
    ('mae', {'custom_hook': []}, "custom_hook: nothing reads it; did you mean 'custom_hooks'?"),
    ('mae', {'load_form': 'a.pth'}, "load_form: nothing reads it; did you mean 'load_from'?"),
    # What nothing reads since mmengine.
    ('mae', {'fp16': {'loss_scale': 'dynamic'}}, f'fp16: nothing reads it; {AMP}'),
    ('mae', {'lr_config': {'policy': 'step'}}, 'lr_config: nothing reads it; write param_scheduler'),
    ('mae', {'resume_from': 'a.pth'}, 'resume_from: nothing reads it; write load_from and resume=True, or pass --resume'),
    ('mae', {'seed': 3}, 'seed: nothing reads it; write randomness.seed'),
    # What the data leaves to the model.
    (
        'mlo',
        {
            'train_cfg.dataloaders.masking.dataset': dict(
                type='mmmlo.InMemoryImages', dataset=dict(type='mmmlo.Digits', pipeline=[])
            ),
            'model.data_preprocessor.type': 'SelfSupDataPreprocessor',
        },
        "model.data_preprocessor.type: 'SelfSupDataPreprocessor' does not crop and mirror the images of "
        "mmmlo.InMemoryImages in train_cfg.dataloaders.masking; write 'mmmlo.DeviceDataPreprocessor'",
    ),
    # Fields of the optimizer.
    (
        'mae',
        {'optim_wrapper.clipgrad': {}},
        "optim_wrapper.clipgrad: OptimWrapper has no such field; did you mean 'clip_grad'?",
    ),
    (
        'mae',
        {'optim_wrapper.optimizer.weight_decays': 0.1},
        "optim_wrapper.optimizer.weight_decays: AdamW has no such field; did you mean 'weight_decay'?",
    ),
    (
        'mae',
        {'optim_wrapper.paramwise_cfg.norm_decay': 0.0},
        "optim_wrapper.paramwise_cfg.norm_decay: nothing reads it; did you mean 'norm_decay_mult'?",
    ),
    (
        'mlo',
        {f'{LEVELS}.masking.pahts': []},
        f"{LEVELS}.masking.pahts: OptimWrapper has no such field; did you mean 'paths'?",
    ),
    (
        'mlo',
        {f'{LEVELS}.pretrain.step': 2},
        f"{LEVELS}.pretrain.step: OptimWrapper has no such field; did you mean 'steps'?",
    ),
    # Fields of our types, of hooks and of loops.
    ('mlo', {'model.mask_rate': 0.5}, "model.mask_rate: MLOMAE has no such field; did you mean 'mask_ratio'?"),
    (
        'mlo',
        {'model.masker.hiden_dims': 8},
        "model.masker.hiden_dims: MLPMasker has no such field; did you mean 'hidden_dims'?",
    ),
    (
        'mlo',
        {f'{LEVELS}.masking.hypergradient': {'type': 'mmmlo.Neumann', 'iterations': 3}},
        f'{LEVELS}.masking.hypergradient.iterations: Neumann has no such field; there are type, terms, lr, matrix',
    ),
    (
        'mae',
        {'custom_hooks.0.intervall': 5},
        "custom_hooks.0.intervall: MaskStatisticsHook has no such field; did you mean 'interval'?",
    ),
    (
        'mae',
        {'default_hooks.checkpoint.max_keep_ckpt': 1},
        "default_hooks.checkpoint.max_keep_ckpt: SafeCheckpointHook has no such field; did you mean 'max_keep_ckpts'?",
    ),
    (
        'mae',
        {'train_cfg.max_epoch': 3},
        "train_cfg.max_epoch: ResumableTrainLoop has no such field; did you mean 'max_epochs'?",
    ),
    (
        'mae',
        {'train_dataloader.dataset.fraction': {}},
        "train_dataloader.dataset.fraction: SplitDataset has no such field; did you mean 'fractions'?",
    ),
    (
        'mae',
        {'default_hooks.chekpoint': {'type': 'CheckpointHook'}},
        "default_hooks.chekpoint: there is a default hook 'checkpoint', which may run besides; did you mean that?",
    ),
    (
        'mae',
        {'default_hooks.non_finite_gaurd': {'max_in_a_row': 3}},
        "default_hooks.non_finite_gaurd: there is a default hook 'non_finite_guard', which may run besides; did you mean "
        'that?',
    ),
    (
        'mae',
        {'custom_hooks': [{'type': 'mmmlo.NonFiniteGuardHook', 'max_in_a_row': 3}]},
        'custom_hooks.0: it would run twice: set its fields in default_hooks.non_finite_guard, which is the same',
    ),
    ('mae', {'train_dataloader.batchsize': 8}, "train_dataloader.batchsize: nothing reads it; did you mean 'batch_size'?"),
    ('mae', {'randomness.sed': 1}, "randomness.sed: nothing reads it; did you mean 'seed'?"),
    # Types.
    (
        'mlo',
        {'model.type': 'MLOMAE'},
        "model.type: 'MLOMAE' is not registered in the scope 'mmpretrain'; write 'mmmlo.MLOMAE'",
    ),
    (
        'mlo',
        {'model.masker.type': 'mmmlo.MLPMaskr'},
        "model.masker.type: 'mmmlo.MLPMaskr' is not registered; did you mean 'mmmlo.MLPMasker'?",
    ),
    (
        'mae',
        {'model.backbone.type': 'mylab.MyViT'},
        "model.backbone.type: 'mylab.MyViT' is not registered: there is no package 'mylab' here",
    ),
    (
        'mae',
        {'model.neck.type': 'OwnNeckOfMine'},
        "model.neck.type: 'OwnNeckOfMine' is not registered. A class of your own is registered by an import: "
        "custom_imports=dict(imports=['its.module'])",
    ),
    (
        'mae',
        {'custom_hooks': [{'type': 'mmmlo.MLOMAE'}]},
        "custom_hooks.0.type: 'mmmlo.MLOMAE' is mmmlo.models.selfsup.mlo_mae.MLOMAE, not one of HOOKS",
    ),
    (
        'mlo',
        {'optim_wrapper.constructor': 'MultiLevelOptimWrapperConstructor'},
        "optim_wrapper.constructor: 'MultiLevelOptimWrapperConstructor' is not registered in the scope 'mmpretrain'; write "
        "'mmmlo.MultiLevelOptimWrapperConstructor'",
    ),
    # Schedules.
    (
        'mae',
        {'param_scheduler': {'type': 'MultiStepLR', 'milestones': [9], 'begin': 20}},
        'param_scheduler.begin: it begins at 20, after the run, which has 20 epochs',
    ),
    (
        'mae',
        {'param_scheduler': [{'type': 'CosineAnnealingLR', 'T_max': 30}]},
        'param_scheduler.0.end: it ends at 30, and the run has 20 epochs: it stops half way',
    ),
]


def changed(cfg: Config, options: dict) -> Config:
    cfg = copy.deepcopy(cfg)
    for key, value in options.items():
        parent, _, name = key.rpartition('.')
        node = cfg
        for part in parent.split('.') if parent else ():
            node = node[int(part)] if part.isdigit() else node[part]
        node[name] = value
    return cfg


@pytest.mark.parametrize(('method', 'options', 'line'), WRONG_CONFIGS)
def test_a_wrong_config_gets_one_line(configs, method, options, line):
    assert [str(problem) for problem in find_config_problems(changed(configs[method], options))] == [line]
    assert '\n' not in line


def test_there_are_thirty():
    assert len(WRONG_CONFIGS) >= 30


def test_several_problems_come_at_once_and_warnings_do_not_stop(configs):
    short = changed(configs['mae'], {'train_cfg.max_epochs': 3})
    assert all(problem.warning for problem in find_config_problems(short)) and find_config_problems(short)
    check_config(short)
    with pytest.raises(ConfigError) as error:
        check_config(changed(short, {'fp16': {}, 'optim_wraper': {}}))
    lines = str(error.value).splitlines()
    assert lines[0] == '2 problems:' and lines[-1] == 'To train all the same, pass --no-check'
    assert len(lines) == 4


@pytest.fixture
def train(monkeypatch, tmp_path, load_tool):
    """tools/train.py, up to where it would build; ``train(text, *arguments)``."""
    module = load_tool('train.py', status=1)

    class Built(Exception):
        pass

    def build_runner(cfg):
        raise Built

    monkeypatch.setattr(module, 'build_runner', build_runner)

    def run(text, *arguments):
        (tmp_path / 'c.py').write_text(text)
        monkeypatch.setattr(sys, 'argv', ['train.py', str(tmp_path / 'c.py'), '--work-dir', str(tmp_path), *arguments])
        module.main()

    run.built = Built
    return run


def test_training_is_refused_before_anything_is_built(train, capsys):
    text = "default_scope = 'mmpretrain'\nmodel = dict(type='MLOMAE')\n"
    with pytest.raises(SystemExit):
        train(text)
    assert re.search("error: model.type: 'MLOMAE' is not registered .*; write 'mmmlo.MLOMAE'", capsys.readouterr().err)
    with pytest.raises(train.built):
        train(text, '--no-check')
    with pytest.raises(train.built):
        train(text.replace('MLOMAE', 'mmmlo.MLOMAE'))


def test_checkpoints_are_trusted_on_the_command_line_only(train):
    text = "default_scope = 'mmpretrain'\n"
    try:
        for arguments in (['--trust-checkpoint'], []):
            with pytest.raises(train.built):
                train(text, *arguments)
            assert checkpoints._trusted == bool(arguments)
    finally:
        checkpoints.trust_checkpoints(False)


class Code:
    def __reduce__(self):
        return exec, ('raise SystemExit',)


class Input:
    """What the wrong inputs are made with, in a folder of their own."""

    def __init__(self, folder, configs) -> None:
        self.folder = folder
        self.path = str(folder / 'x.pth')
        self.configs = configs

    def save(self, content, cut=None) -> str:
        torch.save(content, self.path)
        if cut:
            whole = (self.folder / 'x.pth').read_bytes()
            (self.folder / 'x.pth').write_bytes(whole[: int(cut * len(whole))])
        return self.path

    def images(self, **classes) -> dict:
        """A folder of images, class -> number; its dataset's config."""
        for name, count in classes.items():
            (self.folder / name).mkdir()
            for i in range(count):
                cv2.imwrite(str(self.folder / name / f'{i}.png'), np.full((8, 8, 3), i, np.uint8))
        return dict(type='mmpretrain.CustomDataset', data_root=str(self.folder))

    def load_image(self, content: bytes, **options) -> None:
        (self.folder / 'x.jpg').write_bytes(content)
        transform = TRANSFORMS.build(dict(type='mmmlo.LoadImage', **options))
        for _ in range(100):
            transform(dict(img_path=str(self.folder / 'x.jpg')))

    def train(self, method='mae', **options) -> None:
        """A tiny run."""
        cfg = changed(shrink(self.configs[method], cycles=1), options)
        cfg.work_dir, cfg.experiment_name = str(self.folder / 'run'), f'{self.folder.name}'
        Runner.from_cfg(cfg).train()

    def initialize(self, state: dict, **init_cfg) -> None:
        path = self.save(dict(state_dict=state))
        self.train(**{'model.backbone.init_cfg': dict(type='Pretrained', checkpoint=path, **init_cfg)})


WIDE = {'backbone.cls_token': torch.zeros(1, 1, 64)}

# How it is made, what is wrong with it; FILE is the file.
WRONG_INPUTS = [
    # Checkpoints.
    (lambda x: read_content(x.path), 'checkpoint FILE does not exist'),
    (lambda x: read_content(str(x.folder)), 'checkpoint .* is a folder; name a file in it'),
    (lambda x: (x.folder / 'x.pth').touch() or read_content(x.path), 'FILE is no PyTorch checkpoint'),
    (lambda x: (x.folder / 'x.pth').write_text('hello') and read_content(x.path), 'FILE is no PyTorch checkpoint'),
    (lambda x: read_content(x.save(dict(a=torch.zeros(999)), cut=0.5)), 'FILE is no PyTorch checkpoint, or only a part of'),
    (lambda x: read_content(x.save(dict(a=Code()))), 'FILE holds more than weights and plain values'),
    (lambda x: read_checkpoint(x.save(dict(epoch=3))), 'FILE holds no weights: neither'),
    (lambda x: set_backbone(Config(dict(model={})), x.path), '--backbone: the config has no model.backbone to initialize'),
    (lambda x: x.initialize(WIDE, prefix='backbone.'), 'FILE .* is of another architecture than MaskedViT: cls_token'),
    (lambda x: x.initialize(WIDE, prefix='encoder.'), "FILE has no key that begins with 'encoder.', but"),
    (lambda x: x.train(load_from=x.save(dict(state_dict=dict(a=torch.zeros(2))))), 'FILE has nothing for'),
    (lambda x: load_config(f'{x.folder}/no.py'), 'config .*/no.py does not exist'),
    # Data.
    (
        lambda x: check_dataset_folder(dict(type='CustomDataset', data_root=f'{x.folder}/no'), 'train_dataloader.dataset'),
        '`train_dataloader.dataset.data_root`: there is no folder .*/no. Put the data there, or set',
    ),
    (lambda x: x.load_image(b''), r'cannot decode the image .*x.jpg \(.*\). Replace the file'),
    (lambda x: x.load_image(b'', on_corrupt='skip'), '100 of 100 images could not be decoded, the last one .*x.jpg; '),
    (lambda x: x.load_image(b'', on_corrupt='never'), "LoadImage.on_corrupt must be 'raise' or 'skip', got 'never'"),
    (lambda x: SplitDataset(x.images(cat=3, dog=3, owl=0)), 'CustomDataset in .*: no image for class owl'),
    (lambda x: SplitDataset(x.images(cat=3, dog=1)), r'too few images of class dog \(1\). Each class needs at least 2'),
    (
        lambda x: SplitDataset(dict(x.images(cat=2), with_label=False)),
        'CustomDataset has no labels, and a stratified split needs one class for each image',
    ),
    (lambda x: SplitDataset(Digits(), part='test'), '`part` of SplitDataset must be one of the keys of `fractions`'),
    (
        lambda x: check_level_splits(dict(finetune=Digits(), masking=Digits())),
        '`train_cfg.dataloaders.finetune.dataset` and `train_cfg.dataloaders.masking.dataset` share 1438 images',
    ),
    (lambda x: check_level_splits(dict(pretrain=Digits('test'))), r"is Digits\(split='test'\), an official test split"),
    (
        lambda x: x.train('mlo', **{'model.downstream.num_classes': 7}),
        'model.downstream.num_classes is 7, but the images of train_cfg.dataloaders.finetune have 10 classes; set .*=10',
    ),
]


@pytest.mark.parametrize(('make', 'words'), WRONG_INPUTS)
def test_a_wrong_input_gets_one_line(configs, tmp_path, make, words):
    with pytest.raises((ValueError, MissingFileError), match=words.replace('FILE', str(tmp_path / 'x.pth'))) as error:
        make(Input(tmp_path, configs))
    assert '\n' not in str(error.value)


def test_there_are_fifteen():
    assert len(WRONG_INPUTS) >= 15
