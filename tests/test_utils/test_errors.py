"""What a user can mend is told from what is a fault of the code by one base class."""

import re
from importlib import import_module
from pathlib import Path

import mmmlo
from mmmlo.utils.errors import MmmloError

ROOT = Path(mmmlo.__file__).parent


def test_every_error_class_of_the_package_has_the_base():
    """So that the tools print it as one line."""
    found = []
    for path in sorted(ROOT.rglob('*.py')):
        names = re.findall(r'^class (\w+Error)\(', path.read_text(), flags=re.M)
        if names:
            module = import_module('.'.join(path.relative_to(ROOT.parent).with_suffix('').parts))
            found += [getattr(module, name) for name in names]
    assert len(found) > 10 and all(issubclass(error, MmmloError) for error in found), found


def test_no_other_error_is_raised_for_wrong_values():
    """ValueError and its like say of a library that it has a fault, and keep their tracebacks."""
    raising = re.compile(r'^\s*raise ValueError\(', flags=re.M)
    found = {str(path.relative_to(ROOT)) for path in ROOT.rglob('*.py') if raising.search(path.read_text())}
    caught = {'datasets/transforms/load_image.py', 'evaluation/results.py', 'visualization/report/run.py'}
    assert found <= caught  # where they are raised
