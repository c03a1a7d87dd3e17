# default_runtime.py without what only pretraining has: there are no masks to measure.
_base_ = '../default_runtime.py'

custom_hooks = []
