"""The converter's command line, and training that goes on from a converted file."""

import argparse
import os.path as osp
import pickle
import subprocess
import sys

import pytest
import torch
from mmengine.hooks import Hook

from mmmlo import __version__
from mmmlo.launch.config import build_runner, load_config
from mmmlo.launch.shrink import shrink
from mmmlo.utils.checkpoints import file_hash, read_checkpoint

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
SCRIPT = osp.join(ROOT, 'tools', 'model_converters', 'convert.py')


@pytest.fixture(scope='module')
def main(load_tool):
    return load_tool('model_converters/convert.py').main


@pytest.fixture
def run(main, capsys):
    """Run the command; returns exit status, standard output and standard error."""

    def call(*argv: object) -> tuple[int, str, str]:
        try:
            status = main([str(argument) for argument in argv])
        except SystemExit as ended:
            status = ended.code
        return (status, *capsys.readouterr())

    return call


@pytest.fixture
def refuse(run, tmp_path):
    """Run the command, which must end with status 2 and one line; returns the line."""

    def call(*argv: object) -> str:
        before = sorted(tmp_path.iterdir())
        status, out, err = run(*argv)
        assert (status, err.count('\n')) == (2, 1) and err.startswith('error: '), err
        assert 'Written' not in out and sorted(tmp_path.iterdir()) == before
        return err

    return call


def mae_file(path, width=48, depth=2, patch=4, heads=4, jitter=False, model=None, **updates) -> dict[str, torch.Tensor]:
    """An encoder as MAE's code saves it, with what its training script adds."""
    from timm.models import VisionTransformer

    torch.manual_seed(1)
    sizes = dict(img_size=4 * patch, patch_size=patch, embed_dim=width, depth=depth, num_heads=heads, mlp_ratio=2)
    built = VisionTransformer(**sizes, **{'num_classes': 0, **(model or {})})
    state = {**built.state_dict(), **updates}
    if jitter:
        state = {key: value + 0.1 * torch.randn(value.shape) for key, value in state.items()}
    torch.save(dict(model=state, epoch=3, args=argparse.Namespace(blr=1e-3)), path)
    return state


def test_to_timm_and_back_with_verification(run, tiny_checkpoint, tmp_path):
    path = tiny_checkpoint('mlo_mae')
    status, out, _ = run(path, tmp_path / 'timm.safetensors', '--to', 'timm', '--verify', '--heads', 4)
    assert status == 0
    assert f'Key report of {path} (mmmlo, recognized by its keys) to timm: 30 mapped, 30 dropped' in out
    assert "verify: tokens of timm (timm's VisionTransformer) and of mmmlo differ by " in out
    assert out.endswith(f'Written: {tmp_path}/timm.safetensors\n')
    # All that is needed to know where it came from.
    given, meta, *_ = read_checkpoint(str(tmp_path / 'timm.safetensors'))
    expected = dict(source=path, sha256=file_hash(path), to='timm', grid='4x4', mmmlo=__version__)
    assert meta == {'from': 'mmmlo', **expected}

    status, out, _ = run(tmp_path / 'timm.safetensors', tmp_path / 'back.pth', '--from', 'timm', '--to', 'mmmlo')
    back, meta, *_ = read_checkpoint(str(tmp_path / 'back.pth'))
    source = read_checkpoint(path).state_dict
    assert status == 0 and '(timm) to mmmlo: 30 mapped, 0 dropped' in out
    assert len(back) == len(given) and all(torch.equal(back[key], source[key]) for key in back)
    assert meta['converter']['from'] == 'timm'
    assert not list(tmp_path.glob('*.tmp'))


def test_a_difference_is_not_written(main, run, tiny_checkpoint, tmp_path, monkeypatch):
    convert, names = main.__wrapped__.__globals__['convert'], [f'backbone.layers.0.ln{i}.weight' for i in (1, 2)]

    def confuse(*args):
        result = convert(*args)
        result.ours.update(zip(names, [result.ours[name] + i for i, name in enumerate(reversed(names))]))
        return result

    monkeypatch.setitem(main.__wrapped__.__globals__, 'convert', confuse)
    arguments = ['--to', 'timm', '--verify', '--heads', 4]
    status, out, err = run(tiny_checkpoint('mlo_mae'), tmp_path / 'timm.pth', *arguments)
    assert status == 1 and 'verify: tokens of timm' in out and 'error: the models differ by more than 0.0001' in err
    assert not (tmp_path / 'timm.pth').exists()


