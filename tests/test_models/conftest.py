"""Test files import mmpretrain at their top, which the fixes of :mod:`mmmlo.compat` must precede."""

import mmmlo.registry  # noqa: F401
