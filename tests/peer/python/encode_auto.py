"""Ids of texts by a model folder's tokenizer, as transformers opens it. Usage: encode_auto.py MODEL TEXTS_JSON"""

import json
import sys

from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
with open(sys.argv[2], encoding="utf-8") as file:
    texts = json.load(file)
special = {role: tokenizer.convert_tokens_to_ids(token) for role, token in tokenizer.special_tokens_map.items()}
print(json.dumps({"ids": [tokenizer(text).input_ids for text in texts], "special": special}))