@pytest.mark.parametrize(
    ('file', 'to', 'outputs'),
    [
        (dict(), 'timm', ["tokens of timm (timm's VisionTransformer)"]),
        (dict(), 'mmseg-mae', ["tokens of timm (timm's VisionTransformer)", "patch tokens of mmseg-mae (mmseg's MAE)"]),
        (dict(init_values=0.5, in_chans=4), 'mmmlo', ["tokens of timm (timm's VisionTransformer)"]),
        (dict(num_classes=3), 'mae', [
            "tokens of timm (timm's VisionTransformer)", "logits of timm (timm's VisionTransformer)",
            "tokens of mae (timm's VisionTransformer)", "logits of mae (timm's VisionTransformer)",
        ]),
        (dict(num_classes=3, global_pool='avg'), 'mmmlo', [
            "tokens of timm (timm's VisionTransformer)", "logits of timm (timm's VisionTransformer)"
        ]),
    ],
)
def test_what_is_compared(run, tmp_path, file, to, outputs):
    mae_file(tmp_path / 'timm.pth', width=64, heads=1, jitter=True, model=file)
    status, out, _ = run(tmp_path / 'timm.pth', tmp_path / 'out.pth', '--to', to, '--verify')
    assert status == 0
    lines = [line for line in out.splitlines() if line.startswith('verify: ')]
    assert [line.removeprefix('verify: ').split(' and of mmmlo')[0] for line in lines] == outputs * (1 + (to == 'timm'))


def test_grid(run, tiny_checkpoint, tmp_path):
    arguments = ['--to', 'timm', '--grid', 3, 6, '--verify', '--heads', 4]
    status, out, _ = run(tiny_checkpoint('mlo_mae'), tmp_path / 'timm.pth', *arguments)
    assert status == 0 and 'resized: pos_embed from 4 x 4 to 3 x 6 patches by timm' in out
    assert read_checkpoint(str(tmp_path / 'timm.pth')).state_dict['pos_embed'].shape[1] == 19


class Code:
    def __reduce__(self):
        return print, ('this must not run',)


def test_what_cannot_be_read(refuse, capsys, tmp_path):
    out, to = tmp_path / 'out.pth', ('--to', 'mmmlo')
    torch.save(dict(model=Code()), tmp_path / 'code.pth')
    assert 'would run code' in refuse(tmp_path / 'code.pth', out, *to)
    assert 'must not run' not in capsys.readouterr().out
    assert 'does not exist' in refuse(tmp_path / 'absent.pth', out, *to)
    (tmp_path / 'torn.safetensors').write_bytes(b'\0' * 20)
    assert 'is no .safetensors file' in refuse(tmp_path / 'torn.safetensors', out, *to)
    (tmp_path / 'pickle.pth').write_bytes(pickle.dumps(3))
    assert 'error: ' in refuse(tmp_path / 'pickle.pth', out, *to)


def test_what_is_of_no_known_format(refuse, tmp_path):
    path, out = tmp_path / 'mae.pth', tmp_path / 'out.pth'
    state = mae_file(path)
    formats = 'cl-mae, huggingface, mae, mlo-mae, mmmlo, mmseg-mae, timm, torchvision'
    assert f"unknown format 'tim'; there are {formats}" in refuse(path, out, '--to', 'tim')
    assert "unknown format 'moco'" in refuse(path, out, '--to', 'timm', '--from', 'moco')
    message = refuse(path, out, '--to', 'timm', '--from', 'mmmlo')
    assert '28 of 30 keys are unknown (mmmlo has no such weights): patch_embed.proj.weight' in message

    torch.save({'conv1.weight': torch.ones(1), 'fc.bias': torch.ones(1)}, path)
    message = refuse(path, out, '--to', 'timm')
    assert 'the format of ' in message and 'is unknown: it has keys such as conv1.weight, fc.bias' in message
    assert 'nothing is converted from timm to torchvision' in refuse(path, out, '--to', 'torchvision', '--from', 'timm')
    torch.save({**state, 'blocks.0.attn.q_norm.weight': torch.ones(1)}, path)
    message = refuse(path, out, '--to', 'mmmlo')
    assert '1 of 31 keys are unknown (timm has no such weights): blocks.0.attn.q_norm.weight' in message


def test_architectures_that_do_not_fit(refuse, tmp_path):
    path, out, to = tmp_path / 'mae.pth', tmp_path / 'out.pth', ('--to', 'mmmlo')
    mae_file(path)
    for heads in ((), ('--heads', 5)):
        assert 'by which width 48 is divided: --heads N' in refuse(path, out, *to, '--verify', *heads)
    mae_file(path, **{'blocks.1.attn.proj.weight': torch.ones(32, 32)})
    message = refuse(path, out, *to)
    assert 'no plain vision transformer of width 48' in message
    assert 'backbone.layers.1.attn.proj.weight 32 x 32 in place of 48 x 48' in message
    state = mae_file(path)
    torch.save({key: value for key, value in state.items() if not key.startswith('blocks.0.norm1')}, path)
    assert 'it lacks 1 weights, in our names backbone.layers.0.ln1.weight' in refuse(path, out, *to)
    torch.save({'mask_token': torch.ones(1), 'decoder_pos_embed': torch.ones(1, 17, 4)}, path)
    assert 'holds no encoder, but keys such as mask_token, decoder_pos_embed' in refuse(path, out, *to)
    torch.save({**state, 'patch_embed.proj.weight': torch.ones(48, 3, 4, 2)}, path)
    assert 'only square patches are supported' in refuse(path, out, *to)


