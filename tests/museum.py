"""The exhibits of the bug museum: bugs of published LSTMs, each with the tests that must notice it.

test_bug_museum.py puts them back one at a time; docs/museum.md shows them as exercises, beside what
tests/campaigns/bugs_in_training.py saw a training run do with each.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import minilstm

PACKAGE = Path(minilstm.__file__).resolve().parent


@dataclass(frozen=True)
class Bug:
    name: str
    seen_in: str  # issues and pull requests on GitHub; "–": told of, no link kept
    survives_because: str
    file: str  # in minilstm/
    old: str  # found there exactly once
    new: str
    caught_by: tuple[str, ...]  # in tests/; each must fail, a parametrized one in some case
    # what the training run needs to meet it
    recipe: dict[str, Any] = field(default_factory=dict, hash=False)
    unseen: bool = False  # whether that run ends with the right code's figures, to the last digit


CELL = "nn/test_lstm.py::test_cell_backward_is_the_derivative_of_cell_forward"
SEQUENCE = "nn/test_lstm.py::test_sequence_backward_is_the_derivative_of_sequence_forward"
NAIVE_FORWARD = "nn/test_lstm.py::test_forward_equals_a_naive_loop_over_gates_and_units"
NAIVE_BACKWARD = "nn/test_lstm.py::test_backward_equals_a_naive_loop_over_gates_and_units"
SHARES = "test_workers.py::test_a_batch_in_shares_has_the_loss_and_gradients_of_the_whole"

BUGS = [
    # --- the cell
    Bug(
        name="forget gate without the derivative of its sigmoid",
        seen_in="CaptainE/RNN-LSTM-in-numpy#1",
        survives_because="the factor left out is positive: every sign is right",
        file="nn/lstm.py",
        old="dz_f = df * f * (1 - f)",
        new="dz_f = df * f",
        caught_by=(CELL, NAIVE_BACKWARD),
    ),
    Bug(
        name="derivative of a sigmoid taken of the activated gate",
        seen_in="nicklashansen/rnn_lstm_from_scratch#1",
        survives_because="0.2 to 0.25 stands where 0 to 0.25 should: it learns, slowly",
        file="nn/lstm.py",
        old="dz_o = do * o * (1 - o)",
        new="dz_o = do * sigmoid(o) * (1 - sigmoid(o))",
        caught_by=(CELL,),
    ),
    Bug(
        name="derivative of a tanh taken of the activated candidate",
        seen_in="nicklashansen/rnn_lstm_from_scratch#1",
        survives_because="the factor is positive, and right for small candidates",
        file="nn/lstm.py",
        old="dz_g = dg * (1 - g * g)",
        new="dz_g = dg * (1 - get_array_module(g).tanh(g) ** 2)",
        caught_by=(CELL,),
    ),
    Bug(
        name="tanh(tanh(c)) in the derivative of the hidden state",
        seen_in="nicklashansen/rnn_lstm_from_scratch#1",
        survives_because="while cells are small it is near tanh(c); later it learns slowly",
        file="nn/lstm.py",
        old="dtanh_c * (1 - tanh_c * tanh_c)",
        new="dtanh_c * (1 - get_array_module(tanh_c).tanh(tanh_c) ** 2)",
        caught_by=(CELL, NAIVE_BACKWARD),
    ),
    Bug(
        name="dc = for dc +=: dc_next is left out",
        seen_in="apache/mxnet#4057; asked in cthorey/CS231#1 and arunmallya.github.io#3",
        survives_because="each step still learns from its own loss; only the future is lost",
        file="nn/lstm.py",
        old="dc_t = dc_next + dtanh_c *",
        new="dc_t = dtanh_c *",
        caught_by=(CELL, SEQUENCE),
    ),
    Bug(
        name="dc_prev from the dc that came in, not from the total",
        seen_in="–",
        survives_because="where no gradient flows into c_T, it is the bug above in other words",
        file="nn/lstm.py",
        old="df, dc_prev = dc_t * c_prev, dc_t * f",
        new="df, dc_prev = dc_t * c_prev, dc_next * f",
        caught_by=(CELL, SEQUENCE),
    ),
    Bug(
        name="input gate added to the candidate instead of multiplied",
        seen_in="MartinuzziFrancesco/torchrecurrent#22",
        survives_because="the training loss is near the right one; the validation loss is not",
        file="nn/lstm.py",
        old="c_t = f * c_prev + i * g",
        new="c_t = f * c_prev + i + g",
        caught_by=(NAIVE_FORWARD,),
    ),
    Bug(
        name="hidden state without the tanh of the cell",
        seen_in="nicodjimenez/lstm#47",
        survives_because="small cells are near their tanh; here they grow: the loss explodes",
        file="nn/lstm.py",
        old="h_t = o * tanh_c",
        new="h_t = o * c_t",
        caught_by=(NAIVE_FORWARD,),
    ),
    # --- the sequence
    Bug(
        name="dh_next computed and discarded",
        seen_in="CaptainE/RNN-LSTM-in-numpy#1, qixianbiao/RNN#2",
        survives_because="gradient still goes back through the cells; with T = 1 nothing is wrong",
        file="nn/lstm.py",
        old="dh = dhs[t] + dh_next",
        new="dh = dhs[t]",
        caught_by=(SEQUENCE, NAIVE_BACKWARD),
    ),
    Bug(
        name="gradient through the last cell state dropped",
        seen_in="deeplearning4j/deeplearning4j#8838, PaddlePaddle/Paddle#6970",
        survives_because="a language model reads hs alone; an encoder's decoder reads c_T",
        file="nn/lstm.py",
        old="dh_next, dc_next = dstate",
        new="dh_next, dc_next = dstate[0], xp.zeros_like(dstate[1])",
        caught_by=(
            SEQUENCE + "[c_T]",
            "nn/test_lstm.py::"
            "test_split_backward_with_the_gradient_of_the_state_handed_back_equals_one_pass",
        ),
        unseen=True,
    ),
    Bug(
        name="list of cells off by one",
        seen_in="–",
        survives_because="cells change slowly; at t = 0 index -1 is the last cell and no error",
        file="nn/lstm.py",
        old="cache.c_prevs[t]",
        new="cache.c_prevs[t - 1]",
        caught_by=(SEQUENCE, NAIVE_BACKWARD),
    ),
    Bug(
        name="recurrent weights paired with the hidden state of their own step",
        seen_in="asked in VikParuchuri/zero_to_gpt#9",
        survives_because="neighbouring hidden states resemble each other",
        file="nn/lstm.py",
        old="cache = LSTMCache(x, W_x, W_h, h[:T],",
        new="cache = LSTMCache(x, W_x, W_h, h[1:],",
        caught_by=(SEQUENCE, NAIVE_BACKWARD),
    ),
    Bug(
        name="bias of the output gate added to the other gates",
        seen_in="ddbourgin/numpy-ml#42",
        survives_because="biases start at zero, and tests with zero biases cannot see it",
        file="nn/lstm.py",
        old="@ W_x + b).reshape(T, B, 4 * H)",
        new="@ W_x + xp.concatenate([b[3 * H :]] * 2 + [b[2 * H :]])).reshape(T, B, 4 * H)",
        caught_by=(NAIVE_FORWARD, SEQUENCE),
    ),
    Bug(
        name="bias gradient of the forget gate given to the other gates",
        seen_in="hanbt/learn_dl#53",
        survives_because="the matrices learn what the biases cannot",
        file="nn/lstm.py",
        old="LSTMGrads(dW_x, dW_h, db)",
        new="LSTMGrads(dW_x, dW_h, xp.concatenate([db[H : 2 * H]] * 2 + [db[2 * H :]]))",
        caught_by=(SEQUENCE, NAIVE_BACKWARD),
    ),
    Bug(
        name="gate gradients never written into their buffer",
        seen_in="explosion/thinc, its reference LSTM",
        survives_because="the output layer learns alone; a test of shapes passes",
        file="nn/lstm.py",
        old="xp.concatenate(dz, axis=1, out=dzs[t])",
        new="dzs[t] = 0  # as it was allocated",
        caught_by=(SEQUENCE, NAIVE_BACKWARD),
    ),
    Bug(
        name="gates joined in another order than they were split",
        seen_in="–",
        survives_because="all shapes fit, half of the columns are right, and the loss falls",
        file="nn/lstm.py",
        old="xp.concatenate(dz, axis=1, out=dzs[t])",
        new="xp.concatenate([dz[0], dz[1], dz[3], dz[2]], axis=1, out=dzs[t])",
        caught_by=(SEQUENCE, NAIVE_BACKWARD),
    ),
    Bug(
        name="weight gradient returned plus the weight",
        seen_in="–",
        survives_because="it is a weight decay, if one that leaves little to learn",
        file="nn/lstm.py",
        old="LSTMGrads(dW_x, dW_h, db)",
        new="LSTMGrads(W_x + dW_x, W_h + dW_h, db)",
        caught_by=(SEQUENCE, NAIVE_BACKWARD),
    ),
    Bug(
        name="weight gradient of one step instead of the sum over all",
        seen_in="–",
        survives_because="one step's gradient is a noisy estimate of the sum",
        file="nn/lstm.py",
        old="dW_h = h_prevs.reshape(T * B, H).T @ dz_rows",
        new="dW_h = h_prevs[0].T @ dzs[0]",
        caught_by=(SEQUENCE, NAIVE_BACKWARD),
    ),
    Bug(
        name="last dh of a chunk leaks into the next",
        seen_in="–",
        survives_because="where each chunk is given zeros of its own, as here, nothing leaks",
        file="nn/lstm.py",
        old="dh_next = dzs[t] @ W_h.T",
        new="dh_next[...] = dzs[t] @ W_h.T",
        caught_by=("nn/test_lstm.py::test_a_chunk_leaves_no_gradient_behind_for_the_next",),
        unseen=True,
    ),
    Bug(
        name="hidden state carried, cell state forgotten",
        seen_in="johnarevalo/blocks-char-rnn#1",
        survives_because="the hidden state remembers a little; samples are only less coherent",
        file="nn/lstm.py",
        old="h[0], c_prev = state",
        new="h[0], c_prev = state[0], xp.zeros_like(state[1])",
        caught_by=(
            NAIVE_FORWARD,
            "nn/test_lstm.py::test_split_sequence_with_carried_state_equals_one_pass",
        ),
    ),
    # --- the model
    Bug(
        name="state of the first layer given to every layer",
        seen_in="pclucas14/GansFallingShort#2",
        survives_because="with zero states, or one layer, nothing is wrong",
        file="model.py",
        old="layer_state = state[0][k], state[1][k]",
        new="layer_state = state[0][0], state[1][0]",
        caught_by=("test_model.py::test_chunks_with_carried_state_equal_one_pass",),
    ),
    Bug(
        name="tied weights given one of their two gradients",
        seen_in="paiml/entrenar#314 (each in a step of its own)",
        survives_because="either gradient alone goes downhill",
        file="model.py",
        old='grads["embedding.W"] = grads["embedding.W"] + dW_out.T',
        new='grads["embedding.W"] = dW_out.T',
        caught_by=("test_model.py::test_a_tied_matrix_gets_the_gradients_of_both_its_places",),
    ),
    Bug(
        name="dropout mask missing in backward",
        seen_in="ddbourgin/numpy-ml#94",
        survives_because="on average over masks the gradient is nearly right",
        file="model.py",
        old="dx = dropout(dhs, masks.output)",
        new="dx = dhs",
        caught_by=(
            "test_model.py::test_backward_through_dropout_is_the_derivative_with_the_same_masks",
        ),
    ),
    Bug(
        name="dropout rescaled twice",
        seen_in="–",
        survives_because="it is a larger learning rate for the layers below",
        file="model.py",
        old="dx = dropout(dx, masks.inputs[k])",
        new="dx = dropout(dropout(dx, masks.inputs[k]), masks.inputs[k])",
        caught_by=(
            "test_model.py::test_backward_through_dropout_is_the_derivative_with_the_same_masks",
        ),
    ),
    Bug(
        name="forget bias set on another gate",
        seen_in="the order is asked for in pytorch/pytorch#750 and keras-team/keras#3088",
        survives_because="training moves the biases anyway",
        file="model.py",
        old="value[H : 2 * H] = config.forget_bias",
        new="value[2 * H : 3 * H] = config.forget_bias",
        caught_by=("test_model.py::test_forget_bias_lands_on_the_forget_gate_alone",),
    ),
    Bug(
        name="one of several gradients kept where a row was looked up often",
        seen_in="karpathy/nn-zero-to-hero#57, HIPS/autograd#136",
        survives_because="every row still gets a gradient, frequent ones too small a one",
        file="nn/embedding.py",
        old="xp.add.at(dW, id_rows, dx_rows)",
        new="dW[id_rows] += dx_rows",
        caught_by=("nn/test_embedding.py::test_gradients_of_repeated_ids_add",),
        recipe={"largest_one_hot": 0},
    ),
    Bug(
        name="second bias lost on import",
        seen_in="asked in pytorch/pytorch#750",
        survives_because="the model still works, a little worse than where it came from",
        file="torch_weights.py",
        old='params[f"lstm{k}.b"] += host[f"lstm.bias_hh_l{k}"]',
        new="pass",
        caught_by=("test_torch_parity.py::test_import_adds_the_second_bias",),
    ),
    # --- the loss
    Bug(
        name="loss of the last step, gradient of all steps",
        seen_in="–",
        survives_because="the gradient is right, only the figure that is printed is not its loss",
        file="nn/loss.py",
        old="loss_sum, dlogits = _summed(logits.reshape(N, V), targets.reshape(N), N)\n",
        new="loss_sum, dlogits = _summed(logits.reshape(N, V), targets.reshape(N), N)\n"
        "    loss_sum = _summed(logits[-1], targets[-1], N)[0]\n",
        caught_by=(
            "nn/test_loss.py::test_loss_is_the_mean_over_all_steps_and_sequences",
            "nn/test_loss.py::test_dlogits_is_the_derivative_of_the_loss",
        ),
    ),
    Bug(
        name="loss averaged over T·B, its gradient over T",
        seen_in="a sum where a mean is meant: karpathy/char-rnn#70",
        survives_because="it is a learning rate B times as large, which Adam and clipping hide",
        file="nn/loss.py",
        old="_summed(logits.reshape(N, V), targets.reshape(N), N)",
        new="_summed(logits.reshape(N, V), targets.reshape(N), logits.shape[0])",
        caught_by=("nn/test_loss.py::test_dlogits_is_the_derivative_of_the_loss",),
    ),
    Bug(
        name="each chunk of rows averaged over its own size",
        seen_in="huggingface/transformers#34191",
        survives_because="while all rows fit into one chunk it is right",
        file="nn/loss.py",
        old="target_rows[chunk], of)",
        new="target_rows[chunk], len(x))",
        caught_by=("nn/test_loss.py::test_row_chunks_equal_the_whole",),
        recipe={"fast": True, "chunk": 1 << 15},
    ),
    Bug(
        name="softmax without subtracting the maximum",
        seen_in="uTensor/uTensor#175, deeplearning4j/deeplearning4j#6039",
        survives_because="logits stay small for a long time",
        file="nn/loss.py",
        old="xp.subtract(logits, logits.real.max(axis=1, keepdims=True), out=out)",
        new="xp.subtract(logits, 0, out=out)",
        caught_by=("nn/test_loss.py::test_logits_of_ten_thousand_are_scored_right",),
        unseen=True,
    ),
    # --- the faster form
    Bug(
        name="in place: the future's gradient overwritten instead of added to",
        seen_in="–",
        survives_because="each step still learns from its own output",
        file="nn/lstm_steps.py",
        old="dh += dhs_blocks[first + k]",
        new="dh[...] = dhs_blocks[first + k]",
        caught_by=("nn/test_lstm_fast.py::test_backward_is_the_derivative_of_forward",),
        recipe={"fast": True},
    ),
    Bug(
        name="in place: the cell state after the step taken for the one before",
        seen_in="–",
        survives_because="the two differ little from one step to the next",
        file="nn/lstm_steps.py",
        old="d_f *= buffers.c[first:last]",
        new="d_f *= buffers.c[first + 1 : last + 1]",
        caught_by=(
            "nn/test_lstm_fast.py::test_equals_the_page",
            "nn/test_lstm_fast.py::test_backward_is_the_derivative_of_forward",
        ),
        recipe={"fast": True},
    ),
    Bug(
        name="in place: the slopes of the first chunk of steps for all of them",
        seen_in="–",
        survives_because="short sequences are one chunk",
        file="nn/lstm_steps.py",
        old="slopes_of(buffers, first, first + len(steps))",
        new="slopes_of(buffers, 0, len(steps))",
        caught_by=(
            "nn/test_lstm_fast.py::test_equals_the_page",
            "nn/test_lstm_fast.py::test_backward_is_the_derivative_of_forward",
        ),
        recipe={"fast": True},
    ),
    Bug(
        name="one tanh for all gates without the ½ inside",
        seen_in="–",
        survives_because="forward and backward agree on a steeper σ, but for one constant",
        file="nn/lstm_steps.py",
        old="np.multiply(z[:2], 0.5, out=out[1:3])",
        new="out[1:3] = z[:2]",
        caught_by=("nn/test_lstm_fast.py::test_equals_the_page",),
        recipe={"fast": True},
    ),
    Bug(
        name="each process's sequences averaged over their own number",
        seen_in="huggingface/transformers#34191, over batches instead of processes",
        survives_because="two equal halves make twice the gradient, and Adam divides it out again",
        file="model.py",
        old="workspace=workspace, of=of)",
        new="workspace=workspace)",
        caught_by=(SHARES,),
        recipe={"fast": True, "threads": 2},
    ),
    Bug(
        name="another process that goes on with the weights it began with",
        seen_in="–",
        survives_because="half of each gradient is right, and a small rate moves little at a step",
        file="workers.py",
        old="workers[0].params[name][...] = p ",
        new="workers[0].params[name][...] += p * (not workers[0].params[name].any()) ",
        caught_by=(SHARES,),
        recipe={"fast": True, "threads": 2},
    ),
    # --- the optimizer
    Bug(
        name="clipping that rebinds a name and so clips nothing",
        seen_in="without effect by other slips: NVIDIA/OpenSeq2Seq#192, yandex-research/tabm#20",
        survives_because="most steps need no clipping",
        file="optim.py",
        old="g *= scale.astype(g.dtype)",
        new="g = g * scale.astype(g.dtype)",
        caught_by=(
            "test_optim.py::test_clipping_keeps_the_direction_and_returns_the_norm_before",
            "test_optim.py::test_clipping_works_in_place_and_keeps_the_dtype",
        ),
        recipe={"clip": 0.1},
    ),
    Bug(
        name="clipping each tensor by its own norm",
        seen_in="carpedm20/MemN2N-tensorflow#19",
        survives_because="each tensor still goes downhill, together they change direction",
        file="optim.py",
        old="g *= scale.astype(g.dtype)",
        new="g *= min(1.0, max_norm / (float(xp.sqrt((g * g).sum())) + 1e-6))",
        caught_by=("test_optim.py::test_clipping_keeps_the_direction_and_returns_the_norm_before",),
        recipe={"clip": 0.1},
    ),
    Bug(
        name="Adam without bias correction",
        seen_in="oxiglade/mlx-rs#301",
        survives_because="after a few thousand steps the corrections are 1",
        file="optim.py",
        old="rate, correction = self.lr / (1 - beta1**self.steps), math.sqrt(1 - beta2**self.steps)"
        "\n",
        new="rate, correction = self.lr, 1.0\n",
        caught_by=("test_optim.py::test_adams_first_step_is_lr_whatever_the_size_of_the_gradient",),
    ),
    Bug(
        name="Adam counting a step for every tensor",
        seen_in="Shubham-cyber-prog/100-Days-Of-Web-Development-ECWoC26#1575",
        survives_because="with one tensor it is right, and after many steps the corrections are 1",
        file="optim.py",
        old="self.steps += 1\n        for name, p in params.items():\n",
        new="for name, p in params.items():\n            self.steps += 1\n",
        caught_by=("test_optim.py::test_a_state_dict_continues_exactly_where_it_was_taken",),
    ),
    Bug(
        name="AdamW with its decay in the gradient",
        seen_in="nntrainer/nntrainer#3565",
        survives_because="it is Adam's L2 penalty, here far too strong; the loss falls at first",
        file="optim.py",
        old="p *= 1 - self.lr * self.weight_decay",
        new="g = g + self.weight_decay * p",
        caught_by=(
            "test_optim.py::test_adamw_decay_comes_before_adams_step_and_does_not_enter_the_moments",
        ),
    ),
    # --- the batches
    Bug(
        name="last target wraps round to the first input",
        seen_in="udacity/deep-learning#239, sherjilozair/char-rnn-tensorflow#26",
        survives_because="one target in T is wrong",
        file="text/batching.py",
        old="targets = tokens[1 : B * S + 1].reshape(B, S).T",
        new="targets = np.roll(inputs, -1, axis=0)",
        caught_by=("text/test_batching.py::test_last_target_is_the_last_character_of_the_text",),
    ),
    Bug(
        name="state not reset when the text starts again",
        seen_in="karpathy/char-rnn#78",
        survives_because="a state is forgotten within some steps",
        file="text/batching.py",
        old="targets[t : t + T].copy(), t == 0",
        new="targets[t : t + T].copy(), False",
        caught_by=(
            "text/test_batching.py::test_the_state_is_reset_at_the_first_chunk_of_each_pass_alone",
        ),
    ),
    Bug(
        name="short last chunk dropped, so that a short text has no batch",
        seen_in="karpathy/char-rnn#15 and #32",
        survives_because="long texts lose only their end",
        file="text/batching.py",
        old="for t in range(0, S, T):",
        new="for t in range(0, S - T + 1, T):",
        caught_by=("text/test_batching.py::test_a_short_last_chunk_is_used",),
    ),
    # --- the gradient check itself: with these, all of the above would pass it
    Bug(
        name="a check that can never fire",
        seen_in="– (`if error is None`); bad gradients passed in chainer/chainer#3541",
        survives_because="a check is looked at when it fails",
        file="gradcheck.py",
        old="if failed:",
        new="if failed is None:",
        caught_by=(
            "test_gradcheck.py::test_one_wrong_entry_is_rejected",
            "test_gradcheck.py::test_a_gradient_wrong_everywhere_is_rejected",
        ),
    ),
    Bug(
        name="a comparison with NaN, which is always False",
        seen_in="ROCm/MIOpen#1400",
        survives_because="an `error > tolerance` reads as well as its negation",
        file="gradcheck.py",
        old="ok = (error <= allowed[name]) & np.isfinite(a) & np.isfinite(n)",
        new="ok = ~(error > allowed[name])",
        caught_by=(
            "test_gradcheck.py::test_one_wrong_entry_is_rejected",
            "test_gradcheck.py::test_a_function_that_is_no_number_is_rejected",
        ),
    ),
    Bug(
        name="a gradient check in float32",
        seen_in="pytorch/pytorch#8659, PaddlePaddle/Paddle#4283, chainer/chainer#3046",
        survives_because="it fails for right gradients, so its tolerance is raised until it cannot",
        file="gradcheck.py",
        old="if x.dtype != np.float64:",
        new='if x.dtype.kind != "f":',
        caught_by=("test_gradcheck.py::test_what_cannot_be_checked_is_refused_in_one_line",),
    ),
]


def copy_of_the_package(folder: Path, bug: Bug | None = None) -> None:
    """folder/minilstm, with the bug put back."""
    shutil.copytree(PACKAGE, folder / "minilstm", ignore=shutil.ignore_patterns("__pycache__"))
    if bug is not None:
        file = folder / "minilstm" / bug.file
        source = file.read_text(encoding="utf-8")
        times = source.count(bug.old)
        assert times == 1, f"{bug.file} must have {bug.old!r} once, has it {times} times"
        file.write_text(source.replace(bug.old, bug.new), encoding="utf-8")
