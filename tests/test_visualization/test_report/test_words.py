import pytest

from mmmlo.visualization.report import Run
from mmmlo.visualization.report.words import judge, telemetry

from .conftest import COLLAPSED, CONFIG, HEALTHY

CL_MAE = CONFIG.replace('MLOMAE', 'CLMAE')
MAE = "model = dict(masker=None, type='mmmlo.MAE')\noptim_wrapper = dict(optimizer=dict(lr=0.001, type='AdamW'))\n"


@pytest.mark.parametrize(
    ('masks', 'config', 'word', 'text'),
    [
        (HEALTHY, CONFIG, 'healthy', 'two images share 20% of what is visible, by chance 14%'),
        (COLLAPSED, CONFIG, 'collapsing', 'masks/overlap is 0.91, above 0.57; masks/saturation is 0.94'),
        (HEALTHY | dict(overlap=0.77), CONFIG, 'collapsing', 'Try a lower optim_wrapper.levels.masking.optimizer.lr'),
        (HEALTHY | dict(mean_score=0.01), CONFIG, 'collapsing', 'no longer tell patches apart: masks/mean_score is 0.010'),
        # There, scores near 0 and 1 are wanted.
        (HEALTHY | dict(saturation=0.95, mean_score=0.7), CL_MAE, 'healthy', 'Masks differ'),
        (COLLAPSED, CL_MAE, 'collapsing', 'Try a larger model.diversity.loss_weight'),
        (COLLAPSED, MAE, 'fixed', 'No masking level is trained; two images share 91%'),
        (HEALTHY, '', 'healthy', 'Masks differ'),
        ({}, CONFIG, 'unknown', 'Nothing was measured'),
    ],
)
def test_verdicts(work_dir, masks, config, word, text):
    verdict = judge(Run(str(work_dir(masks=masks, config=config or 'a = 1')), 'a'))
    assert verdict.word == word and text in verdict.text


def test_numbers_have_words(work_dir):
    rows = {title: (value, text) for title, value, text in telemetry(Run(str(work_dir()), 'a'))}
    assert rows['difficulty'] == ('1.2', 'what is hidden is 20% harder to fill in than under random masks')
    assert rows['follows contrast'] == ('0.1', 'scores are not the contrast of a patch')
    assert 'by chance 14%' in rows['overlap between images'][1]
    assert 'hypergradient' not in rows
    other = work_dir('b', dict(contrast=0.8, difficulty=0.9, centre=-0.7))
    rows = {title: text for title, _, text in telemetry(Run(str(other), 'b'))}
    assert '10% easier' in rows['difficulty'] and 'ContrastMasker' in rows['follows contrast']
    assert rows['follows the place'].startswith('the middle')


def test_numbers_of_levels_have_words(work_dir):
    run = Run(str(work_dir()), 'a')
    run.curves |= {'masking/vector_norm/pretrain': [(17, 3.0)], 'masking/hypergradient_cosine': [(17, 0.01)]}
    rows = {title: (value, text) for title, value, text in telemetry(run)}
    assert rows['vector at pretrain'][0] == '3' and 'noise' in rows['agreement of steps of masking'][1]
