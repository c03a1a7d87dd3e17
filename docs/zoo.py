"""The page of all configs with their results, made of the metafiles; ``python docs/zoo.py`` writes docs/model_zoo.md."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
HEAD = """# Model zoo

Made of the `metafile.yml` beside the configs, in which `mim` finds them too. A result stands there only where this code has
measured it, with seeds and command in [docs/results](results/cluttered_digits.json): there are few yet, and no weights.
"""


def page() -> str:
    """Write a table for each file of models."""
    parts = [HEAD]
    for path in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']:
        content = yaml.safe_load((ROOT / path).read_text())
        names = ', '.join(collection['Name'] for collection in content['Collections'])
        parts.append(f'## [{names}](../{content["Collections"][0]["README"]})\n')
        parts.append('| config | data | epochs or iterations | parameters | results | weights |\n|---|---|---|---|---|---|')
        for model in content['Models']:
            data = model['Metadata']
            length = f'{data["Epochs"]} epochs' if 'Epochs' in data else f'{data["Iterations"]:,} iterations'
            metrics = [pair for result in model['Results'] or () for pair in result['Metrics'].items()]
            found = ', '.join(f'{name} {value}' for name, value in metrics)
            weights = f'[file]({model["Weights"]})' if model['Weights'] else ''
            row = (f'[{model["Name"]}](../{model["Config"]})', data.get('Training Data', ''), length,
                   f'{data["Parameters"] / 1e6:.3g} M', found, weights)
            parts.append(f'| {" | ".join(row)} |')
        parts.append('')
    return '\n'.join(parts)


if __name__ == '__main__':
    (ROOT / 'docs' / 'model_zoo.md').write_text(page(), encoding='utf-8')
