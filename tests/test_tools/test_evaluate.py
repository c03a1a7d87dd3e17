"""tools/evaluate.py as a user runs it, on checkpoints of tiny models and real image files."""

import json
import os
import os.path as osp
import runpy
import shutil
import sys
import time
from datetime import timedelta

import pytest
import torch
from sklearn.metrics import accuracy_score

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('evaluate.py')


@pytest.fixture(scope='module')
def recipe(tmp_path_factory):
    """A fine-tuning recipe of three epochs."""
    path = tmp_path_factory.mktemp('recipe') / 'short.py'
    base = osp.join(ROOT, 'configs/benchmarks/vit-mini-p4_1xb128-coslr-100e_image-folder.py')
    path.write_text(
        f'_base_ = {base!r}\ntrain_cfg = dict(max_epochs=3)\ntrain_dataloader = dict(batch_size=12)\n'
        'optim_wrapper = dict(optimizer=dict(lr=1e-3))\nauto_scale_lr = dict(base_batch_size=12)\n'
    )
    return str(path)


def test_it_knows_every_protocol(tool):
    from mmmlo.launch.transfer import TRANSFER_TASKS

    assert set(tool.TRANSFER) == set(TRANSFER_TASKS)


def read(out):
    return json.loads((out / 'results.json').read_text())['rows']


def test_all_protocols_on_two_checkpoints(tool, labelled_folder, tiny_checkpoint, recipe, tmp_path, capsys):
    paths = [tiny_checkpoint('first'), tiny_checkpoint('second', seed=1)]
    common = ['--data', str(labelled_folder), '--out', str(tmp_path), '--num-workers', '0', '--seeds', '0', '1']
    tool.main([*paths, *common, '--protocols', 'knn', 'linear', 'few-shot', '--shots', '1', '4', '--draws', '2'])
    rows = read(tmp_path)
    assert [row['label'] for row in rows] == ['first', 'second']
    for row in rows:
        assert list(row['protocols']) == ['knn', 'linear', 'few-shot']
        assert row['method'] == 'MLOMAE' and row['key_report']['matched'] == 31
        knn = row['protocols']['knn']
        assert list(knn['metrics']) == ['cosine k=10', 'cosine k=20', 'l2 k=5'] and not knn['cached']
        assert 'only 60 training images' in knn['notes'][0]
        assert len(row['protocols']['linear']['metrics']['top1']['values']) == 2
        assert list(row['protocols']['few-shot']['metrics']) == ['1-shot', '4-shot']
        assert row['protocols']['linear']['metrics']['top1']['values'][0] > 80  # three colours; by chance 33
        saved = torch.load(tmp_path / 'linear' / f'{row["sha256"][:12]}_{row["data"]}_logits.pth')
        for seed, value in zip((0, 1), row['protocols']['linear']['metrics']['top1']['values']):
            assert value == pytest.approx(100 * accuracy_score(saved['labels'], saved['logits'][seed].argmax(1)))
    table = (tmp_path / 'results.md').read_text()
    assert table in capsys.readouterr().out
    assert 'first' in table and 'few-shot' in table and (tmp_path / 'results.png').stat().st_size > 10_000

    # Another protocol for one of them: the features are there, and so are the earlier results.
    tool.main([paths[0], *common[:-1], '--protocols', 'finetune', 'knn', '--finetune-config', recipe, '--labels', 'first'])
    rows = read(tmp_path)
    assert list(rows[0]['protocols']) == ['knn', 'linear', 'few-shot', 'finetune'] and len(rows) == 2
    assert rows[0]['protocols']['knn']['cached']
    finetuned = rows[0]['protocols']['finetune']
    assert finetuned['settings']['length'] == '3 epochs' and len(finetuned['metrics']['top1']['values']) == 1


def test_two_processes_find_what_one_finds_however_long_that_takes(
    tool, labelled_folder, tiny_checkpoint, tmp_path, run_in_processes):
    common = [tiny_checkpoint('first'), '--data', str(labelled_folder), '--num-workers', '0', '--shots', '2']
    common += ['--protocols', 'knn', 'few-shot']
    tool.main([*common, '--out', str(tmp_path / 'one')])
    # 84 images in batches of 10 do not go evenly into two processes.
    run_in_processes(__file__, *common, '--batch-size', '10', '--out', str(tmp_path / 'two'))
    one, two = (read(tmp_path / name)[0]['protocols'] for name in ('one', 'two'))
    for protocol in ('knn', 'few-shot'):
        assert one[protocol]['metrics'] == two[protocol]['metrics']


