"""BERT for masked-language modelling that computes on masked positions only what nothing else is asked of.

That is the prediction head, and the last layer behind its attention (its output at other positions goes nowhere): the same loss and
gradients as on all positions, for less time and memory.

    loss = sum over masked positions of cross-entropy / count,   count = num_items_in_batch, else the positions of this batch

The sum is divided by the count of the whole optimizer step, so that 16 x 1 and 4 x 4 accumulated batches give the same loss and
gradient (BertForMaskedLM under today's Trainer gives the accumulation's multiple). Nothing masked: loss 0, zero gradients.
Parameters and their names are BertForMaskedLM's: a saved folder loads as either.

Letters   N sequences, T tokens, M masked tokens, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import BertForMaskedLM
from transformers.modeling_outputs import MaskedLMOutput

from randommask.masking import IGNORED


class MaskedBert(BertForMaskedLM):
    """BertForMaskedLM with the prediction head on masked positions; built from a `BertConfig`."""

    accepts_loss_kwargs = True  # tells the Trainer that `num_items_in_batch` divides the loss

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  (every argument named, none passed on unseen)
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        masked_positions: Tensor | None = None,
        mask_width: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> MaskedLMOutput:
        """Encode all positions, predict the masked ones.

        Args:
            input_ids: Int64[N T].
            attention_mask: Int64[N T], 0 at padding.
            token_type_ids: Int64[N T]; None for zeros.
            position_ids: Int64[N T]; None for 0 ... T-1.
            inputs_embeds: Float[N T D] in place of `input_ids`.
            labels: Int64[N T], -100 where nothing is predicted. None: no loss, logits everywhere.
            masked_positions: Int64[M], flat positions where labels are, as the collator hands them out; None finds them in
                `labels`, for which an accelerator is waited for.
            mask_width: ignored; it comes with the collator's batch.
            num_items_in_batch: masked tokens of the whole optimizer step; None for those of this batch.
            output_hidden_states: also return the states of all layers.
            output_attentions: also return attention weights (eager attention only).

        Returns:
            `loss` Float32[]; `logits` Float[M V] of the masked positions in row-major order, Float[N T V] without labels.
        """
        if labels is not None:
            targets = labels.reshape(-1)
            if masked_positions is None:
                masked_positions = (targets != IGNORED).nonzero().squeeze(1)
            if not (output_hidden_states or output_attentions) and self.config._attn_implementation == "sdpa":
                states = self._states_at(
                    masked_positions,
                    input_ids=input_ids,
                    attention_mask=attention_mask,
                    token_type_ids=token_type_ids,
                    position_ids=position_ids,
                    inputs_embeds=inputs_embeds,
                )
                logits = self.cls(states)
                loss = masked_loss(logits, targets.index_select(0, masked_positions), count=num_items_in_batch)
                return MaskedLMOutput(loss=loss, logits=logits)  # pyright: ignore[reportArgumentType]  (names the CPU's type)
        outputs = self.bert(
            input_ids,
            attention_mask=_for_attention(attention_mask, self.config._attn_implementation),
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            return_dict=True,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
        )
        states = outputs.last_hidden_state
        loss = None
        if labels is None:
            logits = self.cls(states)
        else:
            assert masked_positions is not None
            logits = self.cls(states.reshape(-1, states.shape[-1]).index_select(0, masked_positions))
            loss = masked_loss(logits, labels.reshape(-1).index_select(0, masked_positions), count=num_items_in_batch)
        return MaskedLMOutput(
            loss=loss,  # pyright: ignore[reportArgumentType]  (a Tensor; transformers names the CPU's type)
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _states_at(self, positions: Tensor, *, attention_mask: Tensor | None, **inputs: Tensor | None) -> Tensor:
        """States Float[M D] of the last layer at flat positions Int64[M], by scaled-dot-product attention."""
        mask = _for_attention(attention_mask, "sdpa")
        states = self.bert.embeddings(**inputs)
        layers: list[Any] = list(self.bert.encoder.layer)
        last = layers.pop()
        for layer in layers:
            states = layer(states, mask)
        context = last.attention.self(states, mask)[0]
        width = states.shape[-1]
        context, states = (one.reshape(-1, width).index_select(0, positions) for one in (context, states))
        states = last.attention.output(context, states)
        return last.output(last.intermediate(states), states)


def masked_loss(logits: Tensor, targets: Tensor, *, count: Tensor | int | None = None) -> Tensor:
    """Sum of the cross-entropies over `count`, in float32; 0 with zero gradients where nothing is masked.

    Args:
        logits: Float[M V].
        targets: Int64[M].
        count: what the sum is divided by, at least 1; None for M.
    """
    total = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
    if isinstance(count, Tensor):
        return total / count.clamp(min=1)
    return total / max(targets.shape[0] if count is None else count, 1)


def _for_attention(attention_mask: Tensor | None, implementation: str | None) -> Tensor | None:
    # A ready mask Bool[N 1 T T] is taken as it is. From Int64[N T] transformers first reads back whether any row is padded,
    # and an accelerator would be waited for in every step.
    if attention_mask is None or attention_mask.ndim != 2 or implementation != "sdpa":
        return attention_mask
    if attention_mask.device.type == "cpu" and not torch.compiler.is_compiling() and bool(attention_mask.all()):
        return None  # nothing is padded, and here nothing is waited for
    rows, length = attention_mask.shape
    return (attention_mask != 0)[:, None, None, :].expand(rows, 1, length, length)
