"""Work dirs as a training leaves them, and a browser to look at pages."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

CONFIG = """
model = dict(
    mask_ratio=0.75,
    masker=dict(embed_dims=96, grid=(8, 8), type='mmmlo.MLPMasker'),
    type='mmmlo.MLOMAE')
optim_wrapper = dict(levels=dict(masking=dict(optimizer=dict(lr=5e-05, type='AdamW'))))
randomness = dict(seed=SEED)
train_cfg = dict(max_epochs=20)
work_dir = 'WORK_DIR'
"""
HEALTHY = dict(mean_score=0.5, score_std=0.18, saturation=0.0, overlap=0.2, entropy=0.9, difficulty=1.2, contrast=0.1)
COLLAPSED = dict(mean_score=0.5, score_std=0.49, saturation=0.94, overlap=0.91, entropy=0.07, difficulty=1.05, contrast=0.3)


def sheet(path, seed, size=(192, 64)):
    """A picture as the hook draws it: rows of four tiles."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(256, size=(*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def work_dir(tmp_path):
    """Write the work dir of a run of 20 epochs: ``work_dir(name, masks, seed, config, top1, pictures)``."""

    def write(name='run', masks=HEALTHY, seed=0, config=CONFIG, top1=60.0, pictures=(0, 170, 340)):
        folder = tmp_path / name
        data = folder / '20260102_030405' / 'vis_data'
        data.mkdir(parents=True)
        records = []
        for epoch in range(1, 21):
            step = 17 * epoch
            record = {'pretrain/loss': 1 / epoch, 'masking/loss': 2.3, 'pretrain/seconds': 0.1, 'time': 0.25}
            record |= {f'masks/{key}': value for key, value in masks.items()}
            records.append(record | dict(epoch=epoch, iter=step, step=step))
            if epoch % 10 == 0:
                records.append({'knn/top1': top1 + epoch / 10, 'data_time': 9.0, 'time': 9.0, 'step': epoch})
        (data / 'scalars.json').write_text('\n'.join(map(json.dumps, records)) + '\n')
        for step in pictures:
            sheet(data / 'vis_image' / f'masks_{step}.png', step)
            sheet(data / 'vis_image' / f'mask_frequency_{step}.png', step, (16, 16))
        start = dict(
            started='2026-01-02T03:04:05+00:00', command=['tools/train.py', '<b>config.py'], seed=seed, processes=1,
            versions=dict(torch='2.13', gpu='A GPU'), git=dict(commit='0123456789abcdef', changed=[' M a.py']),
            data=dict(train_dataloader=dict(dataset='Digits', images=1150)),
            config=config.replace('SEED', str(seed)).replace('WORK_DIR', str(folder)),
        )
        (folder / 'provenance.json').write_text(json.dumps(dict(format=1, runs=[start])))
        return folder

    return write


@pytest.fixture(scope='session')
def chromium():
    """A headless Chromium, driven by Playwright (``pip install -e .[browser]``)."""
    api = pytest.importorskip('playwright.sync_api', reason='no Playwright here; pip install -e .[browser] installs it')
    path = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    with api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=['--no-sandbox'])
        except api.Error as error:
            pytest.skip(f'no browser here: {str(error).splitlines()[0]}')
        yield browser
        browser.close()
