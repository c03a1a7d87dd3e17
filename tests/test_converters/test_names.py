from mmmlo.converters import FORMATS
from mmmlo.converters.names import DECODER, ENCODER, LAYER_SCALE, KeyTable


def test_tables_are_one_to_one():
    for format in FORMATS.values():
        for side in zip(*format.table.pairs):
            assert len(set(side)) == len(side), format.name


def test_names_are_matched_as_a_whole():
    table = KeyTable([*ENCODER, *LAYER_SCALE, *DECODER])
    assert table.to_ours('blocks.11.mlp.fc1.weight') == 'backbone.layers.11.ffn.layers.0.0.weight'
    assert table.to_theirs('backbone.layers.3.ffn.layers.1.bias') == 'blocks.3.mlp.fc2.bias'
    assert table.to_ours('blocks.0.ls2.gamma') == 'backbone.layers.0.ffn.gamma2.weight'
    for key in ('blocks.x.norm1.weight', 'blocks.0.norm1.running_mean', 'my.pos_embed', 'pos_embed2', 'normXweight'):
        assert table.to_ours(key) is None
