import json
import re

import pytest
from jinja2 import Template

from mmmlo.evaluation.results import Metric, ProtocolResult, ResultsFile, Row
from mmmlo.visualization.report import Run, find_runs, page, write_report

from .conftest import COLLAPSED, HEALTHY, sheet


def text_of(path):
    return re.sub(r'<script.*?</script>|<style.*?</style>', '', path.read_text(encoding='utf-8'), flags=re.DOTALL)


def data_of(path):
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(encoding='utf-8'))[1])


def test_the_page_of_a_run(work_dir, tmp_path):
    folder, out = work_dir(), tmp_path / 'page.html'
    write_report([Run(str(folder), 'a run')], str(out))
    shown = ' '.join(text_of(out).split())
    for words in (
        '<b class="healthy">healthy:</b>', '20% harder', 'iteration 340, epoch 20 of 20', '0123456789ab and 1 changed files',
        '1150 of Digits (train_dataloader)', 'A GPU, processes: 1', '1 min 25 s, 0.25 s an iteration', '0.1 s an update',
        'tools/train.py &lt;b&gt;config.py', 'type=&#39;mmmlo.MLOMAE&#39;',
    ):
        assert words in shown, words
    assert 'Side by side' not in shown and 'http-equiv="refresh"' not in shown
    data = data_of(out)
    assert [section['title'] for section in data['sections']][:3] == ['Accuracy', 'Losses of all levels', 'Masks']
    steps, seconds = data['sections'][0]['charts']
    assert (steps['curves'], seconds['curves']) == ([[0, [170, 340], [61, 62]]], [[0, [42.5, 85], [61, 62]]])
    (film,) = data['films']
    assert film['steps'] == [0, 170, 340] and film['rows'] == 12 and film['sheets'][0] != film['sheets'][1]


def test_nothing_comes_from_a_network(work_dir, tmp_path):
    out = tmp_path / 'page.html'
    write_report([Run(str(work_dir()), 'a')], str(out))
    head = out.read_text(encoding='utf-8').split('<style>')[0]
    assert "default-src 'none'" in head and not re.search(r'(src|href)="?(https?:)?//', text_of(out))


def test_runs_side_by_side(work_dir, tmp_path):
    for seed in range(3):
        work_dir(f'mae/seed_{seed}', seed=seed, top1=50 + seed, pictures=())
        config = 'lr = 1' if seed else 'lr = 1  # a comment'
        work_dir(f'mlo/seed_{seed}', COLLAPSED, seed=seed, top1=52 + 2 * seed, pictures=(), config=f'{config}\n')
    out = tmp_path / 'page.html'
    write_report(find_runs([str(tmp_path)]), str(out))
    shown = ' '.join(re.sub('<[^>]*>', ' ', text_of(out)).split())
    assert 'mae 3 healthy 53 ± 1 0.05' in shown
    assert 'mlo 3 collapsing 56 ± 2 (+3 ± 1) 0.05' in shown  # seed by seed 2, 3 and 4 more
    colours = [run['colour'] for run in data_of(out)['runs']]
    assert len(set(colours[:3])) == len(set(colours[3:])) == 1 and colours[0] != colours[3]


def test_evaluations(work_dir, tmp_path):
    folder = work_dir(pictures=())

    def row(label, sha256, value):
        result = ProtocolResult('knn', {}, {'top1': Metric([value, value + 2])}, 'top1', 1.0)
        return Row(label, 'a.pth', sha256, 'MLOMAE', 340, 'cifar10', protocols=dict(knn=result))

    ResultsFile(str(folder / 'evaluation' / 'results.json')).update(row('below the work dir', 'a', 70.0))
    write_report([Run(str(folder), 'a')], str(tmp_path / 'page.html'), [row('named', 'b', 80.0)])
    shown = ' '.join(re.sub('<[^>]*>', ' ', text_of(tmp_path / 'page.html')).split())
    assert 'Evaluation on cifar10 checkpoint method knn: top1 (per cent)' in shown
    assert 'named MLOMAE 81.00 ± 1.41 below the work dir MLOMAE 71.00 ± 1.41' in shown


