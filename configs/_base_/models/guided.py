# What makes guided MAE of a MAE; a config takes all three, and adds the masker, which depends on patches and labels.
guided = dict(type='mmmlo.GuidedMAE', guided_share=0., weighting=dict(type='mmmlo.TopWeights'))
guided_attention = dict(type='mmmlo.AttentionMasker', dims=96)
# Small, so that four steps in each cycle cost little, and score early what pretraining is to count. At 3e-3 some seeds
# stayed at chance.
guided_level = dict(optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True), steps=4)
