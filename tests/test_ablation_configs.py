"""The studies' configs: each is its study's base with the options of its variant, and runs."""

import glob
import os.path as osp

import pytest
import torch

from mmmlo.launch.config import build_runner, load_config
from mmmlo.launch.shrink import shrink
from mmmlo.launch.studies import job_config, read_studies
from mmmlo.registry import MODELS
from mmmlo.utils.config import is_multi_level

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
FOLDER = osp.join(ROOT, 'configs', 'mlo_mae', 'ablations')
STUDIES = read_studies(osp.join(FOLDER, 'studies.json'))
VARIANTS = [(study, variant) for study in STUDIES.values() for variant in study.variants]
IDS = [f'{study.name}/{variant.label}' for study, variant in VARIANTS]
# Those that change more than a number.
RUN = ('masker/conv', 'masker/ViT', 'masker/random', 'paths/finetune>pretrain', 'levels/two levels')


def path_of(variant):
    return osp.normpath(osp.join(FOLDER, variant.config))


@pytest.mark.parametrize(('study', 'variant'), VARIANTS, ids=IDS)
def test_config_is_the_base_with_the_variant_s_options(study, variant):
    written, varied = load_config(path_of(variant)), job_config(load_config(study.base), variant)
    assert written.to_dict() == varied.to_dict()
    with torch.device('meta'):
        MODELS.build(written.model)
    with open(path_of(variant), encoding='utf-8') as file:
        assert f'python tools/train.py {osp.relpath(path_of(variant), ROOT)}' in file.read()


def test_every_config_is_in_a_study():
    there = glob.glob(osp.join(FOLDER, '*.py'))
    assert sorted(there) == sorted({path_of(v) for _, v in VARIANTS if not v.config.startswith('..')})


@pytest.mark.parametrize('name', RUN)
def test_shrunken_run(name, tmp_path):
    study, variant = VARIANTS[IDS.index(name)]
    cfg = shrink(load_config(path_of(variant)))
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = f'{variant.config}_{id(cfg)}'
    cfg.log_level = 'WARNING'
    runner = build_runner(cfg)
    runner.train()
    assert runner.iter == 4
    scalars = runner.message_hub.log_scalars
    for level in cfg.optim_wrapper.levels:
        assert torch.isfinite(torch.tensor(scalars[f'train/{level}/loss'].current()))


@pytest.mark.parametrize('base', ['mlo-mae_vit-nano-p4_1xb64-coslr-20e_digits.py',
                                  'mlo-mae_vit-mini-p4_1xb128-coslr-50e_image-folder.py'])
def test_variants_fit_other_bases(base):
    cfg = load_config(osp.join(ROOT, 'configs', 'mlo_mae', base))
    for _, variant in VARIANTS:
        job = job_config(cfg, variant, seed=5)
        assert job.randomness.seed == 5 and cfg.randomness.seed == 0 and is_multi_level(job)
        with torch.device('meta'):
            model = MODELS.build(job.model)
        # Every level that is asked for is one that the model has.
        assert set(job.optim_wrapper.levels) <= set(model.level_modules)
