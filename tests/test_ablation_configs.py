"""The studies' variants: each builds, those that change more than a number run, and they fit other bases."""

import os.path as osp

import pytest
import torch

from mmmlo.launch.config import build_runner, load_config
from mmmlo.launch.shrink import shrink
from mmmlo.launch.studies import job_config, read_studies
from mmmlo.preflight.check_config import check_config
from mmmlo.registry import MODELS
from mmmlo.utils.config import is_multi_level

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
STUDIES = read_studies(osp.join(ROOT, 'configs', 'ablations', 'studies.json'))
VARIANTS = {f'{study.name}/{variant.label}': (study, variant) for study in STUDIES.values() for variant in study.variants}
# Those that change more than a number.
RUN = (
    'masker/conv', 'masker/ViT', 'masker/random', 'paths/finetune>pretrain', 'levels/two levels', 'cl-mae-curriculum/partner'
)


@pytest.fixture(scope='module')
def bases():
    return {study.base: load_config(study.base) for study in STUDIES.values()}


def test_one_variant_of_each_study_is_its_base(bases):
    for study in STUDIES.values():
        jobs = [job_config(bases[study.base], variant).to_dict() for variant in study.variants]
        assert jobs.count(bases[study.base].to_dict()) == 1
        assert all(first != second for i, first in enumerate(jobs) for second in jobs[:i])


@pytest.mark.parametrize('name', VARIANTS)
def test_no_option_is_misspelt_and_the_model_builds(name, bases):
    study, variant = VARIANTS[name]
    job = job_config(bases[study.base], variant)
    check_config(job)
    with torch.device('meta'):
        model = MODELS.build(job.model)
    # Every level that is asked for is one that the model has.
    assert set(job.optim_wrapper.levels) <= set(model.level_modules)


def test_two_levels_stand_written_out(bases):
    study, variant = VARIANTS['levels/two levels']
    written = load_config(study.base.replace('.py', '_bilevel.py'))
    assert written.to_dict() == job_config(bases[study.base], variant).to_dict()


@pytest.mark.parametrize('name', RUN)
def test_shrunken_run(name, bases, tmp_path):
    study, variant = VARIANTS[name]
    cfg = shrink(job_config(bases[study.base], variant), cycles=4 if 'cl-mae' in name else 2)
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = f'{tmp_path.name}_{id(cfg)}'
    cfg.log_level = 'WARNING'
    runner = build_runner(cfg)
    runner.train()
    assert runner.iter == 4
    scalars = runner.message_hub.log_scalars
    for level in cfg.optim_wrapper.levels:
        assert torch.isfinite(torch.tensor(scalars[f'train/{level}/loss'].current()))


@pytest.mark.parametrize('data', ['nano-p4_1xb64-coslr-20e_digits', 'mini-p4_1xb128-coslr-50e_image-folder'])
def test_variants_fit_other_bases(data):
    for name in ('mlo', 'cl'):
        cfg = load_config(osp.join(ROOT, 'configs', f'{name}_mae', f'{name}-mae_vit-{data}.py'))
        for study, variant in VARIANTS.values():
            if f'{name}_mae' in study.base:
                job = job_config(cfg, variant, seed=5)
                assert job.randomness.seed == 5 and cfg.randomness.seed == 0 and is_multi_level(job)
                with torch.device('meta'):
                    model = MODELS.build(job.model)
                assert set(job.optim_wrapper.levels) <= set(model.level_modules)
