"""tools/analysis_tools/run_study.py: a real study that is interrupted, and the rest with stand-ins for the two tools."""

import json
import os
import os.path as osp
import re
import signal
import threading
import time

import pytest
from matplotlib import image as reader

from mmmlo.launch.config import load_config
from mmmlo.launch.shrink import shrink
from mmmlo.launch.studies import StudyError, read_studies

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))

TRAIN = """
import json, os, sys, time
config, _, work_dir, resume = sys.argv[1:]
assert resume == '--resume'
text = open(config).read()
with open(os.path.join(work_dir, 'starts'), 'a') as file:
    file.write('x')
if 'mask_ratio=0.9' in text and not os.path.exists(os.path.join(os.path.dirname(__file__), 'mended')):
    print('the reason')
    sys.exit(3)
folder = os.path.join(work_dir, '1', 'vis_data')
os.makedirs(folder, exist_ok=True)
with open(os.path.join(folder, 'scalars.json'), 'w') as file:
    file.write('{"pretrain/loss": 3.0, "step": 1}\\n')
    seed = int(config[:-3].split('_')[-1])
    record = {'pretrain/loss': 2.0, 'masks/overlap': 0.25, 'pretrain/grad_norm': 7, 'finetune/loss': float('nan')}
    file.write(json.dumps(record) + '\\n' + json.dumps({'knn/top1': 50 + seed}) + '\\n{"torn')
open(os.path.join(work_dir, 'last.pth'), 'w').write('x')
open(os.path.join(work_dir, 'last_checkpoint'), 'w').write('/elsewhere/last.pth')
"""
EVALUATE = """
import json, os, sys
words = sys.argv[1:]
out, label = words[words.index('--out') + 1], words[words.index('--labels') + 1]
value = 60 + len(label)
results = {
    name: dict(protocol=name, settings={}, main='top1', seconds=1, metrics=dict(top1=dict(values=[value], unit='per cent')))
    for name in words[words.index('--protocols') + 1:words.index('--out')]
}
os.makedirs(out, exist_ok=True)
row = dict(label=label, checkpoint=words[0], sha256='a' * 64, method='MLOMAE', iteration=1, data='digits', protocols=results)
json.dump(dict(format=1, rows=[row]), open(out + '/results.json', 'w'))
"""


@pytest.fixture
def tool(load_tool):
    return load_tool('analysis_tools/run_study.py')


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    """A digits config of two cycles."""
    folder = tmp_path_factory.mktemp('base')
    cfg = shrink(load_config(osp.join(ROOT, 'configs/mlo_mae/mlo-mae_vit-nano-p4_1xb64-coslr-20e_digits.py')))
    cfg.default_hooks.checkpoint.interval = cfg.default_hooks.logger.interval = 1
    cfg.dump(folder / 'tiny.py')
    return str(folder / 'tiny.py')


def write_studies(path, base, *ratios):
    variants = [dict(label=str(ratio), x=ratio, options={'model.mask_ratio': ratio}) for ratio in ratios]
    ratio = dict(title='Share of masked patches', x='share', variants=variants)
    bars = dict(title='The same as bars', variants=[dict(variant, x=None) for variant in variants])
    path.write_text(json.dumps(dict(base=base, studies=dict(ratio=ratio, bars=bars))))
    return str(path)


@pytest.fixture
def stub(tool, base, tmp_path, monkeypatch):
    """The tool with stand-ins; ``stub(*arguments)`` runs it in ``tmp_path/out`` and returns the status."""
    tools = tmp_path / 'tools'
    tools.mkdir()
    (tools / 'train.py').write_text(TRAIN)
    (tools / 'evaluate.py').write_text(EVALUATE)
    monkeypatch.setattr(tool, 'TOOLS', str(tools))
    studies = write_studies(tmp_path / 'studies.json', base, 0.5, 0.75, 0.9)
    return lambda *words: tool.main([*words, '--studies', studies, '--out', str(tmp_path / 'out')])


def starts(folder):
    return {str(path.parent.relative_to(folder / 'runs')): len(path.read_text()) for path in folder.rglob('starts')}


