# What makes AdaMAE of a MAE: one transformer block scores the patches; a config adds its width.
adamae = dict(type='mmmlo.AdaMAE')
adamae_masker = dict(type='mmmlo.ViTMasker', head='token', depth=1, num_heads=8, centered=True)
