"""Logits as transformers (and PEFT) compute them.

Usage: logits.py HEAD MODEL BATCH OUT [ADAPTER]

HEAD is causal, classifier or masked. BATCH is a safetensors file with input_ids and attention_mask (B, T); OUT gets
logits as float32. A model in 4 bits computes in float32, too. Prints which weights were not found and which were not used.
"""

import json
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file

head, model_folder, batch_file, out_file = sys.argv[1:5]
adapter = sys.argv[5] if len(sys.argv) > 5 else None
kind = {
    "causal": transformers.AutoModelForCausalLM,
    "classifier": transformers.AutoModelForSequenceClassification,
    "masked": transformers.AutoModelForMaskedLM,
}[head]

model, loading = kind.from_pretrained(
    model_folder, dtype=torch.float32, attn_implementation="eager", device_map={"": "cpu"}, output_loading_info=True
)
four_bit = [module for module in model.modules() if hasattr(module, "support_avx512bf16_for_cpu")]
for module in four_bit:
    module.support_avx512bf16_for_cpu = False  # that kernel rounds to bfloat16
for parameter in model.parameters():
    if parameter.dtype == torch.bfloat16:  # what such a checkpoint keeps whole stays as it is stored
        parameter.data = parameter.data.float()
adapted = []
if adapter is not None:
    from peft import PeftModel

    model = PeftModel.from_pretrained(model, adapter)
    adapted = sorted(name for name, module in model.named_modules() if hasattr(module, "lora_A"))
model.eval()

batch = {name: tensor.long() for name, tensor in load_file(batch_file).items()}
with torch.no_grad():
    logits = model(**batch).logits
save_file({"logits": logits.float().contiguous()}, out_file)
print(
    json.dumps(
        {
            "missing": sorted(loading["missing_keys"]),
            "unexpected": sorted(loading["unexpected_keys"]),
            "adapted": len(adapted),
            "fourBit": len(four_bit),
        }
    )
)
