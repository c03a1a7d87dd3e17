# What all detection configs share: mmdet's runtime, counted in iterations. Types without a scope are mmdet's or mmengine's,
# ours are written mmmlo.X.
_base_ = 'mmdet::_base_/default_runtime.py'

default_hooks = dict(
    # Reads the losses when they are logged; mmengine's hook waits for the device in every iteration.
    runtime_info=dict(type='mmmlo.DeferredRuntimeInfoHook'),
    checkpoint=dict(by_epoch=False, interval=5000, max_keep_ckpts=2),
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
log_processor = dict(by_epoch=False)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
randomness = dict(seed=0, deterministic=False)
