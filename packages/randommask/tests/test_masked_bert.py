import pytest
import torch
from transformers import AutoModelForMaskedLM, BertForMaskedLM

from randommask import KmerTokenizer, MaskedBert, RandomMaskCollator
from randommask.models.masked_bert import masked_loss
from randommask.models.presets import SIZES, bert_config
from randommask.models.starts import OTHER_STD, POSITION_SCALE, STD, kmer_sums, sinusoids, start_weights
from reference import masked_loss as twin

SEQUENCES = ["ACGTTGCAACGATTACAGAT", "GATTACAGATTACA", "ACGTNACGTACGTGATTACA"]


@pytest.fixture(scope="module")
def tokenizer():
    return KmerTokenizer(k=3)


def small_model(kind=MaskedBert, seed=0):
    model = kind(bert_config("tiny", k=3, positions=64))
    start_weights(model, "structured", k=3, seed=seed)
    return model


def batch_of(tokenizer, probability=0.2, sequences=SEQUENCES):
    return RandomMaskCollator(tokenizer, schedule=5, probability=probability, seed=1)(sequences)


@pytest.mark.parametrize("sequences", [SEQUENCES, SEQUENCES[1:2] * 3], ids=["padded", "even"])
@pytest.mark.parametrize("attention", ["sdpa", "eager", "checkpointing"])
def test_loss_equals_the_twin_and_bert_for_masked_lm(tokenizer, sequences, attention):
    batch = batch_of(tokenizer, sequences=sequences)
    ours, stock = small_model(), small_model(BertForMaskedLM)
    if attention == "checkpointing":
        ours.gradient_checkpointing_enable()
    else:
        ours.set_attn_implementation(attention)
    plain = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    found, expected = ours(**batch), stock(**plain)
    assert float(found.loss.detach()) == pytest.approx(float(expected.loss.detach()), rel=1e-6)
    assert float(found.loss.detach()) == pytest.approx(
        twin.loss(expected.logits.tolist(), batch["labels"].tolist()), rel=1e-6
    )
    masked = batch["labels"] != -100
    torch.testing.assert_close(found.logits, expected.logits[masked])
    found.loss.backward()
    expected.loss.backward()
    for (name, one), (_, other) in zip(ours.named_parameters(), stock.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name, rtol=1e-4, atol=1e-6)


def test_asking_for_all_states_gives_the_same_loss(tokenizer):
    batch = batch_of(tokenizer)
    model = small_model()
    out = model(**batch, output_hidden_states=True)
    assert len(out.hidden_states) == 3
    torch.testing.assert_close(out.loss, model(**batch).loss)
    torch.testing.assert_close(out.logits, model(**batch).logits)
    embedded = {name: value for name, value in batch.items() if name != "input_ids"}
    embedded["inputs_embeds"] = model.bert.embeddings.word_embeddings(batch["input_ids"])
    torch.testing.assert_close(model(**embedded).loss, out.loss)


def test_the_last_layer_sees_masked_positions_alone(tokenizer):
    batch = batch_of(tokenizer)
    model = small_model()
    seen = []
    for layer in model.bert.encoder.layer:
        layer.intermediate.register_forward_hook(lambda module, given, result: seen.append(given[0].shape[:-1].numel()))
    model(**batch)
    assert seen == [batch["input_ids"].numel(), batch["masked_positions"].numel()]


def test_positions_are_found_in_the_labels_where_they_are_not_given(tokenizer):
    batch = batch_of(tokenizer)
    model = small_model()
    given = model(**batch)
    batch.pop("masked_positions")
    assert torch.equal(model(**batch).logits, given.logits)


def test_without_labels_logits_are_everywhere(tokenizer):
    batch = batch_of(tokenizer)
    out = small_model()(batch["input_ids"], attention_mask=batch["attention_mask"])
    assert out.loss is None
    assert out.logits.shape == (*batch["input_ids"].shape, 69)


@pytest.mark.parametrize("count", [None, 0, torch.tensor(0)])
def test_nothing_masked_is_loss_zero_with_zero_gradients(tokenizer, count):
    batch = batch_of(tokenizer, probability=0.0)
    assert batch["masked_positions"].numel() == 0
    model = small_model()
    loss = model(**batch, num_items_in_batch=count).loss
    loss.backward()
    assert float(loss.detach()) == 0.0
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_the_sum_is_divided_by_the_items_of_the_whole_step(tokenizer):
    batch = batch_of(tokenizer)
    model = small_model()
    count = batch["masked_positions"].numel()
    for given in (3 * count, torch.tensor(3 * count)):
        assert float(model(**batch, num_items_in_batch=given).loss.detach()) == pytest.approx(
            float(model(**batch).loss) / 3, rel=1e-6
        )


