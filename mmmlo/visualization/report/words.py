"""Telemetry in plain words."""

from math import inf
from typing import NamedTuple

from ..mask_health import chance_overlap, collapse_signs
from .run import Run

__all__ = ['Verdict', 'judge', 'telemetry']


class Verdict(NamedTuple):
    """How masks are, as a ``word`` that is a colour on the page too, and a ``text`` with what to change."""

    word: str
    text: str


def mask_ratio(run: Run) -> float:
    """Read the share of patches that is masked, by the config."""
    ratio = (run.config.get('model') or {}).get('mask_ratio', 0.75)
    return ratio if isinstance(ratio, float) else 0.75


def _trains_masks(run: Run) -> bool:
    levels = (run.config.get('optim_wrapper') or {}).get('levels') or {}
    return not run.config.get('model') or 'masking' in levels


def judge(run: Run) -> Verdict:
    """Say whether the masks of a run are healthy by its last five measurements, or collapsing, and what to change."""
    values = {name: run.last(f'masks/{name}') for name in ('overlap', 'saturation', 'mean_score')}
    known = {name: value for name, value in values.items() if value is not None}
    if len(known) < len(values):
        return Verdict('unknown', 'Nothing was measured of masks.')
    ratio = mask_ratio(run)
    chance = chance_overlap(ratio)
    shared = f'two images share {known["overlap"]:.0%} of what is visible, by chance {chance:.0%}.'
    if not _trains_masks(run):
        return Verdict('fixed', f'No masking level is trained; {shared}')
    binary = str((run.config.get('model') or {}).get('type', '')).endswith('CLMAE')
    signs = collapse_signs(known, ratio, binary)
    if not signs:
        return Verdict('healthy', f'Masks differ between images: {shared}')
    found = '; '.join(f'masks/{sign.name} is {sign.text}' for sign in signs)
    changes = ', '.join(dict.fromkeys(sign.change for sign in signs))
    what = 'images get nearly the same mask' if signs[0].name == 'overlap' else 'scores no longer tell patches apart'
    return Verdict('collapsing', f'{what}: {found}. Try {changes}.')


# Number -> title, and what to say of a value below a bound, the first that holds.
_WORDS: dict[str, tuple[str, list[tuple[float, str]]]] = {
    'masks/mean_score': ('mean score', [
        (0.05, 'near 0: weights make the loss small, whatever is hidden'),
        (0.95, 'at neither end'),
        (inf, 'near 1: every patch is to be hidden')]),
    'masks/score_std': ('spread of scores', [(0.01, 'patches are not told apart'), (inf, 'patches are told apart')]),
    'masks/saturation': ('saturated scores', [
        (inf, '{value:.0%} of the scores are nearly 0 or 1, where a masker learns slowly')]),
    'masks/overlap': ('overlap between images', [
        (inf, 'two images share {value:.0%} of what is visible; by chance {chance:.0%}, with one mask for all 100%')]),
    'masks/epoch_overlap': ('overlap over time', [
        (inf, 'an image keeps {value:.0%} of what was visible in the picture before; by chance {chance:.0%}')]),
    'masks/entropy': ('entropy over places', [
        (0.5, 'the same places are hidden in most images'), (inf, 'places are hidden in turns')]),
    'masks/never_masked': ('never masked', [(inf, '{value:.0%} of the places are hidden in no image of a batch')]),
    'masks/difficulty': ('difficulty', [
        (0.97, 'what is hidden is {off:.0%} easier to fill in than under random masks'),
        (1.03, 'what is hidden is as hard to fill in as under random masks'),
        (inf, 'what is hidden is {off:.0%} harder to fill in than under random masks')]),
    'masks/contrast': ('follows contrast', [
        (-0.5, 'patches of little contrast are hidden, which a rule could do as well'),
        (0.5, 'scores are not the contrast of a patch'),
        (inf, 'patches of much contrast are hidden: mmmlo.ContrastMasker does so without learning, compare with it')]),
    'masks/centre': ('follows the place', [
        (-0.5, 'the middle of images is hidden, whatever they show'),
        (0.5, 'scores are not the distance from the centre'),
        (inf, 'the border of images is hidden, whatever they show')]),
    'masking/trust': ('trust', [
        (0.3, 'where one looks matters little here, or is not learned yet: weights stay near 1'),
        (inf, 'looking where the masker looks saves {value:.0%} of its loss; weights follow it as far')]),
    'masking/hypergradient_norm': ('hypergradient', [(inf, 'its norm; at 0 nothing would be learned')]),
}
# Of names that depend on levels: a part of the name -> title and words.
_WORDS_OF_LEVELS: dict[str, tuple[str, list[tuple[float, str]]]] = {
    '/vector_norm/': ('vector at {last}', [(inf, 'norm of what arrives at that level along the paths')]),
    'cosine': ('agreement of steps of {first}', [
        (0.1, 'steps point anywhere: noise. Try a larger batch of the level that is named, or a lower rate'),
        (inf, 'a step goes on where the last one went')]),
}


def telemetry(run: Run) -> list[tuple[str, str, str]]:
    """List what was measured of masks and hypergradients: a name, the mean of the last five values, and plain words."""
    words = dict(_WORDS)
    for name in run.curves:
        for part, (title, texts) in _WORDS_OF_LEVELS.items():
            if part in name:
                first, *_, last = name.split('/')
                words[name] = title.format(first=first, last=last), texts
    rows = []
    for name, (title, texts) in words.items():
        value = run.last(name)
        if value is not None:
            text = next(text for bound, text in texts if value < bound)
            told = text.format(value=value, chance=chance_overlap(mask_ratio(run)), off=abs(value - 1))
            rows.append((title, f'{value:.3g}', told))
    return rows