def test_files_in_the_way(run, refuse, tmp_path):
    path, out = tmp_path / 'mae.pth', tmp_path / 'out.pth'
    mae_file(path)
    assert 'is a source' in refuse(path, path, '--to', 'mmmlo', '--overwrite')
    out.write_text('precious')
    assert 'say --overwrite' in refuse(path, out, '--to', 'mmmlo') and out.read_text() == 'precious'
    assert 'is a folder' in refuse(path, tmp_path, '--to', 'mmmlo')
    status, *_ = run(path, out, '--to', 'mmmlo', '--overwrite')
    assert status == 0 and len(read_checkpoint(str(out)).state_dict) == 30


def test_a_writer_that_fails_leaves_the_old_file(run, tmp_path, monkeypatch):
    path, out = tmp_path / 'mae.pth', tmp_path / 'out.pth'
    mae_file(path)
    out.write_text('precious')

    def fail(content: object, file: str) -> None:
        with open(file, 'w') as half:
            half.write('half')
        raise RuntimeError('no space left')

    monkeypatch.setattr(torch, 'save', fail)
    status, _, err = run(path, out, '--to', 'timm', '--overwrite')
    assert status == 2 and f'{out} cannot be written: no space left' in err
    assert out.read_text() == 'precious' and sorted(file.name for file in tmp_path.iterdir()) == ['mae.pth', 'out.pth']


def test_other_wrong_arguments(refuse, tmp_path):
    path, out = tmp_path / 'mae.pth', tmp_path / 'out.pth'
    mae_file(path)
    arguments = (path, out, '--to', 'cl-mae', '--heads', 4)
    assert '--grid must be at least 1, got [0, 4]' in refuse(*arguments, '--grid', 0, 4)
    assert 'cl-mae knows square grids only, not 2 x 4' in refuse(*arguments, '--grid', 2, 4)
    assert '16 patches, which is not a grid of 4 x 5' in refuse(*arguments, '--source-grid', 4, 5)


def test_as_a_command(tmp_path):
    mae_file(tmp_path / 'mae.pth', width=64)
    command = [sys.executable, SCRIPT, tmp_path / 'mae.pth', tmp_path / 'out.pth', '--to', 'mmmlo', '--verify']
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith('Key report of ') and (tmp_path / 'out.pth').is_file()


class Loaded(Hook):
    """Keeps the weights that training begins with."""

    def before_train(self, runner) -> None:
        self.state = {key: value.clone() for key, value in runner.model.state_dict().items()}


@pytest.mark.parametrize(
    'name',
    [
        'mlo_mae/mlo-mae_vit-mini-p4_1xb128-coslr-50e_cifar10_continue-from-mae',
        'cl_mae/cl-mae_vit-mini-p4_1xb128-coslr-50e_cifar10_continue-from-mae',
        'mlo_mae/mlo-mae_vit-base-p16_1xb256-coslr_in1k_continue-from-mae',
        'cl_mae/cl-mae_vit-base-p16_1xb256-coslr-200e_in1k_continue-from-mae',
    ],
)
def test_training_goes_on_from_a_converted_file(run, tmp_path, name, monkeypatch):
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True))
    full = load_config(osp.join(ROOT, 'configs', f'{name}.py'))
    assert full.load_from.startswith('work_dirs/')
    cfg = shrink(full, cycles=1)
    official = mae_file(tmp_path / 'mae.pth', patch=cfg.model.backbone.patch_size)
    assert run(tmp_path / 'mae.pth', tmp_path / 'ours.pth', '--to', 'mmmlo')[0] == 0

    cfg.update(work_dir=str(tmp_path / 'work'), load_from=str(tmp_path / 'ours.pth'), log_level='WARNING', launcher='none')
    cfg.experiment_name = f'{tmp_path.name}_{name.split("/")[1]}'
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    runner = build_runner(cfg)
    loaded = Loaded()
    runner.register_hook(loaded)
    runner.train()
    converted = read_checkpoint(str(tmp_path / 'ours.pth')).state_dict
    backbone = {key: value for key, value in loaded.state.items() if key.startswith('backbone.')}
    assert backbone.pop('backbone.grid').tolist() == list(cfg.model.neck.get('grid', (14, 14)))
    assert backbone.keys() == converted.keys() and len(backbone) == len(official)
    assert all(torch.equal(value, converted[key]) for key, value in backbone.items())
    assert torch.equal(backbone['backbone.layers.1.ffn.layers.1.weight'], official['blocks.1.mlp.fc2.weight'])
    assert any(key.startswith('masker.') for key in loaded.state) and runner.iter > 0
