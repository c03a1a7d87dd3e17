"""The comparison with the released CL-MAE. What runs it needs a checkout, which ``MMMLO_CL_MAE`` names."""

import json
import math
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks' / 'compare_released_cl_mae.py'


@pytest.fixture(scope='module')
def script():
    """The script's functions. The released code is not imported."""
    return runpy.run_path(str(SCRIPT))


def test_a_folder_that_is_no_checkout(refusal, tmp_path):
    message = f'error: {tmp_path} has no models_mae.py; CHECKOUT must be a checkout of '
    assert refusal(tmp_path).startswith(message + 'https://github.com/ristea/cl-mae')
    (tmp_path / 'models_mae.py').touch()  # MAE's own checkout has one too
    assert 'has no vit_local.py' in refusal(tmp_path)
    assert 'absent has no models_mae.py' in refusal(tmp_path / 'absent')


@pytest.mark.parametrize(
    ('required', 'difference', 'expected'),
    [(True, 9e-9, True), (True, 1e-8, False), (True, math.nan, False), (False, 1.0, True)],
)
def test_judges_every_row_that_is_required(script, required, difference, expected):
    rows = [dict(required=True, difference=0.0), dict(required=required, difference=difference)]
    assert script['agrees'](rows) == expected


@pytest.mark.parametrize(
    ('released', 'ours'),
    [
        ('cls_token', 'backbone.cls_token'),
        ('patch_embed.proj.weight', 'backbone.patch_embed.projection.weight'),
        ('blocks.1.attn.proj.bias', 'backbone.layers.1.attn.proj.bias'),
        ('blocks.0.mlp.fc1.weight', 'backbone.layers.0.ffn.layers.0.0.weight'),
        ('norm.weight', 'backbone.ln1.weight'),
        ('mask_token', 'neck.mask_token'),
        ('decoder_blocks.0.norm2.bias', 'neck.decoder_blocks.0.ln2.bias'),
        ('decoder_norm.bias', 'neck.last.bias'),
        ('masking_net.blocks.4.attn.qkv.weight', 'masker.layers.4.attn.qkv.weight'),
        ('masking_net.mlp_head.0.weight', 'masker.norm.weight'),
    ],
)
def test_names(script, released, ours):
    value = torch.ones(2)
    assert script['as_ours']({released: value}, 'last') == {ours: value}


def test_polarity_and_the_second_class_token(script):
    released = {
        'masking_net.cls_token': torch.tensor(1.0),
        'masking_net.pos_embed': torch.tensor(0.5),
        'masking_net.mlp_head.1.weight': torch.tensor(2.0),
        'masking_net.mlp_head.1.bias': torch.tensor(3.0),
    }
    assert script['as_ours'](released, 'last') == {
        'masker.cls_token': 1.5,
        'masker.head.weight': -2,
        'masker.head.bias': -3,
    }


@pytest.mark.slow
@pytest.mark.skipif('MMMLO_CL_MAE' not in os.environ, reason='MMMLO_CL_MAE names no checkout of github.com/ristea/cl-mae')
def test_equals_the_released_code(tmp_path):
    out = tmp_path / 'out.json'
    arguments = [os.environ['MMMLO_CL_MAE'], '--seed', '3', '--json', str(out)]
    result = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    figures = json.loads(out.read_text())
    assert figures['agreed'] and figures['settings']['seed'] == 3
    required = [row for row in figures['rows'] if row['required']]
    assert len(required) == 23 and max(row['difference'] for row in required) < 1e-8
    # What is compared is not zero, and the two phases differ.
    assert all(abs(row['ours']) > 1e-3 for row in required if row['ours'] is not None)
    assert len({round(row['ours'], 6) for row in required if row['ours'] is not None}) == 21
    (single,) = [row for row in figures['rows'] if not row['required']]
    assert 1e-10 < single['difference'] < 1e-5
    assert result.stdout.count('raw pixels') == result.stdout.count('normalized pixels') == 9
