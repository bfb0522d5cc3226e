"""Records what transformers computes for families that the other recordings leave out.

Usage: record_families.py GOLDEN

Writes to GOLDEN (tests/fixtures/golden): `rope/rope.json`, frequencies of every scaling that is computed here, and
`roberta`, `roberta_masked`, `bert_masked`, `qwen3_classifier`, `llama_classifier`: a tiny random model each (seed 0), a
right-padded batch, logits, loss in nats and the gradient of every parameter. float32, eager attention, no dropout.
"""

import json
import os
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

golden = sys.argv[1]


def rope():
    kinds = [
        dict(rope_type="linear", factor=4.0),
        dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
             original_max_position_embeddings=8192),
        dict(rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
             original_max_position_embeddings=64),
        dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32768),
        dict(rope_type="yarn", factor=2.5, original_max_position_embeddings=4096, beta_fast=16, beta_slow=2),
        dict(rope_type="yarn", factor=40.0, original_max_position_embeddings=4096, mscale=1.0, mscale_all_dim=0.707),
        dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32768, attention_factor=1.5, truncate=False),
        dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16),
    ]
    cases = []
    for head_dim, theta in [(128, 1e6), (64, 5e5), (12, 1e4)]:
        for kind in kinds:
            parameters = dict(rope_theta=theta, **kind)
            config = transformers.Qwen3Config(head_dim=head_dim, rope_parameters=dict(parameters),
                                              max_position_embeddings=131072)
            frequencies, factor = ROPE_INIT_FUNCTIONS[kind["rope_type"]](config, "cpu")
            cases.append(dict(head_dim=head_dim, rope_parameters=parameters, attention_factor=float(factor),
                              frequencies=[float(f) for f in frequencies]))
    os.makedirs(f"{golden}/rope", exist_ok=True)
    with open(f"{golden}/rope/rope.json", "w") as out:
        json.dump(dict(transformers=transformers.__version__, cases=cases), out, indent=1)


def batch(vocab, lengths, special):
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(special, vocab, (length,))
        mask[row, :length] = 1
    return ids, mask


def model_case(name, model, pad, token_types=False, masked=False):
    torch.manual_seed(1)
    config = model.config
    with torch.no_grad():
        for parameter in model.parameters():
            # Far from the start of training, where biases and norms would hide in the logits.
            parameter.copy_(torch.randn_like(parameter) * 0.25 + (1.0 if parameter.ndim == 1 else 0.0) * 0.5)
    model.eval()
    ids, mask = batch(config.vocab_size, [11, 7, 3, 11], 5)
    ids[mask == 0] = pad
    feeds = dict(input_ids=ids, attention_mask=mask)
    if token_types:
        feeds["token_type_ids"] = (torch.arange(ids.shape[1]) >= 5).long().expand_as(ids) * mask
    logits = model(**feeds).logits
    labels = torch.randint(0, logits.shape[-1], logits.shape[:-1])
    real = mask.bool() if masked else torch.ones(len(ids), dtype=torch.bool)
    loss = torch.nn.functional.cross_entropy(logits[real], labels[real])
    loss.backward()
    folder = f"{golden}/{name}"
    os.makedirs(folder, exist_ok=True)
    model.save_pretrained(f"{folder}/model")
    save_file({key: value.contiguous() for key, value in dict(feeds, logits=logits.detach(), labels=labels).items()},
              f"{folder}/batch.safetensors")
    gradients = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.grad is not None}
    save_file({key: value.contiguous() for key, value in gradients.items()}, f"{folder}/grads.safetensors")
    with open(f"{folder}/scalars.json", "w") as out:
        json.dump(dict(loss=float(loss.detach())), out)


def main():
    torch.manual_seed(0)
    rope()
    encoder = dict(vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
                   max_position_embeddings=24, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
                   attn_implementation="eager")
    roberta = transformers.RobertaConfig(type_vocab_size=1, pad_token_id=1, num_labels=3, **encoder)
    model_case("roberta", transformers.RobertaForSequenceClassification(roberta), 1)
    model_case("roberta_masked", transformers.RobertaForMaskedLM(roberta), 1, masked=True)
    bert = transformers.BertConfig(type_vocab_size=2, hidden_act="gelu", **encoder)
    model_case("bert_masked", transformers.BertForMaskedLM(bert), 0, token_types=True, masked=True)
    causal = dict(vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                  intermediate_size=24, max_position_embeddings=64, num_labels=2, attn_implementation="eager")
    qwen3 = transformers.Qwen3Config(head_dim=8, pad_token_id=0, tie_word_embeddings=False, **causal)
    model_case("qwen3_classifier", transformers.Qwen3ForSequenceClassification(qwen3), 0)
    llama = transformers.LlamaConfig(attention_bias=True, mlp_bias=True, pad_token_id=0, **causal)
    model_case("llama_classifier", transformers.LlamaForSequenceClassification(llama), 0)


main()
