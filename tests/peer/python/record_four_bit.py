"""Records a 4-bit checkpoint whose rows are whole numbers of blocks, and another's logits by the portable kernel.

Usage: record_four_bit.py GOLDEN (needs bitsandbytes beside what tools/peer/requirements.txt names)

bitsandbytes counts blocks of 64 over the whole tensor when it quantises; its AVX-512 kernel for dequantising (0.50.2)
begins a new block with every row. The two agree where a row is a whole number of blocks, as in published models.

Writes to GOLDEN (tests/fixtures/golden):
`nf4/whole_rows`: a tiny random Qwen3 (seed 0, every row a multiple of 64; nested scales in two blocks) that transformers
saved in NF4, a right-padded batch, `dequantized.*` as dequantize_4bit gives them, and logits in two ways: `logits` with
those weights in float32, `logits_bitsandbytes` by bitsandbytes' own forward;
`nf4/checkpoint/portable.safetensors`: for the checkpoint recorded there, whose rows are not all whole, the weights as
bitsandbytes' kernel in plain PyTorch dequantises them, and the logits with them.
float32, eager attention; logits at padding are zero.
"""

import json
import os
import sys

import bitsandbytes
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from bitsandbytes.backends.utils import _get_4bit_code
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Qwen3Config, Qwen3ForCausalLM

golden = sys.argv[1]


def load(folder, **options):
    return AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", device_map={"": "cpu"}, **options
    ).eval()


def dequantized(model, portable):
    """The 4-bit weights in float32, by bitsandbytes' kernel for this processor or by the one in plain PyTorch."""
    found = {}
    for name, module in model.named_modules():
        if not isinstance(module, Linear4bit):
            continue
        state, packed = module.weight.quant_state, module.weight.data
        kept, state.dtype = state.dtype, torch.float32
        if portable:
            scales = state.absmax
            if state.nested:
                nested = state.state2
                scales = nested.code[scales.long()] * nested.absmax.repeat_interleave(nested.blocksize)[: scales.numel()]
                scales = scales + state.offset
            code = _get_4bit_code(state.quant_type, packed.device)
            found[name + ".weight"] = _dequantize_4bit_compute(
                packed.reshape(-1), scales.float(), code, state.blocksize, state.shape, torch.float32
            )
        else:
            found[name + ".weight"] = dequantize_4bit(packed, state)
        state.dtype = kept
    return found


def logits_with(model, weights, batch):
    """Logits of a plain float32 model with these matrices and the checkpoint's other weights."""
    plain = Qwen3ForCausalLM._from_config(model.config.__class__(**{
        key: value for key, value in model.config.to_dict().items() if key != "quantization_config"
    }), attn_implementation="eager").float().eval()
    rest = model.state_dict()
    plain.load_state_dict({
        name: weights[name] if name in weights else rest[name].float() for name in plain.state_dict()
    })
    return forward(plain, batch)


def forward(model, batch):
    with torch.no_grad():
        return model(**batch).logits.float() * batch["attention_mask"].unsqueeze(-1)


def by_bitsandbytes(folder, batch):
    model = load(folder, dtype=torch.float32)
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False  # its bfloat16 kernel repacks, which sizes like these do not allow
    for parameter in model.parameters():
        if parameter.dtype == torch.bfloat16:
            parameter.data = parameter.data.float()
    return forward(model, batch)


def save(path, tensors):
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, path)


def whole_rows():
    folder = f"{golden}/nf4/whole_rows"
    torch.manual_seed(0)
    config = Qwen3Config(vocab_size=160, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, head_dim=32, intermediate_size=320, max_position_embeddings=64,
                         tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=1e6))
    base = Qwen3ForCausalLM(config)
    with torch.no_grad():
        for parameter in base.parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.2
            parameter.copy_(torch.randn_like(parameter) * scale + (1.0 if parameter.ndim == 1 else 0.0))
    base.to(torch.bfloat16).save_pretrained(f"{golden}/nf4/unquantised")
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                  bnb_4bit_compute_dtype=torch.float32)
    model = load(f"{golden}/nf4/unquantised", quantization_config=settings, dtype=torch.bfloat16)
    os.makedirs(folder, exist_ok=True)
    model.save_pretrained(f"{folder}/model")
    ids = torch.randint(3, 160, (3, 17))
    mask = torch.tensor([[1] * length + [0] * (17 - length) for length in (17, 11, 5)])
    batch = dict(input_ids=ids * mask, attention_mask=mask)
    weights, portable = dequantized(model, False), dequantized(model, True)
    logits, own = logits_with(model, weights, batch), by_bitsandbytes(f"{folder}/model", batch)
    save(f"{folder}/batch.safetensors", dict(
        batch, logits=logits, logits_bitsandbytes=own,
        **{f"dequantized.{name}": weights[name] for name in list(weights)[:7]}))
    with open(f"{folder}/notes.json", "w") as out:
        json.dump(dict(
            bitsandbytes=bitsandbytes.__version__, processor=torch.backends.cpu.get_cpu_capability(),
            kernels_apart_max_abs=max(float((weights[name] - portable[name]).abs().max()) for name in weights),
            logits_vs_bitsandbytes_max_abs=float((logits - own).abs().max())), out, indent=1)
        out.write("\n")


def portable():
    folder = f"{golden}/nf4/checkpoint"
    model = load(f"{folder}/model", dtype=torch.bfloat16)
    recorded = load_file(f"{folder}/batch.safetensors")
    batch = {name: recorded[name] for name in ("input_ids", "attention_mask")}
    weights = dequantized(model, True)
    save(f"{folder}/portable.safetensors", dict(
        logits=logits_with(model, weights, batch),
        **{f"dequantized.{name}": weights[name] for name in list(weights)[:7]}))
    here = dequantized(model, False)
    print(json.dumps({
        "portable apart from recorded": {name: float((weights[name] - recorded["dequantized." + name]).abs().max()) for name in list(weights)[:7]},
        "this machine's apart from recorded": {name: float((here[name] - recorded["dequantized." + name]).abs().max()) for name in list(weights)[:7]},
        "logits": float((logits_with(model, here, batch) - recorded["logits"]).abs().max()),
    }, indent=1))


whole_rows()
portable()
