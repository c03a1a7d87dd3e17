"""What a config holds."""

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config, ConfigDict

from mmmlo.utils.errors import SettingError

# Parts of a model that have a key of their own for the channels of images, for these types alone.
_CHANNEL_KEYS = (
    ('neck', 'in_chans', ('GridMAEDecoder', 'MAEPretrainDecoder')),
    ('head', 'in_channels', ('MaskedPixelHead', 'MAEPretrainHead')),
    ('masker', 'in_channels', ('ConvMasker', )),
)


def is_multi_level(cfg: Config) -> bool:
    """Tell whether a config trains several levels."""
    return 'levels' in (cfg.get('optim_wrapper') or {})


def use_levels(cfg: Config, upper: Mapping[str, Mapping] | None = None, dataloaders: Mapping | None = None) -> None:
    """Have a config of one optimizer train by levels, in place: 'pretrain', which has it, and those above with loaders."""
    pretrain = {key: cfg.optim_wrapper[key] for key in ('optimizer', 'paramwise_cfg') if key in cfg.optim_wrapper}
    cfg.optim_wrapper = ConfigDict(
        constructor='mmmlo.MultiLevelOptimWrapperConstructor', levels=dict(pretrain=pretrain, **(upper or {}))
    )
    cfg.train_cfg.update(type='mmmlo.MultiLevelTrainLoop', dataloaders=dict(dataloaders or {}))


def named_dataloaders(cfg: Config) -> Iterator[tuple[str, ConfigDict]]:
    """Find keys and configs of all loaders: train, val, test, those of the upper levels and kNN's banks."""
    for split in ('train', 'val', 'test'):
        loop = cfg.get(f'{split}_cfg') or {}
        loaders = {f'{split}_dataloader': cfg.get(f'{split}_dataloader')}
        loaders[f'{split}_cfg.bank_dataloader'] = loop.get('bank_dataloader')
        for level, own in (loop.get('dataloaders') or {}).items():
            tasks = own.get('tasks') if isinstance(own, Mapping) else None  # of a level whose batch is one of each
            named = {level: own} if tasks is None else {f'{level}.tasks.{task}': one for task, one in tasks.items()}
            loaders |= {f'{split}_cfg.dataloaders.{name}': one for name, one in named.items()}
        # A name in place of a config says that the level shares another's batches.
        yield from ((key, loader) for key, loader in loaders.items() if isinstance(loader, Mapping))


def dataloaders(cfg: Config) -> Iterator[ConfigDict]:
    """Find the configs of all loaders."""
    return (loader for _, loader in named_dataloaders(cfg))


def dataset_leaves(dataset: Mapping[str, Any], key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Find the data sets within wrappers such as ``RepeatDataset`` and ``ConcatDataset``.

    Yields:
        tuple[str, Mapping]: Key and config of each data set that holds no other.
    """
    if isinstance(dataset.get('dataset'), Mapping):
        yield from dataset_leaves(dataset['dataset'], f'{key}.dataset')
    elif 'datasets' in dataset:
        for i, inner in enumerate(dataset['datasets']):
            yield from dataset_leaves(inner, f'{key}.datasets[{i}]')
    else:
        yield key, dataset


def resolve_channels(cfg: Config) -> None:
    """Have decoder, head, masker, preprocessor and loaders of images follow ``model.backbone.in_channels``, in place.

    Raises:
        SettingError: One of them says something else, or mean and deviation are not one a channel.
    """
    model = cfg.get('model') or {}
    if not isinstance(model.get('backbone'), Mapping):
        return
    channels = model['backbone'].get('in_channels', 3)

    def follow(key: str, settings: Any, name: str) -> None:
        if settings.get(name, channels) != channels:
            raise SettingError(
                f'{key}.{name} is {settings[name]}, but model.backbone.in_channels is {channels}; set that one alone, which '
                'decoder, head, masker and loaders follow'
            )
        if channels != 3:
            settings[name] = channels

    for part, name, kinds in _CHANNEL_KEYS:
        if isinstance(model.get(part), Mapping) and str(model[part].get('type')).split('.')[-1] in kinds:
            follow(f'model.{part}', model[part], name)
    preprocessor = model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    for name in ('mean', 'std'):
        values = list(preprocessor.get(name) or ())
        if len(set(values)) == 1 and channels != 3:
            preprocessor[name] = values[:1] * channels
        elif len(values) not in (0, 1, channels):
            raise SettingError(
                f'model.data_preprocessor.{name} has {len(values)} values, but model.backbone.in_channels is {channels}; '
                'give one a channel'
            )
    if channels != 3:
        preprocessor.update({name: False for name in ('to_rgb', 'bgr_to_rgb') if name in preprocessor})
    for loader in dataloaders(cfg):
        for key, dataset in dataset_leaves(loader.get('dataset') or {}, 'dataset'):
            for i, transform in enumerate(dataset.get('pipeline') or ()):
                if transform['type'] == 'mmmlo.LoadImage':
                    follow(f'{key}.pipeline.{i}', transform, 'channels')


def read_config(text: Any) -> dict[str, Any]:
    """Read the values in mmengine's text of a config, which is parsed and not run.

    Tuples come as lists, and what is no plain value as its source. What is no config is empty.
    """
    try:
        body = ast.parse(str(text or '')).body
    except (SyntaxError, ValueError):
        return {}
    assigned = [node for node in body if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)]
    return {node.targets[0].id: _plain(node.value) for node in assigned}  # type: ignore[attr-defined]


def _plain(node: ast.expr) -> Any:
    node = _Literals().visit(node)
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


class _Literals(ast.NodeTransformer):
    """Makes of ``dict(a=1)`` the literal, of a tuple a list, and of another call or a name its text."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if ast.unparse(node.func) != 'dict':
            return ast.Constant(ast.unparse(node))
        self.generic_visit(node)
        return ast.Dict([ast.Constant(word.arg) for word in node.keywords], [word.value for word in node.keywords])

    def visit_Tuple(self, node: ast.Tuple) -> ast.expr:
        self.generic_visit(node)
        return ast.List(node.elts)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(node.id)
