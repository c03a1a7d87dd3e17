from mmmlo.utils.config import dataset_leaves


def test_data_sets_are_found_in_wrappers():
    one, two = dict(type='One'), dict(type='Two')
    assert list(dataset_leaves(one, 'a')) == [('a', one)]
    wrapped = dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[one, dict(dataset=two)]))
    assert list(dataset_leaves(wrapped, 'a')) == [('a.dataset.datasets[0]', one), ('a.dataset.datasets[1].dataset', two)]
