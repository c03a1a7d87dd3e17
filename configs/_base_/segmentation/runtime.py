# What all segmentation configs share: mmseg's runtime, counted in iterations. Types without a scope are mmseg's or
# mmengine's, ours are written mmmlo.X.
_base_ = 'mmseg::_base_/default_runtime.py'

# Image sizes differ from crop to crop at test time.
env_cfg = dict(cudnn_benchmark=False)

default_hooks = dict(
    # Reads the losses when they are logged; mmengine's hook waits for the device in every iteration.
    runtime_info=dict(type='mmmlo.DeferredRuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=16000, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # Drop path draws other paths in each process.
    rank_seed=dict(type='mmmlo.RankSeedHook'),
    # Compares the model with the checkpoints that it starts from, and the head with the classes of the data.
    verify_pretrained=dict(type='mmmlo.VerifyPretrainedHook'),
    check_classes=dict(type='mmmlo.CheckClassesHook'),
    # Leaves out steps that are not finite, and stops after too many.
    non_finite_guard=dict(type='mmmlo.NonFiniteGuardHook'),
    # Writes provenance.json.
    provenance=dict(type='mmmlo.ProvenanceHook'),
)

train_cfg = dict(type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
randomness = dict(seed=0, deterministic=False)
