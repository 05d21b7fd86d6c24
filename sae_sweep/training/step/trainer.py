"""One bank in training: its members take their steps over each block of activations."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from sae_sweep.activations.block import Block
from sae_sweep.host.memory import OUT_OF_MEMORY, give_back, is_out_of_memory
from sae_sweep.kernels.device import beside
from sae_sweep.kernels.facts import CACHE_BYTES, DENSE_ABOVE
from sae_sweep.plan.constants import CHUNK_ELEMENTS
from sae_sweep.plan.groups import BankPlan
from sae_sweep.saes.bank import Batch, Chunk, Write
from sae_sweep.saes.base import Losses
from sae_sweep.training.step.bank import TrainedBank
from sae_sweep.training.step.calibration import Calibration
from sae_sweep.training.step.member import TrainedMember
from sae_sweep.training.step.objectives import SplicedLoss
from sae_sweep.training.step.precision import HALVES, ROWS_IN, matrix_products
from sae_sweep.training.step.record import StepRecord, recorded
from sae_sweep.training.step.resampling import SAMPLE_ROWS, resample
from sae_sweep.training.step.rooms import MOST_CROWD, Rooms

ROUTE_EVERY = 16
"""Steps between a member's looks at its own density."""


class BankTrainer:
    """Trains the members of one bank; `consume` takes every block in turn."""

    def __init__(self, plan: BankPlan, calibration: Calibration) -> None:
        """Raises ConfigError where a member cannot begin."""
        self.hook = plan.site.hook
        self.trained = TrainedBank(plan, calibration)
        self.bank = self.trained.bank
        self.members = [TrainedMember(member, self.trained, i) for i, member in enumerate(plan.members)]
        self._rooms = Rooms(len(self.members), calibration.device)
        self._precision = plan.members[0].config.training.precision
        self._half = HALVES.get(self._precision)
        """The format of products that say what may be chosen, on a GPU."""
        self.whole = True
        """Whether members are between two steps, even where one raised: none is half done. A step makes all that takes
        memory before it changes anything."""
        self._most_members = len(self.members)
        """Of a chunk, at most."""
        self.records: list[StepRecord] = []
        self._batch_size = plan.members[0].config.training.batch_size
        self._end_to_end = calibration.end_to_end

    def _batch(self, block: Block, number: int) -> Batch:
        """The batch of a step: activations in the block's order, or those of whole rows."""
        inputs = self.trained.inputs
        if self._end_to_end is None:
            return inputs.batch(block, slice(number * self._batch_size, (number + 1) * self._batch_size))
        sequences, x_BD, tokens_B = self._end_to_end.batch(block, number)
        objective = SplicedLoss(self._end_to_end, sequences, inputs.target_scale, self.trained.worth)
        return Batch(inputs.scaled(x_BD), tokens_B, objective=objective)

    @property
    def running(self) -> bool:
        return any(member.running for member in self.members)

    @property
    def cost(self) -> int:
        """Multiply-adds of a batch's encoder products, per token."""
        return sum(member.plan.encoder_numbers for member in self.members)

    @property
    def prefers_one_core(self) -> bool:
        """Whether several cores would only wait for each other: on a CPU, where encoders stay in the cache of one. At
        d 64 and 128 a step takes half as long on one as on two; at 256 and 4,096 latents (4 MB) two are faster."""
        own = self.trained
        largest = max(member.plan.encoder_numbers for member in self.members) * own.dtype.itemsize
        return own.device.type == "cpu" and self._end_to_end is None and largest <= CACHE_BYTES

    def steps_in(self, block: Block) -> int:
        """Steps that a member takes on a block, if its budget does not end before."""
        if self._end_to_end is not None:
            return self._end_to_end.steps_in(block)
        return block.count(self.trained.inputs.hooks) // self._batch_size

    def consume(self, block: Block, after_step: Callable[[], None]) -> None:
        """Let every member take a step on each whole batch of the block that it has not taken; what is left over is
        not used. At a milestone of a member it ends early, and `after_step` may raise: either way each member goes on
        from there the next time."""
        for member in self.members:
            if member.running and member.blocks != block.index + 1:
                member.blocks, member.batches = block.index + 1, 0
        self._rooms.begin()
        while stepping := self._stepping(self.steps_in(block)):
            batch = self._batch(block, self.members[stepping[0]].batches)
            for chunk in self._chunks(stepping):
                self._step_in_room(chunk, batch)
            due = [i for i in stepping if self.members[i].step in self.members[i].schedule.resample_steps]
            if any(self.members[i].milestones for i in stepping) or due:
                self._go_back()
            for index in due:
                member = self.members[index]
                if member.running and member.step in member.schedule.resample_steps:
                    self._resample(index, block)
            if any(self.members[index].milestones for index in stepping):
                return
            try:
                after_step()
            except BaseException:  # told to stop: what is kept then is where the members are
                self._go_back()
                raise

    def _stepping(self, steps: int) -> list[int]:
        """Who takes the next batch, of so many; at the end nobody, when no step was lost."""
        while True:
            left = {i: one.batches for i, one in enumerate(self.members) if one.running and one.batches < steps}
            if left:
                number = min(left.values())
                return [i for i, batches in left.items() if batches == number]
            if not self._go_back():
                return []

    def _go_back(self) -> bool:
        """Let members take the steps anew that they lost; whether there were any. It waits for the device."""
        some = slice(0, len(self.members))
        if any(lost := self._rooms.lost(some)):
            self._take_back(some, lost)
        return any(lost)

    def _take_back(self, some: slice, lost: Sequence[int]) -> None:
        """Let neighbours be where they were before so many steps."""
        self._rooms.forget(some)
        for member, steps in zip(self.members[some], lost, strict=True):
            if steps:
                member.step, member.batches, member.dense = member.step - steps, member.batches - steps, True
                member.crowd = min(2 * member.crowd, MOST_CROWD)

    def _chunks(self, stepping: Sequence[int]) -> list[Chunk]:
        """Runs of neighbours among these members that take the same route, cut to the size that stays in cache."""
        kind = self.trained.device.type
        most = 0 if self.bank.steps_alone else CHUNK_ELEMENTS[kind] // self._batch_size
        chunks: list[Chunk] = []
        latents = 0
        for index in stepping:
            member = self.members[index]
            width = member.plan.width
            last = chunks[-1] if chunks else None
            fits = latents + width <= most and (last is None or index - last.first < self._most_members)
            if last and last.last == index and last.dense == member.dense and fits:
                chunks[-1] = Chunk(last.first, index + 1, member.dense)
                latents += width
            else:
                chunks.append(Chunk(index, index + 1, member.dense))
                latents = width
        return chunks

    def _roomy(self, chunk: Chunk) -> Chunk:
        """A chunk with what the device would else be asked for in its step."""
        if self._rooms.asked:
            return chunk
        members = self.members[chunk.members]
        chunk = replace(chunk, most_dead=tuple(member.most_dead for member in members))
        if chunk.dense:
            return chunk
        most = [member.plan.width * self._batch_size for member in members]
        seen, crowd = [member.entries for member in members], max(member.crowd for member in members)
        room = self._rooms.of(chunk.members, seen, most, crowd, self._half)
        if room is not None:
            room.rows_in = ROWS_IN.get(self._precision)
        return replace(chunk, room=room)

    def _step_in_room(self, chunk: Chunk, batch: Batch) -> None:
        """A step of a chunk; where memory does not last for it once more, of half as many members at a time from there
        on. Raises what says so where it does not last for one: members are then between two steps, if `whole`."""
        try:
            self._step(chunk, batch)
            return
        except OUT_OF_MEMORY as error:
            if not is_out_of_memory(error) or not self.whole:
                raise
        give_back()  # where the error no longer holds what the step had made
        count = chunk.last - chunk.first
        if count > 1:
            self._most_members = count // 2
            middle = chunk.first + self._most_members
            self._step_in_room(replace(chunk, last=middle), batch)
            self._step_in_room(replace(chunk, first=middle), batch)
            return
        try:
            self._step(chunk, batch)
        except OUT_OF_MEMORY:
            if self.whole:
                self._go_back()
            raise

    def _step(self, chunk: Chunk, batch: Batch) -> None:
        chunk = self._roomy(chunk)
        own, members = self.trained, self.members[chunk.members]
        schedules, steps = [member.schedule for member in members], [member.step for member in members]
        clocks = [member.clock for member in members]
        ramp_M = beside(batch.x_BD, [clock.sparsity for clock in clocks])
        coefficient_M = own.coefficients.value_M[chunk.members].to(own.dtype) * ramp_M
        dead_F = torch.cat([member.silent_F >= member.dead_steps for member in members])
        with matrix_products(self._precision):
            losses, gradients = self.bank.gradients(batch, chunk, coefficient_M, dead_F, own.variance, clocks)
        lost = None if chunk.room is None else chunk.room.lost
        writes = self.bank.move(chunk, losses, lost)
        for index, (gradient, member) in enumerate(zip(gradients, members, strict=True), chunk.first):
            writes += own.adam.update(index, gradient, member.schedule, member.step, lost)
        silent_F = own.silent_F[self.bank.latents(chunk.first, chunk.last)]
        after_F = (silent_F + 1).masked_fill_(losses.fired_F > 0, 0)
        writes.append(partial(silent_F.copy_, after_F if lost is None else torch.where(lost, silent_F, after_F)))
        widths = [member.plan.width for member in members]
        fired_M = torch.stack([own_F.sum() for own_F in losses.fired_F.split(widths)])
        l0_M = fired_M.double() / len(batch.x_BD)
        writes += own.coefficients.observe(chunk.members, schedules, steps, l0_M, lost)
        if lost is not None:
            writes.append(partial(self._rooms.note, chunk.members, lost))
        self._change(members, writes + self._looks(chunk, losses, lost, after_F, coefficient_M, l0_M))

    def _change(self, members: Sequence[TrainedMember], writes: Sequence[Write]) -> None:
        """Do what a step has prepared. None of it takes memory, but for a kernel's code when it is first launched."""
        self.whole = False
        for write in writes:
            if not _done(write):
                give_back()
                write()
        for member in members:
            member.step += 1
            member.batches += 1
        self.whole = True

    def _looks(
        self, chunk: Chunk, losses: Losses, this: Tensor | None, silent_F: Tensor, *numbers: Tensor
    ) -> list[Write]:
        """What is found at fixed steps only, since reading makes the device wait: routes, log lines, divergence.
        `silent_F` is as the step leaves it."""
        members = self.members[chunk.members]
        looking = [member.step % ROUTE_EVERY == 0 for member in members]
        recording = [one.step % one.plan.log_every == 0 or one.step + 1 == one.schedule.total_steps for one in members]
        if not any(looking + recording):
            return []
        if any(lost := self._rooms.lost(chunk.members, this)):
            return [partial(self._take_back, chunk.members, lost)]
        widths, found = [member.plan.width for member in members], list[Write]()
        support, silent = losses.support_F.split(widths), silent_F.split(widths)
        for i, member in enumerate(members):
            if looking[i]:
                found.append(self._look_at(member, support[i], silent[i]))
            if recording[i]:
                found.append(
                    partial(self._keep, member, *recorded(self.trained, member, i, losses, silent[i], *numbers))
                )
        return found

    def _look_at(self, member: TrainedMember, support_F: Tensor, silent_F: Tensor) -> Write:
        """What a member's next steps go by: its route, and what they need room for."""
        kind = self.trained.device.type
        kind = "tf32" if kind == "cuda" and self._precision == "tf32" else kind
        entries, most_dead = int(support_F.sum().item()), member.most_dead
        dense = entries > DENSE_ABOVE[kind] * member.plan.width * self._batch_size
        if not self._rooms.asked:
            most_dead = int((silent_F >= member.dead_steps - ROUTE_EVERY).sum().item())
        return partial(member.go_by, entries, most_dead, dense)

    def _keep(self, member: TrainedMember, record: StepRecord, failed: str | None) -> None:
        member.failed = failed
        self.records.append(record)

    def _resample(self, index: int, block: Block) -> None:
        """Set a member's dead latents anew; where memory does not last, once more with what can be given back."""
        self.whole = False  # it is no state to go on from, in which this was not done
        resampled = partial(self._resampled, index, block)
        if not _done(resampled):
            give_back()
            resampled()
        self.whole = True

    def _resampled(self, index: int, block: Block) -> None:
        own, member = self.trained, self.members[index]
        batch = own.inputs.batch(block, slice(0, SAMPLE_ROWS))
        dead_F = member.silent_F >= member.schedule.dead_window_steps
        generator = torch.Generator().manual_seed(member.plan.config.seed * 1_000_003 + member.step)
        coefficient = own.coefficients.value_M[index].item() / own.worth
        try:
            dead_K = resample(self.bank, own.adam, index, dead_F, batch, coefficient, generator)
            member.silent_F.index_fill_(0, dead_K, 0)
        except FloatingPointError as error:
            member.failed = f"resampling after step {member.step}: {error}"


def _done(write: Write) -> bool:
    """Whether there was memory for it."""
    try:
        write()
    except OUT_OF_MEMORY as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True
