import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt

import mmmlo
from mmmlo.evaluation import Metric, ProtocolResult, ResultsFile, Row, to_markdown
from mmmlo.evaluation.results import row_labels, shorten_middle


def result(protocol='knn', *values, **options):
    metrics = {'top1': Metric([*values] or [50.0]), 'top5': Metric([90.0])}
    required = dict(protocol=protocol, settings=dict(k=20), metrics=metrics, main='top1', seconds=1.25)
    return ProtocolResult(**required | options)


def row(*results, **options):
    named = dict(label='MAE', checkpoint='/runs/mae.pth', sha256='a' * 64, method='MAE', iteration=100, data='STL-10')
    counts = dict(matched=148, resized=1, new_by_design=2, left_by_design=96)
    return Row(**named | dict(key_report=counts, protocols={r.protocol: r for r in results}) | options)


def tables(markdown):
    """Cells of all tables, as a Markdown reader sees them."""
    found, tokens = [], MarkdownIt().enable('table').parse(markdown)
    for token, inner in zip(tokens, tokens[1:]):
        if token.type == 'table_open':
            found.append([])
        elif token.type == 'tr_open':
            found[-1].append([])
        elif token.type in ('th_open', 'td_open'):
            assert {child.type for child in inner.children} <= {'text', 'text_special'}
            found[-1][-1].append(''.join(child.content for child in inner.children))
    return found


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'results.json'


def test_metrics():
    several = Metric([1, 2.0, np.float32(4)])
    assert (several.mean, several.std) == (pytest.approx(7 / 3), pytest.approx(np.std([1, 2, 4], ddof=1)))
    assert str(several) == '2.33 ± 1.53'
    single = Metric([80.126])
    assert (single.mean, single.std, single.unit, str(single)) == (80.126, None, 'per cent', '80.13')
    assert str(Metric([1.0, math.inf])) == 'n/a'


def test_a_file_gives_back_what_it_got(path):
    settings = dict(k=20, lr=np.float64(0.1), grid=(1, 2), folder=Path('/a'))
    metrics = {'2-shot': Metric([1 / 3, math.nan], 'nats'), '1-shot': Metric([7.0])}
    given = row(
        result(),
        ProtocolResult('few-shot', settings, metrics, '1-shot', 3, True, notes=['ä [\n1,  2]'], versions={'torch': '0'}),
        key_report=dict(matched=3), iteration=None)
    ResultsFile(str(path)).update(given)
    (kept,) = ResultsFile(str(path)).rows
    few = kept.protocols['few-shot']
    assert list(few.metrics) == ['2-shot', '1-shot']
    assert few.metrics['2-shot'].values == [1 / 3, pytest.approx(math.nan, nan_ok=True)]
    assert few.settings == dict(k=20, lr=0.1, grid=[1, 2], folder='/a')
    assert (few.notes, few.cached, few.versions) == (['ä [\n1,  2]'], True, {'torch': '0'})
    assert few.metrics['2-shot'].unit == 'nats'
    assert (kept.iteration, kept.key_report, kept.label) == (None, given.key_report, 'MAE')
    versions = kept.protocols['knn'].versions
    assert {'mmmlo', 'torch', 'mmengine'} <= set(versions) <= {'mmmlo', 'torch', 'mmengine', 'mmpretrain'}
    assert versions['mmmlo'] == mmmlo.__version__
    assert kept.protocols['knn'] == result(versions=versions)
    assert given.protocols['knn'].versions == {}  # what was given stays as it was


def test_the_file_is_plain_json(path):
    ResultsFile(str(path)).update(row(result('knn', 1.0, 2.0)))
    text = path.read_text()
    data = json.loads(text, parse_constant=pytest.fail)
    metric = data['rows'][0]['protocols']['knn']['metrics']['top1']
    assert data['format'] == 1
    assert metric == dict(mean=1.5, std=math.sqrt(0.5), unit='per cent', values=[1.0, 2.0])


def test_rows_are_merged(path):
    file = ResultsFile(str(path))
    file.update(row(result('knn', 50.0), result('linear', 60.0)))
    file.update(row(result('linear', 61.0, settings=dict(C=1)), label='again', checkpoint='/elsewhere.pth'))
    file.update(row(result('knn', 70.0), data='Digits'))
    file.update(row(result('knn', 80.0), sha256='b' * 64))
    first, *others = ResultsFile(str(path)).rows
    assert [(r.sha256[0], r.data) for r in (first, *others)] == [('a', 'STL-10'), ('a', 'Digits'), ('b', 'STL-10')]
    assert (first.label, first.checkpoint, first.key_report['matched']) == ('again', '/elsewhere.pth', 148)
    assert list(first.protocols) == ['knn', 'linear']
    assert first.protocols['knn'].metrics['top1'].values == [50.0]
    assert (first.protocols['linear'].metrics['top1'].values, first.protocols['linear'].settings) == ([61.0], dict(C=1))
    assert file.rows == [first, *others]


