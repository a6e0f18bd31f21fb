"""The mean of replicas that train in processes of their own: one flat all-reduce an episode, with a few words of agreement.

Agreement       all processes tell, of every replica, whether it holds a NaN, the digest of its form (names, shapes, dtypes) and
                of its carried objects. What does not fit is known everywhere, so that all processes raise the same error and
                none waits for the others. The first time the words go ahead, so that all arrays have one length; later they
                travel in the array of the form last agreed on, and where they do not fit, its sum is thrown away.
Sum             floats of all parts, counters, and flags of what stayed as it was, in one array (`flat_buffer.py`). The mean
                agrees with that of replicas in turn up to rounding: the order of the sum is the backend's.
deterministic   instead each replica's array is broadcast in index order into the sums of `InTurn`: the same bits, for M
                broadcasts and a copy of every replica that is not its process's last.
In place        on a CPU the mean goes straight into the model and the optimizer, large tensors as they are divided.
Letters         M replicas, W processes of the averaging group.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy
import torch

from imwa.compatibility import SHOWN_AT_MOST, describe
from imwa.flat_buffer import (
    AGREEMENT,
    FlatBuffer,
    Form,
    Forms,
    Key,
    Leaf,
    Sum,
    digest_of,
    narrowed,
    tensors_of,
    union_of,
    value_from_words,
    words_of,
)
from imwa.group import Group
from imwa.optimizer_state import load_state, take_state
from imwa.reduction import Carried, InTurn, Mean, Parts, merge_all, part_label, refuse_none_left
from imwa.replica_sum import HoldsNan, refuse_nan, widened
from imwa.snapshot import MODEL, OPTIMIZER, Objects
from imwa.trees import map_leaves

ABSENT, FINE, HOLDS_NAN = 0, 1, 2  # what a process says of a replica


class AcrossProcesses:
    """Mean over replicas in the processes of a group; every process calls the same methods at the same points.

    Args:
        group: averaging group of torch.distributed, one member for each place within a replica: with replicas that are
            themselves data-parallel, the processes of equal data-parallel rank.
        replicas: M, at least one for each process.
        deterministic: sum in replica order, to the bits of replicas in turn.
        on_nan: "stop", or "leave out".

    Raises:
        ValueError: torch.distributed has no process group, this process is no member, or M is below W.
    """

    def __init__(self, group: Any, *, replicas: int, deterministic: bool = False, on_nan: str = "stop") -> None:
        self._group = Group(group, replicas=replicas)
        self.own = self._group.own
        self._replicas, self._deterministic, self._on_nan = replicas, deterministic, on_nan
        self._buffer: FlatBuffer | None = None
        self._look = Forms()
        self._agreed: tuple[FlatBuffer, int] | None = None  # of the form that all had at the last mean, and its digest
        self.clear()

    def begin(self, objects: Objects, *, settings: Mapping[str, Any], episode: int | None) -> None:
        """Agree on settings, models and episode; where the run begins, everybody takes the state of process 0.

        Raises:
            ValueError: settings, models or episodes differ (listed); the same in every process.
        """
        self._agreed = None
        form = {name: describe(value) for name, value in objects.tensors().items()}
        about = {**settings, "finished episodes": episode}
        everyone = self._group.gather((about, form), when="the loop's begin")
        found: list[str] = []
        for number, (theirs, names) in enumerate(everyone[1:], start=1):
            first, known = everyone[0]
            found += [
                f"{name} is {first[name]!r} in process 0 and {theirs[name]!r} in process {number}"
                for name in first
                if first[name] != theirs[name]
            ]
            found += [
                f"{name!r} is {known.get(name, 'absent')} in process 0 and {names.get(name, 'absent')} in process {number}"
                for name in {**known, **names}
                if known.get(name) != names.get(name)
            ]
        if found:
            more = f"; and {len(found) - SHOWN_AT_MOST} more" if len(found) > SHOWN_AT_MOST else ""
            raise ValueError(f"The processes do not belong together: {'; '.join(found[:SHOWN_AT_MOST])}{more}.")
        if episode is None:
            self._share(objects)

    def clear(self) -> None:
        """Make ready for the next episode."""
        self._forms: dict[int, Form] = {}
        self._words: dict[int, dict[Key, int]] = {}
        self._tensors: dict[int, dict[Key, torch.Tensor]] = {}  # of the last replica live, under `deterministic` copies
        self._earlier: dict[Key, torch.Tensor] = {}  # sum over own replicas before the last
        self._unchanged: dict[Key, int] = {}
        self._carried: dict[int, dict[str, dict[str, Any]]] = {}
        self._bad: dict[int, str] = {}
        self._parts: Parts = {}
        self._start: Parts = {}
        self._filled = False  # the buffer holds the last replica and nothing else
        self._all_forms: dict[int, Form] = {}  # of all processes' replicas, where they differ

    @torch.no_grad()
    def add(self, parts: Parts, carried: Carried, *, replica: int, start: Parts, label: str) -> None:
        """Take one replica's end; what is wrong with it is told to all processes in `mean()`."""
        self._parts, self._start = parts, start
        self._carried[replica] = dict(carried)
        leaves = [leaf for part in parts.values() for leaf in part.values()]
        form = self._look.of(parts, leaves)
        tensors = tensors_of(leaves, form)
        last = replica == self.own[-1]
        # Alone with its process, a replica goes straight into the array and is looked over on the way; python's floats apart.
        # Where that finds a NaN, or what may be one, all is looked over tensor by tensor.
        self._filled = last and len(self.own) == 1 and not self._deterministic and form.floats_are_tensors
        buffer = self._buffer_for(form, replicas=self._replicas, like=tensors) if self._filled else None
        if buffer is None or not buffer.fill_checked([tensors[key] for key in buffer.sums]):
            try:
                for name, part in parts.items():
                    refuse_nan(part, part_label(label, name))
            except HoldsNan as error:
                self._bad[replica], self._filled = str(error), False
                return
        self._forms[replica], self._words[replica] = form, words_of(leaves, form)
        if self._deterministic or last:
            self._tensors[replica] = tensors if last else {key: value.clone() for key, value in tensors.items()}
        else:
            self._add_earlier(tensors)
        for part, values in start.items():
            summed, live = form.summed.get(part, set()), parts.get(part, {})
            names = [name for name in values if name in summed]
            equal = map(torch.equal, [values[name] for name in names], [live[name] for name in names])
            for name in itertools.compress(names, equal):
                self._unchanged[part, name] = self._unchanged.get((part, name), 0) + 1

    def mean(self, *, label: str) -> Mean:
        """Mean over the replicas of all processes; the same in each."""
        here = self._at_once(label)
        table = self._exchanged(label) if here is None else here.agreement
        states, forms_agree, carried_agree = self._judged(table, label)
        bad = [m for m, state in enumerate(states) if state == HOLDS_NAN]
        kept = [m for m, state in enumerate(states) if state == FINE]
        left_out = self._left_out(bad, kept, label) if bad else {}
        form, counts = self._one_form(kept, label) if not forms_agree else (self._any_form(kept), {})
        missing = [key[1] for key, count in counts.items() if count < len(kept)]
        carried = self._join_carried(kept, carried_agree, label)
        if self._deterministic:
            total = self._in_order(kept, label)
        else:
            digest = table[kept[0]][2]
            if here is None or bad or not forms_agree or self._agreed is None or self._agreed[1] != digest:
                here = self._summed(form, counts, label)
            total = self._divided(here, kept, counts)
            self._agreed = (here.buffer, digest) if forms_agree else None
        return Mean(total, carried, {OPTIMIZER: missing} if missing else {}, left_out)

    def state_dict(self) -> dict[str, Any]:
        """This process's part of an episode that is under way, in plain values."""
        return {
            "forms": {m: [(key, tuple(leaf)) for key, leaf in form.items()] for m, form in self._forms.items()},
            "words": {m: list(words.items()) for m, words in self._words.items()},
            "tensors": {m: list(tensors.items()) for m, tensors in self._tensors.items()},
            "earlier": list(self._earlier.items()),
            "unchanged": list(self._unchanged.items()),
            "carried": dict(self._carried),
            "bad": dict(self._bad),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict()`."""
        self.clear()
        self._forms = {m: Form((key, Leaf(*leaf)) for key, leaf in form) for m, form in state["forms"].items()}
        self._words = {m: dict(words) for m, words in state["words"].items()}
        self._tensors = {m: {key: value.clone() for key, value in own} for m, own in state["tensors"].items()}
        self._earlier = {key: value.clone() for key, value in state["earlier"]}
        self._unchanged = dict(state["unchanged"])
        self._carried, self._bad = dict(state["carried"]), dict(state["bad"])

    def _add_earlier(self, tensors: Mapping[Key, torch.Tensor]) -> None:
        for key, value in tensors.items():
            if key in self._earlier:
                self._earlier[key] = self._earlier[key].to(value.device).add_(widened(value))
            else:
                self._earlier[key] = widened(value).clone()

    def _share(self, objects: Objects) -> None:
        """Everybody takes process 0's objects: one start for all replicas."""
        first = self._group.rank == 0
        state = {**objects.take(), OPTIMIZER: take_state(objects.optimizer)} if first else None
        plain = map_leaves(state, lambda _, leaf: leaf.cpu() if isinstance(leaf, torch.Tensor) else leaf)
        state = self._group.of_first(plain, when="the loop's begin")
        if not first:
            objects.load(state)
            load_state(objects.optimizer, state[OPTIMIZER])

    def _told(self, label: str) -> dict[int, list[int]]:
        """Of own replicas what they are, and digests of where they stand, of their forms and of their carried states."""
        told, here = {}, digest_of(label)
        for m in self.own:
            state = HOLDS_NAN if m in self._bad else FINE if m in self._forms else ABSENT
            form = self._look.digest(self._forms[m]) if state == FINE else 0
            told[m] = [state, here, form, digest_of(self._carried.get(m))]
        return told

    def _exchanged(self, label: str) -> list[list[int]]:
        """What all processes tell of their replicas."""
        told = self._told(label)
        table = torch.tensor([told.get(m, [0] * AGREEMENT) for m in range(self._replicas)], device=self._group.device)
        self._group.add_up(table, when=label)
        return table.tolist()

    @torch.no_grad()
    def _at_once(self, label: str) -> Sum | None:
        """What all processes tell together with the sum, which holds where all have the form last agreed on; None at first."""
        if self._agreed is None:
            return None
        buffer, digest = self._agreed
        if any(m not in self._forms or self._look.digest(self._forms[m]) != digest for m in self.own):
            buffer.array.zero_()  # all see by the words that this sum is not to be used
        elif not self._filled or buffer is not self._buffer:
            buffer.fill([*self._tensors.values(), self._earlier])
        self._filled = False
        return self._reduced(buffer, label)

    def _judged(self, table: list[list[int]], label: str) -> tuple[list[int], bool, bool]:
        """Of every replica what it is, whether all forms agree, and whether all carried states do."""
        states, labels, forms, carried = zip(*table, strict=True)
        if len(set(labels)) > 1 or ABSENT in states:
            raise ValueError(
                f"This process has come to the end of {label}, and another is elsewhere. Start all processes from states of "
                "the same episode."
            )
        fine = [m for m, state in enumerate(states) if state == FINE]
        everywhere = all(any(states[m] == FINE for m in self._group.of(r)) for r in range(self._group.size))
        return (
            list(states),
            len({forms[m] for m in fine}) <= 1 and everywhere,
            len({carried[m] for m in fine}) <= 1 and everywhere,
        )

    def _left_out(self, bad: list[int], kept: list[int], label: str) -> dict[int, str]:
        """Sentences of the replicas that hold a NaN, or the error that all processes raise."""
        sentences = {m: text for told in self._group.gather(self._bad, when=label) for m, text in told.items()}
        if self._on_nan == "stop":
            raise HoldsNan(sentences[bad[0]])
        if not kept:
            refuse_none_left(sentences, label)
        return {m: sentences[m] for m in bad}

    def _any_form(self, kept: list[int]) -> Form:
        return self._forms[next(m for m in kept if m in self._forms)]

    def _one_form(self, kept: list[int], label: str) -> tuple[Form, dict[Key, int]]:
        """Form over all replicas where they differ, and in how many each leaf is; the optimizer's alone may lack."""
        forms = {m: form for told in self._group.gather(self._forms, when=label) for m, form in told.items()}
        union, counts = union_of({m: forms[m] for m in kept}, label)
        self._all_forms = forms
        return union, counts

    @torch.no_grad()
    def _summed(self, form: Form, counts: dict[Key, int], label: str) -> Sum:
        """One flat all-reduce over a form that all know; `counts` where it is a union."""
        filled = self._buffer if self._filled and not counts else None
        buffer = self._buffer_for(form, replicas=self._replicas, like=next(iter(self._tensors.values()), {}))
        if buffer is not filled:
            buffer.fill([*self._tensors.values(), self._earlier])
        return self._reduced(buffer, label)

    def _reduced(self, buffer: FlatBuffer, label: str) -> Sum:
        buffer.put_flags_and_words(self._unchanged, self._words, self._told(label))
        self._group.add_up(buffer.array, when=label)
        return Sum(buffer, *buffer.read_flags_and_words())

    @torch.no_grad()
    def _divided(self, total: Sum, kept: list[int], counts: dict[Key, int]) -> dict[str, dict[str, Any]]:
        """Leaves of the mean by part and name."""
        buffer, flags, words, _ = total
        form = buffer.form
        values = self._joined(buffer, [words[m] for m in kept], kept, counts)  # refused before anything is written
        for at in numpy.flatnonzero(flags == len(kept)):
            part, name = buffer.sums[at]
            if name in self._start.get(part, {}):
                values[part, name] = self._start[part][name]
        if self._forms.get(self.own[-1]) is form and buffer.plain and buffer.array.device.type == "cpu":
            return self._in_place(buffer, values, len(kept))
        if counts:
            for key, view in buffer.views.items():
                view.div_(counts[key])
        else:
            buffer.divide(len(kept), into={})
        parts: dict[str, dict[str, Any]] = {key[0]: {} for key in form}
        for key, leaf in form.items():
            parts[key[0]][key[1]] = values[key] if key in values else narrowed(buffer.views[key], leaf)
        return parts

    def _joined(
        self, buffer: FlatBuffer, words: list[dict[Key, int]], kept: list[int], counts: dict[Key, int]
    ) -> dict[Key, Any]:
        """Values of what is not summed, from the words of the replicas in `kept`."""
        last = self.own[-1]  # of which `_parts` holds the values
        mine = self._words.get(last, {})
        own = {key: self._parts[key[0]].get(key[1]) for key in buffer.others if key[0] in self._parts}
        if self._forms.get(last) is buffer.form and all(told == mine for told in words):
            return own
        having = {m: self._all_forms[m] if counts else buffer.form for m in kept}
        joined: dict[Key, Any] = {}
        for key in buffer.others:
            told = [one[key] for m, one in zip(kept, words, strict=True) if key in having[m]]
            joined[key] = value_from_words(key, buffer.form[key], told, own=own.get(key), known=mine.get(key))
        return joined

    def _in_place(self, buffer: FlatBuffer, values: Mapping[Key, Any], count: int) -> dict[str, dict[str, Any]]:
        """The mean, where `values` are known: of model and optimizer in the live tensors, where `write` would put it."""
        parts = {name: dict(part) for name, part in self._parts.items()}
        into = {(part, name): parts[part][name] for part, name in buffer.sums if part in (MODEL, OPTIMIZER)}
        elsewhere = {} if len(into) == len(buffer.sums) else {k: v for k, v in buffer.views.items() if k not in into}
        for (part, name), value in {**elsewhere, **values}.items():
            parts[part][name] = value
            into.pop((part, name), None)
        buffer.divide(count, into=into)
        return parts

    @torch.no_grad()
    def _in_order(self, kept: list[int], label: str) -> dict[str, dict[str, Any]]:
        """Every replica's array from its process to all, into the sums of replicas in turn."""
        total = InTurn(replicas=self._replicas)
        for m in kept:
            owner = self._group.owner(m)
            form = self._all_forms[m] if self._all_forms else self._any_form(kept)
            buffer = self._buffer_for(form, replicas=1, like=next(iter(self._tensors.values()), {}))
            if owner == self._group.rank:
                buffer.fill([self._tensors[m]])
                buffer.put_flags_and_words({}, {0: self._words[m]})
            self._group.send(buffer.array, source=owner, when=label)
            words = buffer.read_flags_and_words()[1][0]
            parts: dict[str, dict[str, Any]] = {key[0]: {} for key in form}
            for key, leaf in form.items():
                own = self._parts.get(key[0], {}).get(key[1])
                summed = leaf.kind == "sum"
                value = (
                    narrowed(buffer.views[key], leaf) if summed else value_from_words(key, leaf, [words[key]], own=own)
                )
                parts[key[0]][key[1]] = value
            total.add(parts, {}, replica=m, start={}, label=f"replica {m} of {label}")
        return total.mean(label=label).parts

    def _join_carried(self, kept: list[int], agree: bool, label: str) -> dict[str, dict[str, Any]]:
        """Carried states as if in turn; they travel only where they are not the same everywhere."""
        if agree:
            return self._carried[next(m for m in self.own if m in kept)]
        everyone = {m: state for told in self._group.gather(self._carried, when=label) for m, state in told.items()}
        joined: dict[str, dict[str, Any]] = {}
        for m in kept:
            merge_all(joined, everyone[m])
        return joined

    def _buffer_for(self, form: Form, *, replicas: int, like: Mapping[Key, torch.Tensor]) -> FlatBuffer:
        """The buffer of before where it fits, on the device of `like`."""
        known = self._buffer
        if (
            known is None
            or known.replicas != replicas
            or (known.form is not form and [*known.form.items()] != [*form.items()])
        ):
            device = self._group.device
            place = next((value.device for value in like.values()), device)
            known = FlatBuffer(form, replicas=replicas, device=device if device.type == "cuda" else place)
            self._buffer = known
        return known