def test_interrupted_and_resumed(tool, base, tmp_path, capsys):
    out = tmp_path / 'out'
    studies = write_studies(tmp_path / 'studies.json', base, 0.5, 0.75)
    command = ['ratio', '--studies', studies, '--seeds', '0', '--out', str(out)]
    record, log = out / 'study.json', out / 'runs/0.75/seed_0/train.log'

    def interrupt():
        while not (record.is_file() and log.is_file()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert tool.main(command) == 130
    thread.join()
    assert list(json.loads(record.read_text())['jobs']) == ['0.5/seed_0']
    checkpoint = out / 'runs/0.5/seed_0/epoch_1.pth'
    written = checkpoint.stat().st_mtime_ns
    assert tool.main(command) == 0
    assert '1 of 2 jobs are finished already' in capsys.readouterr().out
    assert checkpoint.stat().st_mtime_ns == written

    study = read_studies(studies)['ratio']
    args = tool.parse_args([*command, '--data', 'digits', '--protocols', 'knn', '--num-workers', '0'])
    folder = tool.open_folder(study, args)
    assert list(folder.jobs) == ['0.5/seed_0', '0.75/seed_0']
    for job in folder.jobs.values():
        assert {'pretrain/loss', 'finetune/loss', 'masking/loss', 'masks/overlap', 'masks/saturation', 'masks/mean_score',
                'knn/top1'} <= set(job.scalars)
        assert not job.error and not job.results and job.seconds['train'] > 0
    assert 'kNN on D_val, training log (per cent)' in (out / 'study.md').read_text()
    assert reader.imread(out / 'study.png').std() > 0.01
    # What is left is the evaluation.
    job = tool.add_jobs(study, args, folder)[0]
    assert folder.missing(job) == ['knn']
    folder.run(job)
    assert not job.error and 0 < job.results['digits']['knn']['value'] <= 100


def test_a_variant_may_have_a_config_of_its_own(tool, base, tmp_path):
    cfg = load_config(base)
    cfg.model.mask_ratio = 0.625
    cfg.dump(tmp_path / 'other.py')
    variants = [dict(label='as it is'), dict(label='other', base='other.py')]
    studies = tmp_path / 'studies.json'
    studies.write_text(json.dumps(dict(base=base, studies=dict(two=dict(title='Two', variants=variants)))))
    args = tool.parse_args(['two', '--studies', str(studies), '--seeds', '0', '--out', str(tmp_path / 'out')])
    study = tool.find_study(args)
    tool.add_jobs(study, args, tool.open_folder(study, args))
    ratios = {path.name: load_config(str(path)).model.get('mask_ratio') for path in (tmp_path / 'out/configs').iterdir()}
    assert ratios == {'as-it-is_seed_0.py': load_config(base).model.get('mask_ratio'), 'other_seed_0.py': 0.625}


def test_a_failed_job_is_reported_and_the_study_goes_on(stub, tmp_path, capsys):
    assert stub('ratio', '--seeds', '0', '1', '--data', 'digits', '--protocols', 'knn') == 1
    printed = capsys.readouterr()
    assert printed.out.count('FAILED: tools/train.py ended with status 3') == 2 and 'the reason' in printed.out
    assert '2 jobs failed: 0.9/seed_0, 0.9/seed_1' in printed.err
    out = tmp_path / 'out'
    table = re.sub(' +', ' ', (out / 'study.md').read_text())
    assert '| 0.75 | 2 |' in table and '| 0.9 | 0 |' in table and '- 0.9, seed 0: tools/train.py ended' in table
    assert '50.50 ± 0.71' in table and '2.000 ± 0.000' in table and 'grad_norm' not in table
    record = json.loads((out / 'study.json').read_text())
    assert record['settings']['protocols'] == ['knn'] and len(record['jobs']) == 6
    assert record['jobs']['0.5/seed_0']['results']['digits']['knn'] == dict(metric='top1', value=71.0, unit='per cent')
    assert record['jobs']['0.5/seed_0']['scalars'] == {'pretrain/loss': 2.0, 'masks/overlap': 0.25, 'knn/top1': 50.0}

    # Mended, and with one more protocol: only what is missing is done.
    (tmp_path / 'tools' / 'mended').write_text('')
    assert stub('ratio', '--seeds', '0', '1', '--data', 'digits', '--protocols', 'knn', 'linear') == 0
    assert starts(out) == {f'{ratio}/seed_{seed}': 1 + (ratio == 0.9) for ratio in (0.5, 0.75, 0.9) for seed in (0, 1)}
    record = json.loads((out / 'study.json').read_text())
    assert all(list(job['results']['digits']) == ['knn', 'linear'] and not job['error'] for job in record['jobs'].values())


def test_another_call_has_written_meanwhile(stub, tool, base, tmp_path):
    (tmp_path / 'tools' / 'mended').write_text('')
    study = read_studies(str(tmp_path / 'studies.json'))['bars']
    args = tool.parse_args(['bars', '--seeds', '1', '--out', str(tmp_path / 'out')])
    folder = tool.open_folder(study, args)
    job = tool.add_jobs(study, args, folder)[0]
    assert stub('bars', '--seeds', '0') == 0
    folder.run(job)
    assert list(folder.jobs) == ['0.5/seed_0', '0.75/seed_0', '0.9/seed_0', '0.5/seed_1']
    assert (tmp_path / 'out/study.png').is_file()


def test_options_of_all_jobs_leave_the_variant_s(stub, tmp_path):
    (tmp_path / 'tools' / 'mended').write_text('')
    assert stub('ratio', '--seeds', '3', '--cfg-options', 'train_dataloader.batch_size=6', 'model.mask_ratio=0.6') == 0
    cfg = load_config(str(tmp_path / 'out/configs/0.75_seed_3.py'))
    assert (cfg.train_dataloader.batch_size, cfg.model.mask_ratio, cfg.randomness.seed) == (6, 0.75, 3)


@pytest.mark.parametrize(
    ('case', 'words'),
    [
        ('unknown', ["no study 'ratios'", 'ratio ', 'bars ', '3 variants: Share of masked patches']),
        ('data', ['--data nothing is neither']),
        ('settings', ['was written with other settings']),
        ('other study', ['is of study ratio']),
        ('record', ['is no record of a study']),
        ('option', ['do not fit']),
    ],
)
def test_wrong_usage_is_one_error_before_anything_runs(stub, tmp_path, capsys, case, words):
    more = ['--seeds', '0']
    name = 'ratio'
    if case == 'unknown':
        name = 'ratios'
    elif case == 'data':
        more += ['--data', 'nothing']
    elif case == 'option':
        more += ['--cfg-options', 'model.backbone.img_size.a=1']
    elif case == 'record':
        (tmp_path / 'out').mkdir()
        (tmp_path / 'out/study.json').write_text('{"torn')
    else:
        (tmp_path / 'tools' / 'mended').write_text('')
        assert stub('ratio', *more) == 0
        if case == 'settings':
            more += ['--cfg-options', 'train_dataloader.batch_size=6']
        else:
            name = 'bars'
    before = starts(tmp_path / 'out')
    with pytest.raises(SystemExit) as error:
        stub(name, *more)
    message = capsys.readouterr().err
    assert error.value.code == 2 and message.count('error: ') == 1
    for word in words:
        assert word in message
    assert starts(tmp_path / 'out') == before


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ('{', 'is no file of studies'),
        ('{"base": "a.py", "studies": {"s": {"title": "t", "variants": [{"label": "a"}]}}}', 'at least two'),
        ('{"base": "a.py", "studies": {"s": {"title": "t", "variants": [{"label": ".."}, {"label": "a"}]}}}', 'folders'),
        ('{"base": "a.py", "studies": {"s": {"title": "t", "x": "x", "variants": [{"label": "a"},'
         ' {"label": "b", "x": 1}]}}}', "numeric axis, but \\['a'\\] have no x"),
        ('{"base": "a.py", "studies": {"s": {"title": "t", "odd": 1, "variants": []}}}', 'odd'),
    ],
)
def test_wrong_definitions(tmp_path, content, words):
    (tmp_path / 'studies.json').write_text(content)
    with pytest.raises(StudyError, match=words):
        read_studies(str(tmp_path / 'studies.json'))
