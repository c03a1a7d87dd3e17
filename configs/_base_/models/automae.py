# What makes AutoMAE of a MAE: the attention of its moving average is scored, and a discriminator watches over the masks; a
# config adds the encoder's number of heads. For a pretrained encoder, as published: model.masker.checkpoint=FILE.
automae = dict(type='mmmlo.AutoMAE')
automae_masker = dict(type='mmmlo.AttentionMapMasker')
automae_hooks = [dict(type='mmmlo.TeacherHook')]
automae_loop = dict(type='mmmlo.MultiLevelTrainLoop', dataloaders=dict(discriminator='pretrain'))
