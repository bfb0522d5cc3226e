"""The same works with the Python libraries, for `npm run bench -- --peer PYTHON`.

    python bench.py WORK --model DIR --rm DIR --csv FILE --dtype float32|bfloat16 --threads N [--quick]

WORK is sft, rm, grpo, generate-1 or generate-64. Writes one JSON line when ready, then, for every line it reads, does the
work once and writes {"seconds", "amounts": {unit: count}, "parts": {name: seconds}, "cpuSeconds", "peakBytes"}. Settings are those of the works in
bench/works: LoRA r 16, alpha 32, dropout 0.05 on seven projections; temperature 0.8, top-p 0.95.
"""
import argparse
import csv
import json
import os
import resource
import sys
import tempfile
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

# What libraries print must not mix with the answers.
answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)

HEADLINE = "请根据以下新闻标题，创作一段幽默的中文文本：\n\n标题：{headline}\n\n幽默文本："
WORDS = "请使用以下两个词语，创作一段幽默的中文文本：\n\n词语：{word1}、{word2}\n\n幽默文本："
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def answer(value):
    answers.write(json.dumps(value) + "\n")
    answers.flush()


class Turns:
    """Waits for its turn before a repetition, and tells afterwards what it took."""

    def begin(self):
        if not sys.stdin.readline():
            os._exit(0)
        self.start, self.cpu = time.perf_counter(), time.process_time()

    def end(self, amounts, parts=None):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        seconds, cpu = time.perf_counter() - self.start, time.process_time() - self.cpu
        answer({"seconds": seconds, "amounts": amounts, "parts": parts or {}, "cpuSeconds": cpu, "peakBytes": peak})


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["sft", "rm", "grpo", "generate-1", "generate-64"])
    for name in ("model", "rm", "csv"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


def rows_of(args):
    with open(args.csv, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def prompt_of(row):
    return HEADLINE.format(**row) if row.get("headline") else WORDS.format(**row)


def tokenizer_of(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def dtype_of(args):
    import torch

    return getattr(torch, args.dtype)


def policy_of(args):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype_of(args))


def judge_of(args, dtype):
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(args.rm, dtype=dtype, num_labels=2)


def trainer_arguments(args, folder):
    return {
        "output_dir": folder,
        "max_steps": 1_000_000,
        "bf16": args.dtype == "bfloat16",
        "gradient_checkpointing": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 0,
    }


def adapter():
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=PROJECTIONS, task_type="CAUSAL_LM")


def every(steps, turns, amounts, parts=dict):
    """A callback that lets a trainer take so many optimizer steps a turn."""
    from transformers import TrainerCallback

    class Pace(TrainerCallback):
        done = 0

        def on_train_begin(self, *_, **__):
            answer({"ready": True})
            turns.begin()

        def on_step_end(self, *_, **__):
            self.done += 1
            if self.done % steps == 0:
                turns.end(amounts(), parts())
                turns.begin()

    return Pace()


def sft(args, turns, folder):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    data = [{"prompt": prompt_of(row), "completion": row["joke"] or ""} for row in rows_of(args)[:2048]]
    seen = [0, 0]

    class Counting(SFTTrainer):
        def compute_loss(self, model, inputs, *rest, **named):
            seen[0] += int((inputs["labels"][:, 1:] != -100).sum())
            seen[1] += int(inputs["attention_mask"].sum())
            return super().compute_loss(model, inputs, *rest, **named)

    def amounts():
        supervised, real = seen
        seen[:] = 0, 0
        return {"supervised tokens": supervised, "real tokens": real}

    Counting(
        model=policy_of(args),
        processing_class=tokenizer_of(args.model),
        train_dataset=Dataset.from_list(data),
        peft_config=adapter(),
        callbacks=[every(1, turns, amounts)],
        args=SFTConfig(per_device_train_batch_size=4, max_length=256, **trainer_arguments(args, folder)),
    ).train()


def grpo(args, turns, folder):
    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    judge, judging = judge_of(args, dtype_of(args)).eval(), tokenizer_of(args.rm)
    tokenizer = tokenizer_of(args.model)
    tokenizer.padding_side = "left"
    written, writing = [0], [0.0]

    def reward(prompts, completions, completion_ids, **_):
        written[0] += sum(map(len, completion_ids))
        logits = []
        for start in range(0, len(completions), 16):
            texts = [a + b for a, b in zip(prompts[start:start + 16], completions[start:start + 16])]
            inputs = judging(texts, return_tensors="pt", padding=True, truncation=True, max_length=256)
            with torch.no_grad():
                output = judge(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
            logits += output.logits[:, 1].float().tolist()
        return logits

    def amounts():
        tokens, written[0] = written[0], 0
        return {"generated tokens": tokens}

    def parts():
        seconds, writing[0] = writing[0], 0.0
        return {"rollout": seconds}

    class Timing(GRPOTrainer):
        def _generate_single_turn(self, *given, **named):
            start = time.perf_counter()
            try:
                return super()._generate_single_turn(*given, **named)
            finally:
                writing[0] += time.perf_counter() - start

    group, batch, rollout, length = (2, 2, 4, 6) if args.quick else (4, 16, 64, 128)
    data = [{"prompt": prompt_of(row)} for row in rows_of(args)[:2048]]
    Timing(
        model=policy_of(args),
        reward_funcs=reward,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(data),
        peft_config=adapter(),
        callbacks=[every(rollout // batch, turns, amounts, parts)],
        args=GRPOConfig(
            per_device_train_batch_size=batch,
            generation_batch_size=rollout,
            num_generations=group,
            max_completion_length=length,
            temperature=0.8,
            top_p=0.95,
            beta=0.05,
            **trainer_arguments(args, folder),
        ),
    ).train()


def rm(args, turns, _):
    import torch
    from torch.nn.functional import cross_entropy, kl_div, log_softmax

    model, tokenizer = judge_of(args, torch.float32).train(), tokenizer_of(args.rm)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.01)
    rows, batch, step = rows_of(args), 2 if args.quick else 16, 0
    answer({"ready": True})
    while True:
        turns.begin()
        chosen = [rows[(step * batch + i) % len(rows)] for i in range(batch)]
        texts = [prompt_of(row) + (row["joke"] or "") for row in chosen]
        labels = torch.tensor([int(float(row.get("label") or 1)) for row in chosen])
        inputs = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=256)
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        with torch.autocast("cpu", torch.bfloat16, enabled=args.dtype == "bfloat16"):
            first, second = (model(**inputs).logits.float() for _ in range(2))
        p, q = log_softmax(first, -1), log_softmax(second, -1)
        apart = kl_div(p, q, reduction="batchmean", log_target=True) + kl_div(q, p, reduction="batchmean", log_target=True)
        loss = (cross_entropy(first, labels) + cross_entropy(second, labels)) / 2 + 2 * apart
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        turns.end({"samples": batch, "real tokens": int(inputs["attention_mask"].sum())})


def generate(args, turns, batch):
    import torch

    model, tokenizer = policy_of(args).eval(), tokenizer_of(args.model)
    tokenizer.padding_side = "left"
    rows = rows_of(args)
    prompts = [prompt_of(rows[i % len(rows)]) for i in range(batch)]
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    new = 4 if args.quick else 64
    answer({"ready": True})
    while True:
        turns.begin()
        with torch.no_grad():
            output = model.generate(
                **inputs, do_sample=True, temperature=0.8, top_p=0.95, top_k=0,
                max_new_tokens=new, min_new_tokens=new, pad_token_id=tokenizer.pad_token_id,
            )
        turns.end({"tokens": batch * (output.shape[1] - inputs["input_ids"].shape[1])})


def main():
    args = arguments()
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    turns = Turns()
    if args.work.startswith("generate"):
        generate(args, turns, 2 if args.quick and args.work != "generate-1" else int(args.work.split("-")[1]))
    with tempfile.TemporaryDirectory() as folder:
        {"sft": sft, "grpo": grpo, "rm": rm}[args.work](args, turns, folder)


main()
