"""Core against twin on a CUDA device, half precision, and steps that never wait for the device."""

import pytest
import torch

from randommask import KmerTokenizer, MaskedBert, RandomMaskCollator, count_hidden, random_mask
from randommask.models.presets import bert_config
from randommask.models.starts import start_weights
from reference import masked_loss as twin_loss
from reference import masking as twin

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device was found"),
]
SEQUENCES = ["ACGTTGCAACGATTACAGAT" * 3, "GATTACAGATTACA", "ACGTNACGTACGTGATTACA"]


@pytest.fixture
def _never_wait():
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def model_and_batch():
    tokenizer = KmerTokenizer(k=3)
    batch = RandomMaskCollator(tokenizer, schedule=5, probability=0.1, seed=1)(SEQUENCES)
    model = MaskedBert(bert_config("tiny", k=3, positions=64))
    start_weights(model, "structured", k=3, seed=0)
    return model, batch


@pytest.mark.parametrize("width", [1, 6, 14])
def test_masks_on_the_device_equal_the_twin(width):
    generator = torch.Generator("cuda").manual_seed(3)
    ids = torch.randint(5, 69, (6, 50), device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    maskable = torch.ones_like(ids, dtype=torch.bool)
    maskable[:, ::7] = False
    inputs, labels = random_mask(
        ids, width=width, probability=0.1, maskable=maskable, vocabulary=range(5, 69), mask_id=4, generator=generator
    )
    draws = torch.Generator("cuda").manual_seed(3)
    centres = torch.rand((6, 50), device="cuda", generator=draws) < 0.1
    mask = twin.masked(centres.tolist(), maskable.tolist(), [[width] * 50] * 6)
    where = torch.tensor(mask, device="cuda")
    choice = torch.rand((6, 50), device="cuda", generator=draws)[where]
    drawn = torch.randint(5, 69, (6, 50), device="cuda", generator=draws)[where]
    random_ids = drawn[(choice >= 0.8) & (choice < 0.9)].tolist()
    assert (inputs.tolist(), labels.tolist()) == twin.replaced(ids.tolist(), mask, choice.tolist(), random_ids, 4)
    counted = count_hidden(where, maskable, k=3)
    assert int(counted.masked) == sum(map(sum, mask))


@pytest.mark.usefixtures("_never_wait")
def test_masking_on_the_device_never_waits():
    ids = torch.randint(5, 69, (6, 50), device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    maskable = torch.ones_like(ids, dtype=torch.bool)
    generator = torch.Generator("cuda").manual_seed(3)
    for width in (6, range(6, 15)):
        random_mask(
            ids,
            width=width,
            probability=0.1,
            maskable=maskable,
            vocabulary=range(5, 69),
            mask_id=4,
            generator=generator,
        )


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_loss_on_the_device_equals_the_twin(dtype):
    model, batch = model_and_batch()
    with torch.no_grad():
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = twin_loss.loss(logits.tolist(), batch["labels"].tolist())
    model.cuda()
    on_device = {name: value.cuda() for name, value in batch.items()}
    with torch.autocast("cuda", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        loss = model(**on_device).loss
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4 if dtype is None else 2e-2)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_a_training_step_never_waits_for_the_device(dtype):
    model, batch = model_and_batch()
    model.cuda().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    on_device = {name: value.cuda() for name, value in batch.items()}
    count = on_device["masked_positions"].new_tensor(on_device["masked_positions"].numel())

    def step():
        with torch.autocast("cuda", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            loss = model(**on_device, num_items_in_batch=count).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # the first step allocates and compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
