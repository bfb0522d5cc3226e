"""Records what TRL's DPOTrainer and RewardTrainer compute on the tiny models of tests/fixtures/golden.

    python tests/peer/python/record_preferences.py tests/fixtures/golden

writes `dpo/` and `bradley_terry/` there. Needs trl==1.16.0, datasets==5.2.0 and tools/peer/requirements.txt. The trainers
themselves are called; nothing of them is derived again. Rows are taken in order, dropout is off, everything is on the CPU.
"""
import json
import os
import sys
import tempfile

import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TIMES = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos")
COMMON = dict(per_device_train_batch_size=4, lr_scheduler_type="linear", warmup_steps=1, weight_decay=0.01,
              max_grad_norm=1.0, logging_steps=1, report_to="none", save_strategy="no", optim="adamw_torch", bf16=False,
              gradient_checkpointing=False, train_sampling_strategy="sequential", seed=0, use_cpu=True, disable_tqdm=True)


def words(vocab):
    """One token a word: '<pad>', '<eos>', '<unk>', 't3', 't4', …; the trainers want a tokenizer though they get ids."""
    table = {"<pad>": 0, "<eos>": 1, "<unk>": 2, **{f"t{i}": i for i in range(3, vocab)}}
    inner = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def draw(generator, low, high, vocab):
    length = int(torch.randint(low, high + 1, (1,), generator=generator))
    return " ".join(f"t{i}" for i in torch.randint(3, vocab, (length,), generator=generator).tolist())


def lines(trainer):
    return [{k: v for k, v in line.items() if k not in TIMES} for line in trainer.state.log_history]


def write(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file)


def tensors(path, values):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    save_file({name: value.detach().contiguous().float() for name, value in values.items()}, path)


def lora_state(model):
    return {n.replace(".default", ""): p for n, p in model.named_parameters() if "lora_" in n and ".ref." not in n}


def dpo(golden):
    vocab = json.load(open(os.path.join(golden, "qwen3/model/config.json")))["vocab_size"]
    generator = torch.Generator().manual_seed(20)
    rows = [dict(prompt=draw(generator, 2, 6, vocab), chosen=" " + draw(generator, 2, 9, vocab),
                 rejected=" " + draw(generator, 2, 9, vocab)) for _ in range(12)]

    def run(dtype, **settings):
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_pretrained(os.path.join(golden, "qwen3/model"), dtype=dtype,
                                                     attn_implementation="eager")
        args = {**COMMON, "max_steps": 6, "learning_rate": 5e-3, **settings}
        trainer = DPOTrainer(
            model=model, args=DPOConfig(output_dir=tempfile.mkdtemp(), **args), processing_class=words(vocab),
            train_dataset=Dataset.from_list(rows),
            peft_config=LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, bias="none", target_modules=TARGETS,
                                   task_type="CAUSAL_LM"))
        if dtype == torch.float64:
            trainer.model.to(torch.float64)
        write(os.path.join(golden, "dpo/pairs.json"),
              [{k: v for k, v in row.items() if k.endswith("_ids")} for row in trainer.train_dataset])
        initial = {n: p.detach().clone() for n, p in lora_state(trainer.model).items()}
        trainer.train()
        return dict(args=args, log=lines(trainer)), initial, lora_state(trainer.model)

    for name, settings in dict(sigmoid=dict(loss_type=["sigmoid"], beta=0.1),
                               robust=dict(loss_type=["robust"], beta=0.2, label_smoothing=0.1),
                               ipo=dict(loss_type=["ipo"], beta=0.1),
                               accumulated=dict(loss_type=["sigmoid"], beta=0.1, per_device_train_batch_size=2,
                                                gradient_accumulation_steps=2)).items():
        record, initial, final = run(torch.float32, **settings)
        double, _, exact = run(torch.float64, **settings)
        record["log_f64"] = double["log"]
        record["final_f32_vs_f64_max_abs"] = max(float((final[k].double() - exact[k]).abs().max()) for k in final)
        write(os.path.join(golden, f"dpo/{name}.json"), record)
        tensors(os.path.join(golden, f"dpo/{name}_final.safetensors"), final)
    # Drawn by the same seed in every run; lora_B starts at zero.
    tensors(os.path.join(golden, "dpo/initial.safetensors"), initial)


def bradley_terry(golden):
    where = os.path.join(golden, "deberta/model")
    vocab = json.load(open(os.path.join(where, "config.json")))["vocab_size"]
    generator = torch.Generator().manual_seed(21)
    rows = [dict(chosen=draw(generator, 4, 30, vocab), rejected=draw(generator, 4, 30, vocab)) for _ in range(12)]

    def run(dtype, **settings):
        torch.manual_seed(4)
        model = AutoModelForSequenceClassification.from_pretrained(where, num_labels=1, ignore_mismatched_sizes=True,
                                                                   dtype=dtype)
        with torch.no_grad():
            head = torch.randn(model.classifier.weight.shape, generator=torch.Generator().manual_seed(22))
            model.classifier.weight.copy_(0.5 * head)
            model.classifier.bias.zero_()
        model.config.pad_token_id = 0
        args = {**COMMON, "max_steps": 6, "learning_rate": 1e-3, "max_length": None, **settings}
        trainer = RewardTrainer(model=model, args=RewardConfig(output_dir=tempfile.mkdtemp(), **args),
                                processing_class=words(vocab), train_dataset=Dataset.from_list(rows))
        write(os.path.join(golden, "bradley_terry/pairs.json"),
              [{k: v for k, v in row.items() if k.endswith("_ids")} for row in trainer.train_dataset])
        start = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
        trainer.train()
        return dict(args=args, log=lines(trainer)), start, dict(trainer.model.named_parameters())

    for name, settings in dict(plain={}, centered=dict(center_rewards_coefficient=0.01)).items():
        record, start, final = run(torch.float32, **settings)
        double, _, exact = run(torch.float64, **settings)
        record["log_f64"] = double["log"]
        record["final_f32_vs_f64_max_abs"] = max(float((final[k].double() - exact[k]).abs().max()) for k in final)
        write(os.path.join(golden, f"bradley_terry/{name}.json"), record)
        kept = [n for n in final if n.startswith(("classifier", "pooler")) or "layer.0.attention" in n]
        tensors(os.path.join(golden, f"bradley_terry/{name}_final.safetensors"), {n: final[n] for n in kept})
    tensors(os.path.join(golden, "bradley_terry/head.safetensors"),
            {n: p for n, p in start.items() if n.startswith("classifier")})


if __name__ == "__main__":
    dpo(sys.argv[1])
    bradley_terry(sys.argv[1])
