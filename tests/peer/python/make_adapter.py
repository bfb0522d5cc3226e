"""Makes an adapter with PEFT, both factors random, and saves it. Usage: make_adapter.py MODEL OUT"""

import json
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

torch.manual_seed(1)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
config = LoraConfig(
    r=3,
    lora_alpha=5,
    use_rslora=True,
    target_modules=["q_proj", "v_proj", "down_proj"],
    init_lora_weights=False,
    task_type="CAUSAL_LM",
)
get_peft_model(model, config).save_pretrained(sys.argv[2])
print(json.dumps(None))