def torn(path, target):
    with open(path, 'rb') as source:
        target.write_bytes(source.read()[:5000])
    return str(target)


@pytest.mark.parametrize(
    ('case', 'words'),
    [
        ('absent', ['absent.pth does not exist']),
        ('torn', ['torn.pth is no PyTorch checkpoint, or only a part of one']),
        ('other architecture', ['another architecture', 'cls_token 1x1x48 -> 1x1x96']),
        ('no labels', ['train holds no image to read', '60 .png outside of the folders of classes']),
        ('too few images', ['17', '16', 'blue']),
        ('diverged', ['diverged.pth', 'NaN or infinite values']),
        ('test is train', ['shares 60 of its 60 images']),
        ('labels', ['--labels takes one for each of the 1 checkpoints, got 2']),
        ('foreign results', ['results.json']),
    ],
)
def test_bad_input_is_one_error_and_keeps_nothing(tool, labelled_folder, tiny_checkpoint, tmp_path, capsys, case, words):
    path, data, out = tiny_checkpoint('first'), labelled_folder, tmp_path / 'out'
    more = []
    if case == 'absent':
        path = str(tmp_path / 'absent.pth')
    elif case == 'torn':
        path = torn(path, tmp_path / 'torn.pth')
    elif case == 'other architecture':
        wide = torch.load(tiny_checkpoint('wide', backbone=dict(arch=dict(embed_dims=96)), neck=dict(embed_dim=96),
                                          masker=dict(embed_dims=96), downstream=dict(in_channels=96)))
        config = tmp_path / 'wide.py'
        config.write_text(wide['meta']['cfg'])
        more = ['--config', str(config)]
    elif case == 'no labels':
        data = tmp_path / 'flat'
        (data / 'train').mkdir(parents=True)
        shutil.copytree(labelled_folder / 'test', data / 'test')
        for i, file in enumerate(sorted(labelled_folder.glob('train/*/*.png'))):
            shutil.copy(file, data / 'train' / f'{i}.png')
    elif case == 'too few images':
        data = tmp_path / 'few'
        shutil.copytree(labelled_folder, data)
        for i in range(3):
            os.remove(data / 'train/blue' / f'{i}.png')
        more = ['--protocols', 'knn', 'few-shot', '--shots', '1', '18']
        words = ['18', '17', 'blue']
    elif case == 'diverged':
        checkpoint = torch.load(path)
        checkpoint['state_dict']['backbone.layers.0.ln1.weight'][3] = float('nan')
        path = str(tmp_path / 'diverged.pth')
        torch.save(checkpoint, path)
    elif case == 'test is train':
        data = tmp_path / 'linked'
        data.mkdir()
        for split in ('train', 'test'):
            os.symlink(labelled_folder / 'train', data / split)
    elif case == 'labels':
        more = ['--labels', 'a', 'b']
    elif case == 'foreign results':
        out.mkdir()
        (out / 'results.json').write_text('{"other": 1}')
    with pytest.raises(SystemExit) as error:
        tool.main([path, '--data', str(data), '--out', str(out), '--num-workers', '0', *more])
    assert error.value.code == 2
    message = capsys.readouterr().err
    assert message.count('error: ') == 1
    for word in words:
        assert word in message
    left = [str(file.relative_to(out)) for file in out.rglob('*') if file.is_file()]
    assert left == (['results.json'] if case == 'foreign results' else [])


def check_evaluation(rank):
    """kNN takes longer than any collective may."""
    tool = runpy.run_path(osp.join(ROOT, 'tools', 'evaluate.py'))
    own, timeout = tool['Evaluation'].run.__globals__, torch.distributed.distributed_c10d._set_pg_timeout
    get, knn = own['FeatureCache'].get, own['knn_protocol']

    def get_and_lose_patience(*args):
        features = get(*args)
        torch.distributed.barrier()
        timeout(timedelta(seconds=1))
        return features

    def slow_knn(*args):
        time.sleep(4)
        return knn(*args)

    own['FeatureCache'].get, own['knn_protocol'] = get_and_lose_patience, slow_knn
    tool['main'](sys.argv[1:])
    timeout(timedelta(minutes=5))


if __name__ == '__main__':
    from processes import run_checks

    run_checks(globals())