def test_a_long_log_and_many_pictures_stay_below_5_mb(work_dir, tmp_path):
    folder, out = work_dir(pictures=()), tmp_path / 'page.html'
    log = next(folder.glob('*/vis_data/scalars.json'))
    names = [f'level_{i}/loss' for i in range(40)]
    with log.open('w') as file:
        for epoch in range(1, 10_001):
            record = dict.fromkeys(names, epoch / 7) | dict(epoch=epoch, iter=epoch, step=epoch, time=0.1)
            file.write(json.dumps(record) + '\n')
    pictures = log.parent / 'vis_image'
    for step in range(60):
        sheet(pictures / f'masks_{step}.png', step, (768, 256))
    (pictures / 'masks_3.png').write_bytes((pictures / 'masks_3.png').read_bytes()[:100])
    run = Run(str(folder), 'a')
    write_report([run], str(out))
    assert out.stat().st_size < 5_000_000
    data = data_of(out)
    (losses,) = [section for section in data['sections'] if section['title'].startswith('Losses')]
    assert all(20 <= len(chart['curves'][0][1]) <= page.MOST_POINTS for chart in losses['charts'])
    steps = data['films'][0]['steps']
    assert {0, 59} < set(steps) and 5 < len(steps) < 60 and max(b - a for a, b in zip(steps, steps[1:])) <= 16


def test_empty_and_broken_work_dirs_have_pages(work_dir, tmp_path):
    folder = work_dir(pictures=())
    sheet(folder / '20260102_030405' / 'vis_data' / 'vis_image' / 'masks_0.png', 0)
    for path in folder.glob('*/vis_data/vis_image/*.png'):
        path.write_bytes(b'no picture')
    (tmp_path / 'empty').mkdir()
    out = tmp_path / 'page.html'
    write_report([Run(str(tmp_path / 'empty'), 'empty'), Run(str(folder), 'broken')], str(out))
    shown = text_of(out)
    assert 'nothing was logged here yet' in shown and 'The picture of iteration 0 cannot be read' in shown


def test_a_page_is_written_as_a_whole_or_not_at_all(work_dir, tmp_path, monkeypatch):
    out = tmp_path / 'page.html'
    out.write_text('the one before')
    monkeypatch.setattr(Template, 'render', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report([Run(str(work_dir(pictures=())), 'a')], str(out))
    assert out.read_text() == 'the one before' and list(tmp_path.glob('*.tmp')) == []


@pytest.fixture
def look(chromium):
    """Open a page, with what goes wrong in it: ``page, wrong = look(path, **of_the_browser)``."""
    pages = []

    def opened(path, **options):
        place = chromium.new_page(**options)
        pages.append(place)
        wrong = []
        place.on('console', lambda message: wrong.append(message.text))
        place.on('pageerror', lambda error: wrong.append(str(error)))
        place.on('request', lambda request: request.url.startswith(('file:', 'data:')) or wrong.append(request.url))
        place.goto(path.as_uri())
        place.wait_for_selector('html[data-drawn]', timeout=60_000)
        return place, wrong

    yield opened
    for place in pages:
        place.close()


BACK = 'getComputedStyle(document.body).backgroundColor'
AXIS = "document.querySelector('.section[open] .chart').layout.yaxis.type"


@pytest.mark.parametrize('names', [['a'], ['a', 'b', 'c']])
def test_in_a_browser(work_dir, tmp_path, look, names):
    folders = [work_dir(name, COLLAPSED if name == 'b' else HEALTHY, pictures=(0, 340)) for name in names]
    runs = [Run(str(folder), folder.name) for folder in folders]
    out = tmp_path / 'page.html'
    write_report(runs, str(out))
    shown, wrong = look(out, viewport=dict(width=1300, height=900), color_scheme='light')

    # Curves are drawn where they are seen, the others when their section is opened.
    assert shown.locator('.section[open] .main-svg').count() > 0
    closed = shown.locator('.section:not([open])').first
    assert closed.locator('.main-svg').count() == 0
    closed.locator('summary').click()
    shown.wait_for_selector('.section[data-section="2"] .main-svg')
    shown.locator('.section[open] .log').first.click()
    assert shown.evaluate(AXIS) == 'log'

    film = shown.locator('.film').last
    assert film.get_attribute('data-step') == '340'
    before = film.evaluate('place => place.style.getPropertyValue("--sheet")')
    shown.locator('#slider').focus()
    shown.keyboard.press('ArrowLeft')
    assert film.get_attribute('data-step') == '0' and shown.locator('#when').inner_text() == 'iteration 0'
    assert film.evaluate('place => place.style.getPropertyValue("--sheet")') != before

    light = shown.evaluate(BACK)
    shown.locator('#theme').click()
    assert shown.evaluate(BACK) != light
    assert wrong == []


def test_on_a_phone(work_dir, tmp_path, look):
    folder, out = work_dir('a_' + 'long_name_' * 8), tmp_path / 'page.html'
    write_report([Run(str(folder), folder.name), Run(str(work_dir('b')), 'b')], str(out), refresh=600)
    shown, wrong = look(out, viewport=dict(width=360, height=740), color_scheme='dark')
    assert shown.evaluate('document.documentElement.scrollWidth') == 360
    assert shown.evaluate(BACK) == 'rgb(20, 23, 27)' and wrong == []
