"""Make configs smaller: any one small enough to run anywhere within seconds, or a run shorter."""

import copy
import os.path as osp

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from mmmlo.utils.config import dataset_leaves, is_multi_level, named_dataloaders

GRID = (4, 4)
WIDTH = 48


def shrink(cfg: Config, cycles: int = 2) -> Config:
    """Keep what a config says and reduce how much of it there is.

    Two blocks of width 48 on a grid of 4 x 4 patches of the config's own patch size; masker, decoder or neck, and head
    to match; batches of 8; a run of so many cycles. Images are resized at the end of their pipelines. Datasets that are not
    on this machine are replaced by :class:`mmmlo.datasets.SyntheticImages`, and the log says which. A checkpoint of full
    size does not fit, so ``load_from`` is left out.

    Args:
        cfg (Config): A config of this project. It is not changed.
        cycles (int): Cycles to train. Defaults to 2.
    """
    cfg = copy.deepcopy(cfg)
    if cfg.get('load_from'):
        print_log(f'{cfg.load_from} does not fit the shrunken model: it starts at random', 'current')
        cfg.load_from = None
    _shrink_model(cfg.model)
    size = GRID[0] * cfg.model.backbone.patch_size
    for key, loader in named_dataloaders(cfg):
        # A head that is solved needs an image of each class.
        loader.update(batch_size=16 if key.endswith('.labelled') else 8, num_workers=0, pin_memory=False)
        loader.pop('persistent_workers', None)
        if 'size' in loader.get('data_preprocessor', ()):  # to which a segmentor's pads
            loader.data_preprocessor.size = (size, size)
        for _, dataset in dataset_leaves(loader.get('dataset') or dict(datasets=()), key):
            _shrink_dataset(dataset, size)
    # Hooks that measure on images of their own, which are of full size.
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks') or () if 'dataset' not in hook]
    for loop in (cfg.get('val_cfg'), cfg.get('test_cfg')):
        if loop and 'bank_dataloader' in loop:
            loop.k = 5
    _shrink_schedule(cfg, cycles)
    return cfg


def shorten(cfg: Config, epochs: int) -> None:
    """Set the length of a run in epochs, and have its schedules end with it; no validation or checkpoint before the end."""
    factor = epochs / cfg.train_cfg.max_epochs
    for scheduler in cfg.get('param_scheduler') or ():
        for key in ('begin', 'end', 'T_max'):
            if key in scheduler:
                scheduler[key] = round(factor * scheduler[key])
        scheduler.end = max(scheduler.end, scheduler.begin + 1)
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs + 1)
    cfg.default_hooks.checkpoint.interval = epochs


def _shrink_model(model: ConfigDict) -> None:
    patch_size = model.backbone.patch_size
    model.backbone.update(
        arch=dict(embed_dims=WIDTH, num_layers=2, num_heads=4, feedforward_channels=2 * WIDTH),
        img_size=GRID[0] * patch_size,
    )
    if model.backbone.get('frozen_stages', -1) > 0:
        model.backbone.frozen_stages = 2
    extra = (model.get('extra_losses') or {}).values()
    downstream = model.get('downstream') or {}
    tasks = list(downstream.get('tasks', dict(downstream=downstream)).values())
    decoders = [task.decoder for task in tasks if 'decoder' in task]
    for neck in [model.get('neck') or {}, *decoders, *(loss.predictor for loss in extra if 'predictor' in loss)]:
        if 'input_features' in neck:  # a classifier's
            neck.update(input_features=WIDTH)
        elif neck:
            neck.update(
                grid=GRID, embed_dim=WIDTH, decoder_embed_dim=32, decoder_depth=2, decoder_num_heads=4, mlp_ratio=2
            )
    if 'num_classes' in model.head:
        model.head.in_channels = WIDTH
    masker = model.get('masker')
    while masker is not None:
        # A masker's own defaults may be large, so those sizes are set too that the config leaves out.
        sizes = dict(
            MLPMasker=dict(grid=GRID, embed_dims=WIDTH, hidden_dims=32), ConvMasker=dict(dims=16),
            ViTMasker=dict(embed_dims=WIDTH, depth=2), UNetMasker=dict(dims=16, depth=1),
            AttentionMapMasker=dict(num_heads=4, checkpoint=None),
        )
        masker.update(sizes.get(masker.type.split('.')[-1], {}))
        if 'grid' in masker:
            masker.grid = GRID
        masker = masker.get('masker')  # one inside, as in mmmlo.FrozenMasker
    for head in [*tasks, *(loss.head for loss in extra if 'head' in loss)]:
        head = head.get('decode_head', head)
        if 'neck' in head:  # a detector's
            head.neck.update(in_channels=WIDTH, out_channels=32)
            head.head.update(in_channels=32, feat_channels=32, stacked_convs=1)
        elif 'head' in head and 'decoder' not in head:
            head.head.in_channels = WIDTH
        if 'in_channels' in head:
            head.in_channels = WIDTH


def _shrink_dataset(dataset: ConfigDict, size: int) -> None:
    pipeline = list(dataset.get('pipeline', []))
    root = dataset.get('data_root')
    if root and not osp.isdir(osp.expanduser(root)):
        print_log(f'{root} is not there: synthetic images stand in for {dataset.type}', 'current')
        # 'trainval' is trained on too, an annotation file says it by its name, and without labels there is no test.
        trained = any('train' in str(dataset.get(key)) for key in ('split', 'data_prefix', 'ann_file'))
        split = 'train' if trained or not dataset.get('with_label', True) else 'test'
        types = [transform['type'] for transform in pipeline]
        of_boxes = dict(boxes=True) if 'mmdet.LoadAnnotations' in types else {}
        of_maps = dict(maps=True) if 'mmseg.LoadAnnotations' in types else {}
        indices = dict(indices=dataset.indices) if of_maps and 'indices' in dataset else {}
        dataset.clear()
        dataset.update(type='mmmlo.SyntheticImages', split=split, **of_maps, **of_boxes, **indices)
        kept = 'mmdet.LoadAnnotations'
        pipeline = [step for step in pipeline if '.Load' not in f'.{step["type"]}' or step['type'] == kept]
    scope = 'mmdet.' if pipeline and pipeline[-1]['type'] == 'mmdet.PackDetInputs' else ''
    pipeline.insert(len(pipeline) - 1, dict(type=f'{scope}Resize', scale=(size, size)))
    dataset.pipeline = pipeline


def _shrink_schedule(cfg: Config, cycles: int) -> None:
    if not is_multi_level(cfg):
        cfg.train_dataloader.num_batch_per_epoch = 2 * cycles
        cfg.train_cfg.update(max_epochs=1, val_interval=1)
        return
    base = next(iter(cfg.optim_wrapper.levels.values()))
    cfg.train_cfg.pop('max_epochs', None)
    cfg.train_cfg.update(max_iters=cycles * base.get('steps', 1) * base.get('accumulative_counts', 1), val_interval=1)
