# SupMAE that is told where the digit is: do weights add to labels that are used directly?
# Run:  python tools/train.py configs/mae/oracle-supmae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py
_base_ = './supmae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py'

model = dict(type='mmmlo.OracleMAE')
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=[dict(type='PackInputs', meta_keys=('worth', ))])))
