"""Helpers. Import them from their modules, such as :mod:`mmmlo.utils.collect_env`.

Nothing is imported here, so that ``python -m mmmlo.utils.collect_env`` can say what is wrong with a broken environment.
"""