def test_what_another_evaluation_wrote_stays(path):
    first, second = ResultsFile(str(path)), ResultsFile(str(path))
    first.update(row(result('knn')))
    second.update(row(result('linear')))
    first.update(row(result('knn'), sha256='b' * 64))
    rows = ResultsFile(str(path)).rows
    assert [list(r.protocols) for r in rows] == [['knn', 'linear'], ['knn']]


def test_two_processes_lose_no_row(path):
    """Each writes ten rows at the time of the other."""
    script = """
import sys
from mmmlo.evaluation.results import Metric, ProtocolResult, ResultsFile, Row
file, who = ResultsFile(sys.argv[1]), sys.argv[2]
found = ProtocolResult('knn', {}, {'top1': Metric([50.0])}, 'top1', 1.0)
print('ready', flush=True)
sys.stdin.readline()
for i in range(10):
    file.update(Row(who, who, f'{who}{i}', 'MAE', None, 'digits', protocols={'knn': found}))
"""
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    writers = [subprocess.Popen([sys.executable, '-c', script, str(path), who], **pipes) for who in 'ab']
    for writer in writers:
        assert writer.stdout.readline() == 'ready\n'
    for writer in writers:
        writer.stdin.write('go\n')
        writer.stdin.flush()
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert {row.sha256 for row in ResultsFile(str(path)).rows} == {f'{who}{i}' for who in 'ab' for i in range(10)}


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('', 'JSONDecodeError'),
        ('{"format": 1, "rows": [{"label"', 'JSONDecodeError'),
        ('[1, 2]', 'TypeError'),
        ('{"accuracy": 50}', "KeyError: 'format'"),
        ('{"format": 1}', "KeyError: 'rows'"),
        ('{"format": 1, "rows": [{"protocols": {}}]}', 'missing 6 required'),
        ('{"format": 2, "runs": []}', r'has format 2, but this version of mmmlo reads format 1'),
        (b'\x80\x02', 'UnicodeDecodeError'),
    ],
)
def test_another_file_is_never_written_over(path, content, message):
    content = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        ResultsFile(str(path))
    assert str(error.value).startswith(str(path))
    assert str(error.value).endswith('It was left as it is: move it away, or name another file for the results.')
    path.unlink()
    file = ResultsFile(str(path))
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        file.update(row(result()))
    assert path.read_bytes() == content


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ValueError, match='not a readable file of evaluation results'):
        ResultsFile(str(tmp_path))


@pytest.mark.parametrize('failing', ['fsync', 'replace'])
def test_an_interruption_loses_nothing(path, monkeypatch, failing):
    file = ResultsFile(str(path))
    file.update(row(result('knn')))
    before = path.read_bytes()

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, interrupt)
        with pytest.raises(KeyboardInterrupt):
            file.update(row(result('linear')))
    assert path.read_bytes() == before
    assert set(os.listdir(path.parent)) <= {'results.json', '.results.json.lock'}
    file.update(row(result('finetune')))
    assert list(ResultsFile(str(path)).rows[0].protocols) == ['knn', 'finetune']


def test_folders_are_made_and_links_are_followed(tmp_path):
    target = tmp_path / 'a' / 'b' / 'results.json'
    link = tmp_path / 'link.json'
    link.symlink_to(target)
    ResultsFile(str(link)).update(row(result()))
    assert link.is_symlink() and ResultsFile(str(target)).rows[0].label == 'MAE'


def test_labels_are_unlike():
    assert shorten_middle('abcdefgh', 8) == 'abcdefgh'
    assert shorten_middle('abcdefgh', 6) == 'ab…fgh'
    rows = [row(sha256=digit * 64, label=label) for digit, label in zip('abcd', ('x', 'x', 'x' * 40 + 'y' + 'x' * 40, 'z'))]
    assert list(row_labels(rows, 90).values()) == ['x aaaaaaaa', 'x bbbbbbbb', 'x' * 40 + 'y' + 'x' * 40, 'z']
    rows.append(row(sha256='e' * 64, label='x' * 100))
    short = list(row_labels(rows, 20).values())
    assert short[2:] == ['xxxxx…xxxxx cccccccc', 'z', 'xxxxx…xxxxx eeeeeeee']
    # One checkpoint on two datasets has one label.
    assert row_labels([row(label='old'), row(label='new', data='Digits')], 20) == {'a' * 64: 'new'}


