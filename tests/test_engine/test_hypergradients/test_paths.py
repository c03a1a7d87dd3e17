import pytest

from mmmlo.engine import LevelGraph

LOWER = ['pretrain', 'finetune']


def test_paths_meet_before_the_last_edge():
    graph = LevelGraph('masking', ['pretrain', 'finetune>pretrain'], LOWER)
    assert sorted(graph.seeds) == ['finetune', 'pretrain']
    assert graph.edges == [('finetune', 'pretrain'), ('pretrain', 'masking')]


def test_one_path():
    graph = LevelGraph('masking', ['finetune > pretrain'], LOWER)
    assert graph.seeds == ['finetune']
    assert graph.edges == [('finetune', 'pretrain'), ('pretrain', 'masking')]


def test_edges_come_in_an_order_in_which_every_vector_is_complete():
    graph = LevelGraph('top', ['a', 'b>a', 'c>b>a', 'c>a'], ['a', 'b', 'c'])
    position = {edge: i for i, edge in enumerate(graph.edges)}
    assert position['c', 'b'] < position['b', 'a'] < position['a', 'top']
    assert position['c', 'a'] < position['a', 'top']
    assert len(graph.edges) == 4


@pytest.mark.parametrize(
    ('paths', 'message'),
    [
        ('pretrain', 'must be a list of paths'),
        ([], 'must be a list of paths'),
        (['encoder'], "'encoder' is no level below 'masking'"),
        (['masking'], "'masking' is no level below 'masking'"),
        (['pretrain>pretrain'], 'passes a level twice'),
        (['pretrain', ' pretrain'], 'twice'),
        (['finetune>pretrain', 'pretrain>finetune'], 'circle'),
        (['a>b>c', 'd>b'], r"together contain the path '(a>b|d>b>c)'"),
    ],
)
def test_wrong_paths_are_named(paths, message):
    lower = LOWER if 'a>b>c' not in paths else list('abcd')
    with pytest.raises(ValueError, match=message) as error:
        LevelGraph('masking', paths, lower)
    assert 'optim_wrapper.levels.masking.paths' in str(error.value)