def test_half_precision_logits_give_a_float32_loss():
    logits = torch.randn(5, 69).bfloat16()
    targets = torch.randint(69, (5,))
    loss = masked_loss(logits, targets)
    assert loss.dtype == torch.float32
    expected = twin.loss([logits.float().tolist()], [targets.tolist()])
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_padding_changes_nothing(tokenizer):
    batch = RandomMaskCollator(tokenizer, schedule=5, probability=0.2)(SEQUENCES[:1])
    model = small_model().eval()
    more = {name: torch.nn.functional.pad(batch[name], (0, 7), value=fill) for name, fill in
            (("input_ids", 0), ("attention_mask", 0), ("labels", -100))}  # fmt: skip
    assert float(model(**more).loss) == pytest.approx(float(model(**batch).loss), rel=1e-5)
    eager = small_model().eval()
    eager.set_attn_implementation("eager")
    assert float(eager(**more).loss) == pytest.approx(float(model(**batch).loss), rel=1e-5)
    assert len(eager(**more, output_attentions=True).attentions) == 2


def test_a_saved_folder_loads_as_bert_for_masked_lm(tmp_path, tokenizer):
    model = small_model().eval()
    model.save_pretrained(tmp_path)
    batch = batch_of(tokenizer)
    expected = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    for loaded in (
        BertForMaskedLM.from_pretrained(tmp_path),
        AutoModelForMaskedLM.from_pretrained(tmp_path),
        MaskedBert.from_pretrained(tmp_path),
    ):
        found = loaded.eval()(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        torch.testing.assert_close(found, expected)


def test_sizes():
    assert SIZES["base"][:3] == (12, 768, 12)
    with torch.device("meta"):
        parameters = {k: sum(p.numel() for p in MaskedBert(bert_config("base", k=k)).parameters()) for k in (3, 6)}
    # DNABERT: 89.19 M at k = 6, 86.10 M at k = 3 with a pooler of 0.59 M, or without and with the head: the same to 0.1 %.
    assert parameters[6] == pytest.approx(89.19e6, rel=5e-3)
    assert parameters[3] == pytest.approx(86.10e6, rel=5e-3)
    with pytest.raises(ValueError, match="size is 'huge'"):
        bert_config("huge")


def test_structured_embeddings_are_sums_over_places():
    generator = torch.Generator().manual_seed(0)
    table = kmer_sums(3, 64, generator=generator)
    assert table.shape == (69, 64)
    assert float(table[5:].std()) == pytest.approx(STD, rel=0.15)
    kmers = table[5:].view(4, 4, 4, 64)
    # Swapping one base moves the embedding alike whatever stands beside it, up to the noise.
    moves = kmers[0] - kmers[1]
    spread = (moves - moves.mean((0, 1))).std() / moves.mean((0, 1)).std()
    assert float(spread) < 0.5


def test_sinusoids():
    table = sinusoids(10, 6)
    for place in range(10):
        for column in range(3):
            angle = torch.tensor(place / 10_000 ** (2 * column / 6))
            assert float(table[place, 2 * column]) == pytest.approx(float(torch.sin(angle)), abs=1e-6)
            assert float(table[place, 2 * column + 1]) == pytest.approx(float(torch.cos(angle)), abs=1e-6)


def test_starts_come_from_the_seed_alone():
    torch.manual_seed(5)
    first = small_model(seed=3)
    torch.manual_seed(6)
    second, other = small_model(seed=3), small_model(seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.bert.embeddings.word_embeddings.weight, other.bert.embeddings.word_embeddings.weight)
    assert first.cls.predictions.decoder.weight is first.bert.embeddings.word_embeddings.weight
    positions = first.bert.embeddings.position_embeddings.weight
    torch.testing.assert_close(positions.detach(), sinusoids(64, 64) * POSITION_SCALE * STD)
    assert float(first.bert.encoder.layer[0].output.dense.weight.std()) == pytest.approx(OTHER_STD, rel=0.05)
    usual = MaskedBert(bert_config("tiny", k=3))
    start_weights(usual, "usual", k=3, seed=0)
    for weight in (
        usual.bert.embeddings.word_embeddings.weight[5:],
        usual.bert.encoder.layer[1].intermediate.dense.weight,
    ):
        assert float(weight.std()) == pytest.approx(0.02, rel=0.05)
    with pytest.raises(ValueError, match="start is 'warm'"):
        start_weights(usual, "warm", k=3, seed=0)