def test_tables():
    few = ProtocolResult(
        'few-shot', dict(draws=2), {'1-shot': Metric([10, 20]), '4-shot': Metric([30, 40])}, '4-shot', 9.0, cached=True)
    more = ProtocolResult(
        'few-shot', dict(draws=2), {'1-shot': Metric([10, 20]), '2-shot': Metric([20, 20]), '4-shot': Metric([41, 42])},
        '4-shot', 9.0)
    rows = [
        row(result('knn', 50.0), few, label='A'),
        row(result('knn', 60.0), result('finetune', 70.0, 72.0), more, label='B', sha256='b' * 64, iteration=None),
    ]
    text = to_markdown(rows)
    summary, knn, shots, finetune, weights = tables(text)
    assert summary == [
        ['checkpoint', 'method', 'iteration', 'knn: top1', 'few-shot: 4-shot', 'finetune: top1'],
        ['A', 'MAE', '100', '50.00', '35.00 ± 7.07', '-'],
        ['B', 'MAE', '-', '60.00', '41.50 ± 0.71', '71.00 ± 1.41'],
    ]
    assert knn[1:] == [['A', '50.00', '90.00', '1', '1.2', 'computed'], ['B', '60.00', '90.00', '1', '1.2', 'computed']]
    assert finetune[1:] == [['B', '71.00 ± 1.41', '90.00', '2', '1.2', 'computed']]
    assert shots == [
        ['checkpoint', '1-shot', '4-shot', '2-shot', 'values', 'seconds', 'features'],
        ['A', '15.00 ± 7.07', '35.00 ± 7.07', '-', '2', '9.0', 'cached'],
        ['B', '15.00 ± 7.07', '41.50 ± 0.71', '20.00 ± 0.00', '2', '9.0', 'computed'],
    ]
    assert weights[0] == ['checkpoint', 'matched', 'resized', 'new by design', 'left by design', 'sha256', 'file']
    assert weights[2] == ['B', '148', '1', '2', '96', 'b' * 12, '/runs/mae.pth']
    assert '- all checkpoints: Settings: draws = 2\n' in text
    assert text.startswith('Dataset: STL-10\n\n## Summary\n')
    # Columns stand below each other where the text is read as it is.
    for block in text.split('\n\n'):
        lines = block.splitlines()
        if block.startswith('|'):
            assert len({tuple(i for i, char in enumerate(line) if char == '|') for line in lines}) == 1


def test_datasets_are_sections():
    text = to_markdown([row(result()), row(result(), data='a|b'), row(result(), sha256='b' * 64)])
    heads = [line for line in text.splitlines() if line.startswith('#')]
    below = ['### Summary', '### knn', '### Weights']
    assert heads == ['## STL-10', *below, '## a\\|b', *below]
    assert [len(table) for table in tables(text)] == [3, 3, 3, 2, 2, 2]
    assert to_markdown([]) == 'No results.\n'


def test_different_settings_are_said():
    rows = [row(result(settings=dict(k=k, T=0.07)), label=f'k{k}', sha256=str(k) * 64) for k in (1, 2)]
    text = to_markdown(rows)
    assert 'Settings differ between checkpoints, see below: knn.' in text
    assert '- k1: Settings: k = 1, T = 0.07\n- k2: Settings: k = 2, T = 0.07\n' in text
    assert 'differ' not in to_markdown(rows[:1])


def test_notes_are_listed_once():
    rows = [row(result(notes=['both', 'alone']), label='A'), row(result(notes=['both']), label='B', sha256='b' * 64)]
    assert '- all checkpoints: both\n- A: alone\n' in to_markdown(rows)


def test_versions_are_said():
    rows = [row(result(versions=dict(torch=v)), sha256=v * 64) for v in '112']
    assert to_markdown(rows).endswith('\n\nVersions: torch 1; torch 2\n')
    assert 'Versions' not in to_markdown([row(result())])


def test_odd_names_stay_in_their_cells():
    odd = 'a|b \\| *c* `d` <i> \n e'
    rows = [row(result(odd), label=odd, method=odd, checkpoint=odd, key_report={})]
    summary, protocol, weights = tables(to_markdown(rows))
    plain = ' '.join(odd.split())
    assert summary[1][:2] == [plain, plain] and summary[0][3] == f'{plain}: top1'
    assert protocol[1][0] == weights[1][0] == weights[1][-1] == plain
    assert weights[1][1:5] == ['-'] * 4
