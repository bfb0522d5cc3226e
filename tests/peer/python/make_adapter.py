"""Makes an adapter with PEFT, both factors and any new head random, and saves it.

Usage: make_adapter.py causal|classifier MODEL OUT MODULE...
"""

import json
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

head, model_folder, out, *modules = sys.argv[1:]
torch.manual_seed(1)
kind = AutoModelForCausalLM if head == "causal" else AutoModelForSequenceClassification
config = LoraConfig(
    r=3,
    lora_alpha=5,
    use_rslora=True,
    target_modules=modules,
    init_lora_weights=False,
    task_type="CAUSAL_LM" if head == "causal" else "SEQ_CLS",
)
model = get_peft_model(kind.from_pretrained(model_folder, dtype=torch.float32), config)
with torch.no_grad():
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name:
            parameter.add_(torch.randn_like(parameter) * 0.3)
model.save_pretrained(out)
print(json.dumps(None))
