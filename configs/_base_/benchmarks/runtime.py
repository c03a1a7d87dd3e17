# default_runtime.py without what only pretraining has: there are no masks to measure.
# What mmengine calls validation is the measurement on the test split, once, after the last epoch. That epoch is reported,
# never the best one, which the test data would have chosen: no config saves a best checkpoint.
_base_ = '../default_runtime.py'

custom_hooks = []
