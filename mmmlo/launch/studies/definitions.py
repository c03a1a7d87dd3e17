"""What a study varies."""

import copy
import json
import os
import os.path as osp
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config

from mmmlo.utils.errors import SettingError

__all__ = ['Study', 'StudyError', 'Variant', 'job_config', 'read_studies']


class StudyError(SettingError):
    """A study that is not there, or that cannot be run."""


@dataclass(frozen=True)
class Variant:
    """One value of what a study varies.

    Attributes:
        label (str): What tables and pictures call it.
        config (str): The config file in which the same options are written out, relative to the file of the studies.
        options (dict): Dotted keys of the config and their values, as ``--cfg-options`` takes them.
        remove (tuple[str, ...]): Dotted keys that are taken out of the config, after the options.
        x (float | None): Its place on a numeric axis. None where there is no order.
    """

    label: str
    config: str
    options: dict[str, Any] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    x: float | None = None


@dataclass(frozen=True)
class Study:
    """Variants of one config.

    Attributes:
        name (str): What the command line calls it.
        title (str): What it asks.
        base (str): The config file that is varied.
        variants (tuple[Variant, ...]): At least two.
        x (str): Label of the numeric axis; '' where there is none, and variants are drawn as bars.
        plot (tuple[str, ...]): What the picture shows: 'accuracy', or names of the training log's scalars.
    """

    name: str
    title: str
    base: str
    variants: tuple[Variant, ...]
    x: str = ''
    plot: tuple[str, ...] = ('accuracy', 'masks/overlap')


def read_studies(path: str) -> dict[str, Study]:
    """Read the definitions of studies.

    Args:
        path (str): A JSON file: ``base``, a config relative to the file, and ``studies``, name -> ``title``, ``variants``,
            and, if wanted, ``base``, ``x`` and ``plot``. The keys are those of :class:`Study` and :class:`Variant`.

    Returns:
        dict[str, Study]: By name.

    Raises:
        StudyError: There is no such file, or something else in it.
    """
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
        folder = osp.dirname(osp.abspath(path))
        studies = {}
        for name, given in content['studies'].items():
            given = {'base': content.get('base'), **given}
            variants = [Variant(**{**v, 'remove': tuple(v.get('remove', ()))}) for v in given.pop('variants')]
            given['base'] = osp.normpath(osp.join(folder, given['base']))
            study = Study(name, variants=tuple(variants), **{**given, 'plot': tuple(given.get('plot', Study.plot))})
            _check(study)
            studies[name] = study
    except FileNotFoundError as error:
        raise StudyError(f'{path} does not exist') from error
    except StudyError as error:
        raise StudyError(f'{path}: {error}') from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyError(f'{path} is no file of studies ({type(error).__name__}: {error})') from error
    return studies


def _check(study: Study) -> None:
    labels = [variant.label for variant in study.variants]
    # Both name folders that are written to; of labels, slashes are replaced.
    if '/' in study.name or os.sep in study.name:
        raise StudyError(f'{study.name!r} cannot name a folder, because of its slash')
    for name in (study.name, *labels):
        if not name.strip('.'):
            raise StudyError(f'{name!r} cannot name a folder')
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise StudyError(f'study {study.name} needs at least two variants, each with a label of its own, got {labels}')
    without = [variant.label for variant in study.variants if variant.x is None]
    if study.x and without:
        raise StudyError(f'study {study.name} has a numeric axis, but {without} have no x')


def job_config(base: Config, variant: Variant, options: Mapping[str, Any] | None = None, seed: int | None = None) -> Config:
    """The config of one job.

    Args:
        base (Config): The config that is varied. It is not changed.
        variant (Variant): What is varied. It has the last word.
        options (Mapping, optional): Options of all jobs.
        seed (int, optional): Seed of the run. The cut of the data has its own, which stays. Defaults to the config's.

    Returns:
        Config: A config of its own.

    Raises:
        StudyError: An option does not fit the config, or what should be removed is not there.
    """
    cfg = copy.deepcopy(base)
    for some in (options or {}, variant.options):
        try:
            cfg.merge_from_dict(copy.deepcopy(dict(some)))
        except (TypeError, KeyError, AttributeError) as error:
            raise StudyError(f'{variant.label}: the options {dict(some)} do not fit {base.filename} ({error})') from error
    for key in variant.remove:
        *parents, last = key.split('.')
        node: Any = cfg
        for name in parents:
            node = node.get(name) if isinstance(node, (Config, dict)) else None
        if not isinstance(node, (Config, dict)) or last not in node:
            raise StudyError(f'{variant.label}: {base.filename} has no {key} to remove')
        node.pop(last)
    if seed is not None:
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)
    return cfg
