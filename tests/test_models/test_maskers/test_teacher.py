import pytest
import torch

from mmmlo.models.selection import select_patches

MAE = dict(type='mmmlo.MAE', downstream=None)
PREDICTOR = dict(type='mmmlo.GridMAEDecoder', grid=(4, 4), patch_size=4, embed_dim=48, decoder_embed_dim=16, decoder_depth=1,
                 decoder_num_heads=2)
RANKING = dict(ranking=dict(type='mmmlo.RankingLoss', predictor=PREDICTOR))


def moving(tiny_model, kind, **updates):
    model = tiny_model(**MAE, masker=dict(type=f'mmmlo.{kind}', **updates.pop('own', {})), **updates)
    model.masker.moves = True
    model.masker.move(model, momentum=1.0)
    return model


def losses_under(model, images, mask):
    """What the model's own parts lose on the patches that a mask hides, B x L, 0 elsewhere."""
    tokens, _ = model.backbone.embed(images)
    order = mask.argsort(dim=1, stable=True)
    keep = order[:, : int((mask[0] == 0).sum())]
    pred = model.neck(model.backbone.encode(tokens, keep), order.argsort(dim=1))
    return model.head.patch_loss(pred, images) * mask


@pytest.mark.parametrize('passes', [1, 2])
def test_the_teacher_s_loss_is_the_model_s_where_patches_are_hidden(tiny_model, tiny_batch, passes):
    model, images = moving(tiny_model, 'TeacherLossMasker', own=dict(passes=passes)), tiny_batch(0)['inputs']
    torch.manual_seed(3)
    hardness = model.masker.hardness(images)
    torch.manual_seed(3)
    order = torch.rand(6, 16).argsort(dim=1)
    masks = [1 - torch.zeros(6, 16).scatter(1, order[:, 4 * i : 4 * i + 4], 1.0).double() for i in range(passes)]
    expected = sum(losses_under(model, images, mask) for mask in masks) / sum(masks).clamp(min=1)
    torch.testing.assert_close(hardness, expected)
    assert (hardness == 0).sum() == (6 * 4 if passes == 1 else 0)


def test_a_quicker_teacher_s_loss_is_subtracted(tiny_model, tiny_batch):
    model = moving(tiny_model, 'TeacherLossMasker', own=dict(passes=2, momentum=0.1, later=0.5))
    teacher, images = model.masker.teacher, tiny_batch(0)['inputs']
    assert (model.masker.hardness(images) == 0).all()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    old, new = (module.decoder_pred.weight.clone() for module in (teacher['neck'], model.neck))
    model.masker.move(model)
    for module, share in ((teacher, 0.1), (teacher['later'], 0.5)):
        torch.testing.assert_close(module['neck'].decoder_pred.weight, old + share * (new - old))
    torch.manual_seed(3)
    hardness = model.masker.hardness(images)
    torch.manual_seed(3)
    order = torch.rand(6, 16).argsort(dim=1)
    losses = [model.masker._loss(one, images, order) for one in (teacher, teacher['later'])]
    torch.testing.assert_close(hardness, losses[0] - losses[1])


def test_the_hardest_patches_are_masked_and_ties_are_open(tiny_model, tiny_batch, monkeypatch):
    model, batch = moving(tiny_model, 'TeacherLossMasker', guided_share=0.5), tiny_batch(0)
    hardness = torch.randn(6, 16).double()
    monkeypatch.setattr(model.masker, 'hardness', lambda images: hardness)
    masks = torch.stack([model.fix_level('pretrain', batch).selection.mask for _ in range(60)])
    hardest = torch.zeros(6, 16).scatter(1, hardness.topk(6, dim=1).indices, 1.0).bool()
    assert (masks[:, hardest] == 1).all() and 0.5 < masks[:, ~hardest].mean() < 0.7  # 6 of the 10 others
    hardness = torch.zeros(6, 16).double()
    scores = torch.cat([model.fix_level('pretrain', batch).mask_prob for _ in range(200)])
    assert (scores - 0.5).abs().max() < 1e-5
    counts = select_patches(scores, 0.75).mask.mean(dim=0)
    assert (counts - 0.75).abs().max() < 4.5 * (0.75 * 0.25 / 1200) ** 0.5


def test_a_predicted_loss_is_the_predictor_s_of_the_whole_image(tiny_model, tiny_batch):
    model, images = moving(tiny_model, 'PredictedLossMasker', extra_losses=RANKING), tiny_batch(0)['inputs']
    latent = model.extract_feat(images)[0]
    predictor = model.extra_losses['ranking'].predictor
    expected = predictor(latent, torch.arange(16).expand(6, -1)).mean(dim=-1)
    torch.testing.assert_close(model.masker.hardness(images), expected)
    with pytest.raises(ValueError, match="asks the predictor of a loss; add one of dict\\(type='mmmlo.RankingLoss'"):
        tiny_model(**MAE, masker=dict(type='mmmlo.PredictedLossMasker'))


def test_the_teacher_follows_and_is_no_student(tiny_model, tiny_batch):
    model = moving(tiny_model, 'TeacherLossMasker', own=dict(momentum=0.25))
    teacher, student = model.masker.teacher['neck'].decoder_pred.weight, model.neck.decoder_pred.weight
    before = teacher.clone()
    assert torch.equal(before, student)
    with torch.no_grad():
        student.add_(1)
    model.masker.move(model)
    torch.testing.assert_close(teacher, before + 0.25)
    assert not any(parameter.requires_grad for parameter in model.masker.parameters())
    assert model.train().training and not any(module.training for module in model.masker.teacher.modules())
    loss = model(**tiny_batch(0), mode='loss')['loss']
    loss.backward()  # one level, one loss


def test_a_teacher_that_nothing_moves_is_refused(tiny_model, tiny_batch):
    model, batch = tiny_model(**MAE, masker=dict(type='mmmlo.TeacherLossMasker')), tiny_batch(0)
    with pytest.raises(ValueError, match="nothing moves the teacher .*; add dict\\(type='mmmlo.TeacherHook'\\)"):
        model.fix_level('pretrain', batch)
    model.eval().fix_level('pretrain', batch)  # to look at
    for wrong in (dict(momentum=0), dict(momentum=1.5), dict(passes=0), dict(later=0.001)):
        with pytest.raises(ValueError, match=f'model.masker.{next(iter(wrong))} must be'):
            tiny_model(**MAE, masker=dict(type='mmmlo.TeacherLossMasker', **wrong))


def test_scores_of_a_teacher_weight_random_masks(tiny_model, tiny_batch):
    model = moving(tiny_model, 'TeacherLossMasker', own=dict(passes=2), guided_share=0.0,
                   weighting=dict(type='mmmlo.TopWeights', share=0.25))
    scores, weight, selection, _ = model.fix_level('pretrain', tiny_batch(0))
    best = scores >= scores.topk(4, dim=1).values[:, -1:]
    assert all(torch.equal(row == row.max(), own) for row, own in zip(weight, best))
