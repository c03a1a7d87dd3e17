# What makes ADIOS on patches of a MAE: four soft masks, one of them a step (ADIOS-s); a config adds the patch size. The mask
# ratio is for pictures and statistics.
adios = dict(type='mmmlo.ADIOSMAE', single=True, mask_ratio=0.25)
adios_masker = dict(type='mmmlo.UNetMasker', num_masks=4)
adios_loop = dict(type='mmmlo.MultiLevelTrainLoop', dataloaders=dict(masking='pretrain'))
